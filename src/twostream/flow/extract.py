"""Videos to flow store: in worker processes, resumable, one video's failure leaving the others alone.

Each video is one job, whose outcome is a finished file or a reason. :func:`run_job` does one and knows nothing of who
calls it, so that other executors can.
"""

import errno
import hashlib
import itertools
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from twostream.errors import TwostreamError, UsageError
from twostream.files import OutputError, remove_leftovers, sha256_of
from twostream.flow.estimators import FlowError, create_estimator
from twostream.flow.quantize import quantize
from twostream.flow.store import FlowSettings, FlowStore, FlowStoreError, StoredFlowWriter, stored_size
from twostream.units import bytes_text, seconds_text
from twostream.version import __version__
from twostream.video import OnError, Video, VideoError, grid_size, probe

Progress = Callable[[int, int, str], None]

# Seconds between two messages about one video.
_MESSAGE_EVERY = 0.5
# Seconds that a worker has to tidy up when it is told to stop.
_GRACE = 5.0
# What the system may say against one file; anything else (no space, no permission) would meet all that follow.
_ONE_FILE_ONLY = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.EILSEQ}
# From either end of a video; see _fingerprint.
_EDGE = 1 << 16

_RESIZE = "luma to the grid: mean of areas when shrinking, cubic when enlarging; the longer side is even"


