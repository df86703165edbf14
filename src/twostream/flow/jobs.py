"""One video's extraction from file to file. :func:`run_job` knows nothing of who calls it, so any executor can."""

import errno
import functools
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy.typing as npt

from twostream.errors import TwostreamError
from twostream.files import OutputError, sha256_of
from twostream.flow.contract import Flow
from twostream.flow.quantize import quantize
from twostream.flow.settings import IMPORTED, FlowSettings
from twostream.flow.store import FlowStoreError, StoredFlow, StoredFlowWriter
from twostream.flow.streaming import stream_flow
from twostream.version import __version__
from twostream.video import OnError, Video, VideoError, grid_size
from twostream.work_claims import claimed

# Seconds between two messages about one video.
_MESSAGE_EVERY = 0.5
# What the system may say against one file; anything else (no space, no permission) would meet all that follow.
_ONE_FILE_ONLY = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.EILSEQ}
# From either end of a video; see fingerprint.
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
class Job:
    """One video's extraction, complete in itself.

    Attributes:
        source: the video.
        store: folder of the store, where claims are kept.
        target: the file to write.
        settings: the store's.
        on_error: what damage in the video means, see :class:`twostream.video.Video`.
        run: of which extraction it is part, see :mod:`twostream.work_claims`.
        verify: whether a file that is there counts only after every checksum was compared, where otherwise its header
            is enough.
        threads: that compute its flow.
        device: where its flow is computed, see :func:`~twostream.flow.estimators.create_estimator`.
    """

    source: Source
    store: Path
    target: Path
    settings: FlowSettings
    on_error: OnError
    run: str
    verify: bool = False
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job: a finished file, a reason, or another process that is at it.

    Attributes:
        reason: why there is no file; None if there is.
        fatal: whether the reason would meet all other videos too (a full disk).
        owner: who has the claim to the video; then there may be a file later.
        elsewhere: whether the file is there, but another process has written it.
        fields, bytes: of the file.
        truncated: why the video was read only up to some frame, if it was.
    """

    reason: str | None = None
    fatal: bool = False
    owner: str | None = None
    elsewhere: bool = False
    fields: int = 0
    bytes: int = 0
    truncated: str | None = None


def run_job(job: Job, report: Callable[[str], None]) -> Outcome:
    """Compute and store the flow of one video with bounded memory; a failure is an outcome, not an exception.

    Args:
        job: what to do.
        report: told now and then how far it is.
    """
    path = job.source.path
    try:
        with claimed(job.store, job.source.name, run=job.run) as other:
            if other is not None:
                return Outcome(owner=str(other))
            # Who had the claim before may have finished since this job was planned.
            found = finished(job)
            if isinstance(found, Outcome):
                return Outcome(elsewhere=True, truncated=found.truncated)
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
    source = fingerprint(path)
    W, H = grid_size(video.width, video.height, settings.short_side)
    reported = time.monotonic()
    read = False
    with StoredFlowWriter(job.target, settings, width=W, height=H) as writer:
        for field, frame in stream_flow(
            video,
            settings,
            functools.partial(_as_kept, settings=settings),
            frames=settings.frames,
            threads=job.threads,
            device=job.device,
        ):
            read = True
            if field is not None:
                writer.add_field(field)
            if frame is not None:
                writer.add_frame(frame)
            if time.monotonic() - reported > _MESSAGE_EVERY:
                report(f"{writer.field_count} fields")
                reported = time.monotonic()
        if not read:
            raise VideoError(path, "not one frame of it can be read")
        writer.finish(
            fps=settings.fps or video.fps,
            source_width=video.width,
            source_height=video.height,
            provenance={
                "source": {"name": job.source.name, "sha256": _whole_hash(path), **source, "codec": video.codec},
                "truncated": video.truncated,
                "resize": _RESIZE,
                "made_by": {
                    "twostream": __version__,
                    "opencv": cv2.__version__,
                    "pyav": av.__version__,
                    **_device(job.device),
                },
            },
        )
    return Outcome(fields=writer.field_count, bytes=writer.bytes, truncated=video.truncated)


def _as_kept(flow: Flow, settings: FlowSettings) -> npt.NDArray[Any]:
    """Done where it was computed, so that threads share this work too."""
    return flow if settings.precision == "float16" else quantize(flow, settings.bound)


def finished(job: Job) -> Outcome | str | None:
    """What the store has of this job's video as it is now.

    Returns:
        An outcome if there is nothing to do. Otherwise why the file that is there does not count, or None where there
        is no file, or that of another version of the video.
    """
    if not job.target.exists():
        return None
    try:
        with StoredFlow(job.target) as stored:
            if stored.settings.content() != job.settings.content():
                return f"{job.target}: made with other settings than its store"
            if job.verify:
                stored.verify()
            source, truncated = stored.provenance["source"], stored.provenance["truncated"]
            if job.settings.estimator == IMPORTED and "edges_sha256" not in source:
                # Taken in without the video at hand; the name is all there is.
                return Outcome(truncated=truncated)
            has = {key: source[key] for key in ("bytes", "edges_sha256")}
    except FlowStoreError as error:
        return str(error)
    except (KeyError, TypeError):
        return f"{job.target}: it does not say of which video it is"
    try:
        if has != fingerprint(job.source.path):
            return None
    except VideoError:
        return None
    # Asked for whole videos, the damaged one must be met again, and reported.
    return Outcome(truncated=truncated) if not truncated or job.on_error == "truncate" else None


def fingerprint(path: Path) -> dict[str, Any]:
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


def _device(name: str) -> dict[str, str]:
    """What computed the flow, where it was not the CPU: its fields are the CPU's but for rounding."""
    if name == "cpu":
        return {}
    from twostream.flow.tvl1_torch import device_name

    return device_name(name)


def _whole_hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror or error})") from error


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


__all__ = ["Job", "Outcome", "Source", "fingerprint", "finished", "run_job", "size_of"]
