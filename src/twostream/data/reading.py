"""Every frame of many videos decoded once, in worker processes, so that nothing is found out in the middle of a job."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import cv2

from twostream.video import Video, VideoError, VideoInfo

Progress = Callable[[int, int, str], None]
Reader = Callable[[Path], VideoInfo | VideoError]


def read_video(path: Path) -> VideoInfo | VideoError:
    """What decoding all of a video shows, or why it cannot be decoded."""
    try:
        return Video(path).info()
    except VideoError as error:
        return error


def read_videos(
    paths: Sequence[Path], *, workers: int = 1, progress: Progress | None = None, read: Reader = read_video
) -> dict[Path, VideoInfo | VideoError]:
    """Read each distinct video once.

    A video that brings its process down (a fault in a decoder) is found and reported as any other error; the rest are
    read. With one worker no process is started.

    Args:
        paths: the files.
        workers: processes.
        progress: called with (done, total, name) after each video.
        read: what is done with each; must be importable by name.
    """
    waiting = list(dict.fromkeys(paths))
    total = len(waiting)
    found: dict[Path, VideoInfo | VideoError] = {}

    def note(path: Path, result: VideoInfo | VideoError) -> None:
        found[path] = result
        if progress:
            progress(len(found), total, path.name)

    workers = min(workers, total)
    if workers <= 1:
        for path in waiting:
            note(path, read(path))
        return found
    _together(waiting, workers, read, note)
    # A broken pool does not say which video broke it: what is left is read again, alone.
    for path in waiting:
        if path not in found:
            note(path, _alone(path, read))
    return {path: found[path] for path in waiting}


def _together(
    paths: Sequence[Path], workers: int, read: Reader, note: Callable[[Path, VideoInfo | VideoError], None]
) -> None:
    pool = _pool(workers)
    try:
        futures: dict[Future[VideoInfo | VideoError], Path] = {pool.submit(read, path): path for path in paths}
        for future in as_completed(futures):
            note(futures[future], future.result())
    except BrokenProcessPool:
        pass
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(path: Path, read: Reader) -> VideoInfo | VideoError:
    with _pool(1) as pool:
        try:
            return pool.submit(read, path).result()
        except BrokenProcessPool:
            return VideoError(path, "decoding it ends the process that does it (a fault in the decoder)")


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread)


def _one_thread() -> None:
    cv2.setNumThreads(1)