@dataclass(frozen=True)
class Source:
    """A video to be extracted.

    Attributes:
        name: its key in the store: a relative path with ``/`` between its parts.
        path: the file.
    """

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class ExtractionSummary:
    """What became of each video.

    Attributes:
        done: names of the videos whose flow was computed now.
        skipped: names of those whose flow was there already.
        failed: name -> reason, which names the file.
        truncated: name -> reason, of those done or skipped whose flow ends where the video is damaged.
        fields, bytes: of the done ones.
        seconds: wall time.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    truncated: dict[str, str]
    fields: int
    bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "done": list(self.done), "skipped": list(self.skipped)}

    def lines(self) -> list[str]:
        """For people: one line, and one more for each video that was cut or failed."""
        lines = [
            f"flow: {len(self.done)} videos done in {seconds_text(self.seconds)} ({self.fields} fields, "
            f"{bytes_text(self.bytes)}), {len(self.skipped)} were there already, {len(self.failed)} failed"
        ]
        lines += [f"cut at damage: {name}: {reason}" for name, reason in self.truncated.items()]
        lines += [f"failed: {reason}" for reason in self.failed.values()]
        return lines


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video's extraction, complete in itself.

    Attributes:
        source: the video.
        target: the file to write.
        settings: the store's.
        on_error: what damage in the video means, see :class:`twostream.video.Video`.
    """

    source: Source
    target: Path
    settings: FlowSettings
    on_error: OnError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job: a finished file, or a reason.

    Attributes:
        reason: why there is no file; None if there is.
        fatal: whether the reason would meet all other videos too (a full disk).
        fields, bytes: of the file.
        truncated: why the video was read only up to some frame, if it was.
    """

    reason: str | None = None
    fatal: bool = False
    fields: int = 0
    bytes: int = 0
    truncated: str | None = None


def extract(
    sources: Sequence[Source],
    store: FlowStore,
    *,
    workers: int,
    on_error: OnError = "raise",
    progress: Progress | None = None,
) -> ExtractionSummary:
    """Compute the flow of all videos that the store does not have yet.

    The same call goes on where an earlier one was stopped, by Ctrl-C, ``kill -9`` or a power cut: finished files stay
    and are skipped where the video is still the same; an unfinished one is begun anew. The files do not depend on the
    number of workers, on the order, or on whether the run was stopped.

    Args:
        sources: the videos.
        store: where to; its settings say how.
        workers: processes; 0 does the work in this one. They are spawned, so a script must call this under
            ``if __name__ == "__main__":``.
        on_error: ``"raise"`` makes a damaged video a failure, ``"truncate"`` keeps the flow before the damage.
        progress: called with (videos finished, videos in all, what is going on).

    Returns:
        What became of each. A video that cannot be read, or that a worker dies of, is in ``failed``; the rest go on.

    Raises:
        FlowError: two videos of one name, a name that no file can have, or workers that cannot start.
        OutputError: the store cannot be written (read-only, full disk); finished files stay.
        KeyboardInterrupt: with a message that says how far it came, after the workers have stopped.
    """
    if workers < 0:
        raise UsageError(f"the number of workers is 0 (this process) or more, got {workers}")
    began = time.perf_counter()
    say = progress or (lambda _done, _total, _what: None)
    named: dict[str, Source] = {}
    for source in sources:
        if named.setdefault(source.name, source) != source:
            raise FlowError(
                f"two videos are called {source.name!r} in the store: {named[source.name].path} and {source.path}"
            )
    done: dict[str, Outcome] = {}
    failed: dict[str, str] = {}
    truncated: dict[str, str] = {}
    skipped: list[str] = []
    waiting: list[Job] = []
    for name, source in named.items():
        say(len(skipped), len(named), "looking what is there already")
        job = Job(source=source, target=store.path_for(name), settings=store.settings, on_error=on_error)
        found = _finished(job, store)
        if found is None:
            waiting.append(job)
        else:
            skipped.append(name)
            if found.truncated:
                truncated[name] = found.truncated

    def report(job: Job, what: str) -> None:
        say(len(skipped) + len(done) + len(failed), len(named), f"{job.source.name}: {what}")

    if waiting:
        store.prepare()
        remove_leftovers(store.root)
        # A long one at the end would leave all workers but one idle.
        waiting.sort(key=lambda job: (-_size(job.source.path), job.source.name))
        outcomes = _in_workers(waiting, min(workers, len(waiting)), report) if workers else _in_turn(waiting, report)
        kept = f"in {store.root}, and the same command goes on from there"
        try:
            for job, outcome in outcomes:
                name = job.source.name
                if outcome.fatal:
                    raise OutputError(f"{outcome.reason}. The flow of {len(skipped) + len(done)} videos is safe {kept}")
                if outcome.reason is not None:
                    failed[name] = outcome.reason
                else:
                    done[name] = outcome
                    if outcome.truncated:
                        truncated[name] = outcome.truncated
                report(job, "done" if outcome.reason is None else "failed")
        except KeyboardInterrupt:
            so_far = len(skipped) + len(done)
            raise KeyboardInterrupt(f"stopped with the flow of {so_far} of {len(named)} videos {kept}") from None
        finally:
            outcomes.close()
            remove_leftovers(store.root)
    return ExtractionSummary(
        done=tuple(name for name in named if name in done),
        skipped=tuple(skipped),
        failed={name: failed[name] for name in named if name in failed},
        truncated={name: truncated[name] for name in named if name in truncated},
        fields=sum(outcome.fields for outcome in done.values()),
        bytes=sum(outcome.bytes for outcome in done.values()),
        seconds=time.perf_counter() - began,
    )


def run_job(job: Job, report: Callable[[str], None]) -> Outcome:
    """Compute and store the flow of one video, holding two frames at a time; a failure is an outcome, not an exception.

    Args:
        job: what to do.
        report: told now and then how far it is.
    """
    path = job.source.path
    try:
        return _extract_one(job, report)
    except OutputError as error:
        cause = error.__cause__
        return Outcome(reason=str(error), fatal=not (isinstance(cause, OSError) and cause.errno in _ONE_FILE_ONLY))
    except TwostreamError as error:
        named = str(path) in str(error) or str(job.target) in str(error)
        return Outcome(reason=str(error) if named else f"{path}: {error}")
    except MemoryError:
        return Outcome(reason=f"{path}: memory ran out; take fewer workers or a smaller short side")
    except Exception as error:
        # One odd video must not end a night's work; what happened is told with the others.
        return Outcome(reason=f"{path}: unexpected {type(error).__name__}: {error}")


def _extract_one(job: Job, report: Callable[[str], None]) -> Outcome:
    settings, path = job.settings, job.source.path
    video = Video(path, on_error=job.on_error)
    source = _fingerprint(path)
    size = grid_size(video.width, video.height, settings.short_side)
    estimator = create_estimator(settings.estimator, **settings.parameters)
    previous = None
    reported = time.monotonic()
    with StoredFlowWriter(job.target, settings, width=size[0], height=size[1]) as writer:
        for frame in video.stream(fps=settings.fps):
            luma = frame.luma(size)
            if previous is not None:
                writer.add_field(quantize(estimator(previous, luma), settings.bound))
            if settings.frames:
                writer.add_frame(frame.rgb(size))
            previous = luma
            if time.monotonic() - reported > _MESSAGE_EVERY:
                report(f"{writer.field_count} fields")
                reported = time.monotonic()
        if previous is None:
            raise VideoError(path, "not one frame of it can be read")
        writer.finish(
            fps=settings.fps or video.fps,
            source_width=video.width,
            source_height=video.height,
            provenance={
                "source": {"name": job.source.name, "sha256": _whole_hash(path), **source, "codec": video.codec},
                "truncated": video.truncated,
                "resize": _RESIZE,
                "made_by": {"twostream": __version__, "opencv": cv2.__version__, "pyav": av.__version__},
            },
        )
    return Outcome(fields=writer.field_count, bytes=writer.bytes, truncated=video.truncated)


def _finished(job: Job, store: FlowStore) -> Outcome | None:
    """What the store has of this job's video as it is now; None if it has to be computed."""
    try:
        with store.open(job.source.name) as stored:
            source, truncated = stored.provenance["source"], stored.provenance["truncated"]
        same = {key: source[key] for key in ("bytes", "edges_sha256")} == _fingerprint(job.source.path)
    except (FlowStoreError, VideoError, KeyError, TypeError):
        return None
    # Asked for whole videos, the damaged one must be met again, and reported.
    return Outcome(truncated=truncated) if same and (not truncated or job.on_error == "truncate") else None


