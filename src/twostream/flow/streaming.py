"""The flow of a video frame by frame, with bounded memory; where threads are given, decoded ahead of the flow."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from twostream.flow.contract import BatchEstimator, Flow, FlowError, FlowEstimator, Luma
from twostream.flow.estimators import create_estimator, flow_sequence
from twostream.flow.store import FlowSettings
from twostream.video import Video, grid_size

Image = npt.NDArray[np.uint8]
Kept = TypeVar("Kept")

# Pairs that a thread computes in a row, so that neighbours share what is known of the frame between them: as a rule; at
# most, where the estimator begins anew only now and then; and px of them, so that large frames do not pile up.
_BLOCK = 8
_LONGEST_BLOCK = 64
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
    device: str = "cpu",
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
        device: where flow is computed, see :func:`~twostream.flow.estimators.create_estimator`; on another one than
            the CPU by one thread in batches, while the caller's decodes the next.

    Raises:
        VideoError: the video is damaged.
        FlowError: its frames are too small for the estimator, or the estimator cannot use the device.
    """
    size = grid_size(video.width, video.height, settings.short_side)
    estimator = create_estimator(settings.estimator, device=device, **settings.parameters)
    pictures = ((frame.luma(size), frame.rgb(size) if frames else None) for frame in video.stream(fps=settings.fps))
    if isinstance(estimator, BatchEstimator):
        yield from _in_threads(pictures, estimator, convert, 1, estimator.pairs(size[1], size[0]))
        return
    length = _block_length(estimator, size[0] * size[1]) if threads > 1 else None
    if length is not None:
        yield from _in_threads(pictures, estimator, convert, threads, length)
        return
    step = flow_sequence(estimator)
    for luma, frame in pictures:
        flow = step(luma)
        yield Step(None if flow is None else convert(flow), frame)


def _block_length(estimator: FlowEstimator, pixels: int) -> int | None:
    """The fewest pairs, from a usual number on, after which the estimator can begin anew; None if they are too many."""
    usual = max(1, min(_BLOCK, _BLOCK_PIXELS // pixels))
    for length in range(usual, _LONGEST_BLOCK + 1):
        with suppress(FlowError):
            flow_sequence(estimator, first=length)
            return length
    return None


def _in_threads(
    pictures: Iterator[tuple[Luma, Image | None]],
    estimator: FlowEstimator,
    convert: Callable[[Flow], Kept],
    threads: int,
    length: int,
) -> Iterator[Step[Kept]]:
    def fields(lumas: list[Luma], first: int) -> list[Kept]:
        if isinstance(estimator, BatchEstimator):
            return [convert(flow) for flow in estimator.fields(lumas)]
        step = flow_sequence(estimator, first=first)
        return [convert(flow) for flow in map(step, lumas) if flow is not None]

    waiting: deque[tuple[Future[list[Kept]], list[Image | None]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="flow")

    def first_in_line() -> Iterator[Step[Kept]]:
        computed, shown = waiting.popleft()
        for field, frame in zip(computed.result(), shown, strict=True):
            yield Step(field, frame)

    try:
        first = 0
        lumas: list[Luma] = []
        shown: list[Image | None] = []
        for luma, frame in pictures:
            lumas.append(luma)
            if len(lumas) == 1:
                yield Step(None, frame)
                continue
            shown.append(frame)
            if len(shown) == length:
                waiting.append((pool.submit(fields, lumas, first), shown))
                first += length
                lumas, shown = [luma], []
            # One block for each thread, and one for each to take up at once.
            while len(waiting) > 2 * threads:
                yield from first_in_line()
        if shown:
            waiting.append((pool.submit(fields, lumas, first), shown))
        while waiting:
            yield from first_in_line()
    finally:
        pool.shutdown(cancel_futures=True)


__all__ = ["Step", "stream_flow"]
