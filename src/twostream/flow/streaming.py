"""The flow of a video frame by frame, with bounded memory; where threads are given, decoded ahead of the flow."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from twostream.flow.contract import Flow, FlowEstimator, Luma
from twostream.flow.estimators import create_estimator
from twostream.flow.store import FlowSettings
from twostream.video import Video, grid_size

Image = npt.NDArray[np.uint8]
Kept = TypeVar("Kept")

# Pairs that a thread computes in a row, so that neighbours share what is known of the frame between them; and px of a
# block, so that large frames do not pile up.
_BLOCK = 8
_BLOCK_PIXELS = 1 << 24


class Step(NamedTuple, Generic[Kept]):
    """One frame of a video and the motion that led to it.

    Attributes:
        field: what was made of the flow from the frame before; None for the first frame.
        frame: (H, W, 3) uint8 R, G, B, if it was asked for.
    """

    field: Kept | None
    frame: Image | None


def stream_flow(
    video: Video,
    settings: FlowSettings,
    convert: Callable[[Flow], Kept],
    *,
    frames: bool = False,
    threads: int = 1,
) -> Iterator[Step[Kept]]:
    """Yield a :class:`Step` for every frame of ``video.stream(fps=settings.fps)``, on the grid of ``settings``.

    With one thread, everything happens in the caller's, holding two frames. With more, the caller's thread decodes
    while that many others compute flow, ahead by a few blocks of frames, whatever the video's length. The answer is the
    same.

    Args:
        video: read once, from its beginning to its end.
        settings: grid, frame rate and estimator.
        convert: makes of each field, (2, H, W) float32, what is yielded; called in the thread that computed it.
        frames: whether the frames are wanted too.
        threads: that compute flow.

    Raises:
        VideoError: the video is damaged.
        FlowError: its frames are too small for the estimator.
    """
    size = grid_size(video.width, video.height, settings.short_side)
    estimator = create_estimator(settings.estimator, **settings.parameters)
    pictures = ((frame.luma(size), frame.rgb(size) if frames else None) for frame in video.stream(fps=settings.fps))
    if threads > 1:
        length = max(1, min(_BLOCK, _BLOCK_PIXELS // (size[0] * size[1])))
        yield from _in_threads(pictures, estimator, convert, threads, length)
        return
    previous = None
    for luma, frame in pictures:
        field = None if previous is None else convert(estimator(previous, luma))
        yield Step(field, frame)
        previous = luma


def _in_threads(
    pictures: Iterator[tuple[Luma, Image | None]],
    estimator: FlowEstimator,
    convert: Callable[[Flow], Kept],
    threads: int,
    length: int,
) -> Iterator[Step[Kept]]:
    def fields(lumas: list[Luma]) -> list[Kept]:
        return [convert(estimator(lumas[k], lumas[k + 1])) for k in range(len(lumas) - 1)]

    waiting: deque[tuple[Future[list[Kept]], list[Image | None]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="flow")

    def first_in_line() -> Iterator[Step[Kept]]:
        computed, shown = waiting.popleft()
        for field, frame in zip(computed.result(), shown, strict=True):
            yield Step(field, frame)

    try:
        lumas: list[Luma] = []
        shown: list[Image | None] = []
        for luma, frame in pictures:
            lumas.append(luma)
            if len(lumas) == 1:
                yield Step(None, frame)
                continue
            shown.append(frame)
            if len(shown) == length:
                waiting.append((pool.submit(fields, lumas), shown))
                lumas, shown = [luma], []
            # One block for each thread, and one for each to take up at once.
            while len(waiting) > 2 * threads:
                yield from first_in_line()
        if shown:
            waiting.append((pool.submit(fields, lumas), shown))
        while waiting:
            yield from first_in_line()
    finally:
        pool.shutdown(cancel_futures=True)


__all__ = ["Step", "stream_flow"]