def _fingerprint(path: Path) -> dict[str, Any]:
    """Length and hash of both ends of a file: enough to see that it was replaced, without reading all of it again."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            edges = hashlib.sha256(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            edges.update(file.read(_EDGE))
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror or error})") from error
    return {"bytes": size, "edges_sha256": edges.hexdigest()}


def _whole_hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror or error})") from error


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


Report = Callable[[Job, str], None]
Outcomes = Generator[tuple[Job, Outcome], None, None]


def _in_turn(jobs: Sequence[Job], report: Report) -> Outcomes:
    """In this process."""
    for job in jobs:
        yield job, run_job(job, lambda what, job=job: report(job, what))  # type: ignore[misc]


class _Worker:
    """A spawned process that does jobs one at a time; this end of it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), name="twostream flow", daemon=True)
        with _ctrl_c_held_back():
            self.process.start()
        theirs.close()
        self.started = False
        self.job: Job | None = None

    def give(self, job: Job | None) -> None:
        """A job, or None: go home."""
        self.job = job
        # If it has just died, the next look at the connection says so.
        with suppress(OSError):
            self.connection.send(job)

    def death(self) -> str:
        """How it came to its end."""
        self.connection.close()
        self.process.join(_GRACE)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"it ended with status {code}"
        name = signal.Signals(-code).name
        return f"{name}, perhaps because memory ran out" if name == "SIGKILL" else name


def _in_workers(jobs: Sequence[Job], count: int, report: Report) -> Outcomes:
    """In ``count`` processes. One that dies is replaced, and its job's outcome tells of it."""
    waiting = deque(jobs)
    crew: list[_Worker] = []
    try:
        crew += [_Worker() for _ in range(count)]
        while crew:
            ready = wait([worker.connection for worker in crew])
            for worker in [worker for worker in crew if worker.connection in ready]:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    death = worker.death()
                    if not worker.started:
                        raise FlowError(
                            f"a worker process could not start ({death}). A script that calls this must do so under "
                            'if __name__ == "__main__":, or take workers=0'
                        ) from None
                    if worker.job is not None:
                        reason = f"{worker.job.source.path}: the process that worked on it died ({death})"
                        yield worker.job, Outcome(reason=f"{reason}; the same command tries it again")
                        if waiting:
                            crew.append(_Worker())
                    continue
                job = worker.job
                if isinstance(message, str):
                    assert job is not None
                    report(job, message)
                    continue
                worker.started = True
                worker.give(waiting.popleft() if waiting else None)
                if job is not None:
                    yield job, message
    finally:
        for worker in crew:
            worker.process.terminate()
        deadline = time.monotonic() + _GRACE
        for worker in crew:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.connection.close()


