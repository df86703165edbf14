"""Videos to flow store: resumable, shared between extractors, one video's failure leaving the others alone.

Each video is one job (:mod:`twostream.flow.jobs`), whose outcome is a finished file or a reason; who carries the jobs
out is exchangeable (:mod:`twostream.flow.executors`, :mod:`twostream.flow.ray_executor`).
"""

import functools
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from twostream.errors import UsageError
from twostream.files import OutputError, remove_leftovers
from twostream.flow.contract import FlowError
from twostream.flow.estimators import create_estimator
from twostream.flow.executors import Executor, in_turn, in_workers
from twostream.flow.jobs import Job, Outcome, Source, finished, size_of
from twostream.flow.settings import IMPORTED
from twostream.flow.store import FlowStore, stored_settings
from twostream.flow.store_file import REMEDY
from twostream.units import bytes_text, seconds_text
from twostream.video import OnError
from twostream.work_claims import claimed, others_at_work, owner_of

Progress = Callable[[int, int, str], None]
ExecutorName = Literal["process", "ray"]

# Seconds between two looks at what other extractors have finished.
_LOOK_EVERY = 1.0
# The claim to what is not a video: the store's own settings.
_SETTINGS = "settings of the store"


@dataclass(frozen=True, kw_only=True)
class ExtractionSummary:
    """What became of each video.

    Attributes:
        done: names of the videos whose flow was computed now.
        skipped: names of those whose flow was there already, or was computed by another extractor in the meantime.
        elsewhere: the latter alone.
        failed: name -> reason, which names the file.
        truncated: name -> reason, of those done or skipped whose flow ends where the video is damaged.
        replaced: name -> what was wrong with the file that was there before.
        fields, bytes: of the done ones.
        seconds: wall time.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    elsewhere: tuple[str, ...]
    failed: dict[str, str]
    truncated: dict[str, str]
    replaced: dict[str, str]
    fields: int
    bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("done", "skipped", "elsewhere")}
        return {**asdict(self), **lists}

    def lines(self) -> list[str]:
        """For people: one line, and one more for each video that was cut, replaced or failed."""
        there = f"{len(self.skipped) - len(self.elsewhere)} were there already"
        if self.elsewhere:
            there += f", {len(self.elsewhere)} done by another extractor"
        lines = [
            f"flow: {len(self.done)} videos done in {seconds_text(self.seconds)} ({self.fields} fields, "
            f"{bytes_text(self.bytes)}), {there}, {len(self.failed)} failed"
        ]
        lines += [f"computed anew: {name}: {reason}" for name, reason in self.replaced.items()]
        lines += [f"cut at damage: {name}: {reason}" for name, reason in self.truncated.items()]
        lines += [f"failed: {reason}" for reason in self.failed.values()]
        return lines


def extract(
    sources: Sequence[Source],
    store: FlowStore,
    *,
    workers: int | None,
    executor: ExecutorName = "process",
    ray_address: str | None = None,
    on_error: OnError = "raise",
    verify: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ExtractionSummary:
    """Compute the flow of all videos that the store does not have yet.

    The same call goes on where an earlier one was stopped, by Ctrl-C, ``kill -9`` or a power cut: finished files stay
    and are skipped where the video is still the same; an unfinished one is begun anew. Several calls at once, on one
    machine or on several that share the folder, divide the videos among them, and each returns when all are there. The
    files do not depend on the number of workers, on the order, on the executor, or on whether the run was stopped.

    Args:
        sources: the videos.
        store: where to; its settings say how.
        workers: cores to use, a process each; if there are fewer videos, their processes use several. 0 does the work
            in this process. They are spawned, so a script must call this under ``if __name__ == "__main__":``. With
            ``"ray"``, how many videos at once; None is as many as the cluster has cores.
        executor: ``"process"`` for this machine, ``"ray"`` for a Ray cluster whose machines see videos and store under
            the same paths.
        ray_address: of a running cluster, such as ``"auto"``; by default ``RAY_ADDRESS``, or else Ray is started on
            this machine for as long as the work takes.
        on_error: ``"raise"`` makes a damaged video a failure, ``"truncate"`` keeps the flow before the damage.
        verify: read the files that are there from end to end, and replace those whose checksums do not match, where
            otherwise only headers are looked at.
        device: where flow is computed: ``"cpu"``, or with tvl1 a device of torch such as ``"cuda"``, which all
            processes share. Fields differ by rounding, so files do; stores are the same in every other respect.
        progress: called with (videos finished, videos in all, what is going on).

    Returns:
        What became of each. A video that cannot be read, or that a worker dies of, is in ``failed``; the rest go on.

    Raises:
        FlowError: two videos of one name, a name that no file can have, workers that cannot start, or a device that
            is not there or that the estimator cannot use.
        OutputError: the store cannot be written (read-only, full disk); finished files stay.
        KeyboardInterrupt: with a message that says how far it came, after the workers have stopped.
    """
    chosen = _executor(executor, workers, ray_address)
    if executor == "ray" and device != "cpu":
        raise UsageError(f"on a Ray cluster flow is computed by the CPUs; leave out the device {device}, or Ray")
    imported = store.settings.estimator == IMPORTED
    if not imported:
        # Refused before the first video, not by each of them.
        create_estimator(store.settings.estimator, device=device, **store.settings.parameters)
    began = time.perf_counter()
    named: dict[str, Source] = {}
    for source in sources:
        if named.setdefault(source.name, source) != source:
            raise FlowError(
                f"two videos are called {source.name!r} in the store: {named[source.name].path} and {source.path}"
            )
    run = secrets.token_hex(8)
    so_far = _SoFar(total=len(named), say=progress or (lambda _done, _total, _what: None))
    waiting: list[Job] = []
    for name, source in named.items():
        so_far.say_now("looking what is there already")
        job = Job(
            source=source,
            store=store.root,
            target=store.path_for(name),
            settings=store.settings,
            on_error=on_error,
            run=run,
            verify=verify,
            device=device,
        )
        found = finished(job)
        if isinstance(found, Outcome):
            so_far.take(job, Outcome(elsewhere=True, truncated=found.truncated), now=False)
        elif imported:
            why = found or f"{job.target}: is not there, or of another version of {source.path}"
            so_far.take(job, Outcome(reason=f"{why}; flow of this store is imported and cannot be computed"))
        else:
            waiting.append(job)
            if found is not None:
                # It is being done.
                so_far.replaced[name] = found.removesuffix(f". {REMEDY}")
    so_far.say_now("looked what is there already")
    if waiting:
        _prepare(store, run, so_far)
        _tidy(store.root, run)
        # A long one at the end would leave all workers but one idle.
        waiting.sort(key=lambda job: (-size_of(job.source.path), job.source.name))
        try:
            while waiting:
                waiting = _round(waiting, chosen, so_far, kept=f"in {store.root}")
                waiting = _released(waiting, so_far)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped with the flow of {so_far.there} of {len(named)} videos in {store.root}, and the same command "
                "goes on from there"
            ) from None
        finally:
            _tidy(store.root, run)
    return ExtractionSummary(
        done=tuple(name for name in named if name in so_far.done),
        skipped=tuple(name for name in named if name in so_far.skipped),
        elsewhere=tuple(name for name in named if so_far.skipped.get(name)),
        failed={name: so_far.failed[name] for name in named if name in so_far.failed},
        truncated={name: so_far.truncated[name] for name in named if name in so_far.truncated},
        replaced=so_far.replaced,
        fields=sum(outcome.fields for outcome in so_far.done.values()),
        bytes=sum(outcome.bytes for outcome in so_far.done.values()),
        seconds=time.perf_counter() - began,
    )


def _executor(name: ExecutorName, workers: int | None, ray_address: str | None) -> Executor:
    if name not in get_args(ExecutorName):
        raise UsageError(f"the executors are {', '.join(get_args(ExecutorName))}; got {name!r}")
    if name == "ray":
        if workers is not None and workers < 1:
            raise UsageError(f"Ray works on 1 or more videos at once, got {workers}")
        from twostream.flow.ray_executor import load_ray, on_ray

        load_ray()
        return functools.partial(on_ray, workers=workers, address=ray_address)
    if ray_address is not None:
        raise UsageError("an address of a Ray cluster goes with the executor 'ray'")
    if workers is None or workers < 0:
        raise UsageError(f"the number of workers is 0 (this process) or more, got {workers}")
    return functools.partial(in_workers, workers=workers) if workers else in_turn


@dataclass(kw_only=True)
class _SoFar:
    """The books of a run; ``skipped`` says of each whether another extractor has finished it meanwhile."""

    total: int
    say: Progress
    done: dict[str, Outcome] = field(default_factory=dict)
    skipped: dict[str, bool] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    truncated: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)

    @property
    def there(self) -> int:
        return len(self.done) + len(self.skipped)

    def say_now(self, what: str) -> None:
        self.say(self.there + len(self.failed), self.total, what)

    def report(self, job: Job, what: str) -> None:
        self.say_now(f"{job.source.name}: {what}")

    def take(self, job: Job, outcome: Outcome, *, now: bool = True) -> None:
        name = job.source.name
        if outcome.reason is not None:
            self.failed[name] = outcome.reason
        elif outcome.elsewhere:
            self.skipped[name] = now
        else:
            self.done[name] = outcome
        if outcome.truncated:
            self.truncated[name] = outcome.truncated
        if now:
            self.report(job, "failed" if outcome.reason is not None else "done")


def _round(jobs: Sequence[Job], executor: Executor, so_far: _SoFar, *, kept: str) -> list[Job]:
    """Carry the jobs out; returns those that other extractors have a claim to."""
    others: list[Job] = []
    outcomes = executor(jobs, so_far.report)
    try:
        for job, outcome in outcomes:
            if outcome.fatal:
                raise OutputError(
                    f"{outcome.reason}. The flow of {so_far.there} videos is safe {kept}, and the same command goes on "
                    "from there"
                )
            if outcome.owner is None:
                so_far.take(job, outcome)
            else:
                others.append(job)
                so_far.report(job, f"left to {outcome.owner}")
    finally:
        outcomes.close()
    return others


def _released(jobs: list[Job], so_far: _SoFar) -> list[Job]:
    """Wait for other extractors until they are done with these jobs, or some can be done here; returns the latter."""
    while jobs:
        working: list[Job] = []
        free: list[Job] = []
        for job in jobs:
            owner = owner_of(job.store, job.source.name, run=job.run)
            found = finished(job)
            if isinstance(found, Outcome):
                so_far.take(job, Outcome(elsewhere=True, truncated=found.truncated))
            elif owner is None:
                free.append(job)
            else:
                working.append(job)
                so_far.report(job, f"waiting for {owner}")
        if free:
            return free + working
        jobs = working
        if jobs:
            time.sleep(_LOOK_EVERY)
    return []


def _prepare(store: FlowStore, run: str, so_far: _SoFar) -> None:
    """Make the store, one extractor at a time: whoever writes below its folder has a claim, see :func:`_tidy`."""
    # Says so where a file stands in its place.
    stored_settings(store.root)
    while True:
        with claimed(store.root, _SETTINGS, run=run) as other:
            if other is None:
                store.prepare()
                return
        so_far.say_now(f"waiting for {other}, which makes the store")
        time.sleep(_LOOK_EVERY / 10)


def _tidy(root: Path, run: str) -> None:
    """Delete what killed writers left, unless another extractor is at work, which may be on another machine."""
    at_work = functools.cache(lambda: others_at_work(root, run=run))
    # What stopped the run is the news, not that its traces cannot be removed either.
    with suppress(OutputError):
        remove_leftovers(root, unless=at_work)
        at_work()


def share(sources: Sequence[Source], index: int, count: int) -> list[Source]:
    """The part of the work that the ``index``-th of ``count`` machines does, counted from 1, by size of file.

    Every video is in exactly one part, and the parts are about equally large. They follow from names and sizes alone,
    so that each machine finds its own without asking the others, also when it starts anew.

    Raises:
        UsageError: not 1 <= index <= count.
    """
    if not 1 <= index <= count:
        raise UsageError(f"a shard is one of 1/{max(1, count)} to {max(1, count)}/{max(1, count)}, got {index}/{count}")
    loads = [0] * count
    mine: set[str] = set()
    for source in sorted(sources, key=lambda source: (-size_of(source.path), source.name)):
        lightest = loads.index(min(loads))
        # Videos without a size are shared out too.
        loads[lightest] += max(1, size_of(source.path))
        if lightest == index - 1:
            mine.add(source.name)
    return [source for source in sources if source.name in mine]


__all__ = ["ExtractionSummary", "Source", "extract", "share"]