def _serve(connection: Connection) -> None:
    """The life of a worker: says that it is there, then answers jobs with outcomes until it is sent home."""
    # Ctrl-C reaches the whole group of processes; what happens then is decided by the one that hired.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    # Where the other end is gone there is nobody left to tell.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(None)
        while (job := connection.recv()) is not None:
            connection.send(run_job(job, connection.send))


def _leave(signum: int, _frame: Any) -> None:
    """End in an orderly way, through every ``with`` block."""
    raise SystemExit(128 + signum)


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers; they would go on, and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Ctrl-C waits until the block is over; processes started in it never hear it at all."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What an extraction will take: an extrapolation from a few pairs of frames of a few videos, good to some 30 %.

    Attributes:
        seconds: wall time; NaN where none of the videos that were tried could be read.
        bytes: disk; likewise.
        pairs: how many pairs of frames were measured.
    """

    seconds: float
    bytes: float
    pairs: int


def estimate(sources: Sequence[Source], settings: FlowSettings, *, workers: int, samples: int = 3) -> Estimate:
    """Measure on a few videos how long the flow of all would take, and how much disk.

    Videos are sorted by file size and cut into ``samples`` equal parts; one of each part is measured, six pairs of
    frames or half a second, and stands for the others by the number of its bytes.

    Args:
        sources: those that are to be computed, without what is in the store already.
        settings: the store's.
        workers: processes.
        samples: videos to measure.
    """
    ranked = sorted(sources, key=lambda source: (_size(source.path), source.name))
    seconds = stored = 0.0
    covered = pairs = 0
    for part in np.array_split(range(len(ranked)), min(samples, len(ranked)) or 1):
        bytes_of_part = sum(_size(ranked[i].path) for i in part)
        # From the middle outwards; unreadable ones stand for nothing.
        for i in sorted(part, key=lambda i: abs(i - part[len(part) // 2]))[:4]:
            try:
                measured = _measure(ranked[i].path, settings)
            except (TwostreamError, OSError):
                continue
            share = bytes_of_part / max(1, _size(ranked[i].path))
            seconds += share * measured.seconds
            stored += share * measured.bytes
            pairs += measured.pairs
            covered += bytes_of_part
            break
    if not ranked:
        return Estimate(seconds=0.0, bytes=0.0, pairs=0)
    # Parts without a readable sample are taken to be like the others.
    scale = sum(_size(source.path) for source in ranked) / covered if covered else math.nan
    busy = max(1, min(workers, len(ranked), _cores()))
    return Estimate(seconds=seconds * scale / busy, bytes=stored * scale, pairs=pairs)


def _measure(path: Path, settings: FlowSettings) -> Estimate:
    """One video, by one process."""
    info = probe(path)
    fields = max(0, (info.frames if settings.fps is None else round(info.seconds * settings.fps)) - 1)
    size = grid_size(info.width, info.height, settings.short_side)
    estimator = create_estimator(settings.estimator, **settings.parameters)
    # Motion comes and goes within a clip, so the pairs are spread.
    step = max(1, min(fields, 120) // 6)
    decoding: list[float] = []
    computing: list[float] = []
    sizes: list[int] = []
    previous = None
    before = time.perf_counter()
    for frame in itertools.islice(Video(path, on_error="truncate").stream(), 6 * step + 1):
        luma = frame.luma(size)
        decoding.append(time.perf_counter() - before)
        before = time.perf_counter()
        if previous is not None and frame.index % step == 0:
            kept = frame.rgb(size) if settings.frames else None
            sizes.append(stored_size(quantize(estimator(previous, luma), settings.bound), kept))
            computing.append(time.perf_counter() - before)
            if sum(computing) > 0.5:
                break
        previous = luma
        before = time.perf_counter()
    # The first of each bears the costs of starting.
    per_frame = _mean(decoding[1:])
    per_field = _mean(computing[1:] or computing)
    # Choosing frames by time takes a pass over the video beforehand.
    passes = 1 if settings.fps is None else 2
    return Estimate(
        seconds=info.frames * per_frame * passes + fields * per_field,
        bytes=fields * _mean(sizes),
        pairs=len(sizes),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = [
    "Estimate",
    "ExtractionSummary",
    "Job",
    "Outcome",
    "Source",
    "estimate",
    "extract",
    "run_job",
]
