"""Clips of a video in one forward pass: only their frames are converted, flow is computed only for their fields."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from twostream.clip import InputSpec
from twostream.data.sampling import NO_MOTION, ClipIndices
from twostream.flow.estimators import create_estimator
from twostream.flow.quantize import quantize
from twostream.flow.store import FlowSettings
from twostream.video import Video, VideoError, grid_size

Uint8Array = npt.NDArray[np.uint8]

# What no flow field is kept as: see flow.quantize.
_ZERO_MOTION = 128


def read_clips(
    video: Video,
    clips: Sequence[ClipIndices],
    spec: InputSpec,
    settings: FlowSettings,
    *,
    seen: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Uint8Array, Uint8Array]]:
    """Yield ``(n, frames, fields)`` of every ``clips[n]``, in the order in which their last frames come.

    Shapes: frames (T, H, W, 3) and fields (S * L, 2, H, W), uint8, on the grid of ``settings`` and with the very values
    that a flow store of these settings holds; a stream that ``spec`` does not read is empty.

    Frames and fields are kept from when they are read until the last clip that holds them is yielded, so memory is
    bounded by the longest clip, not by the video. Flow is computed by threads while the next frames are decoded.

    Args:
        video: read from its beginning to the last frame needed.
        clips: indices count the frames of ``video.stream(fps=settings.fps)``.
        spec: which streams are read.
        settings: grid, frame rate, estimator and bound.
        seen: called with the number of frames passed, every frame.

    Raises:
        VideoError: the video is damaged, or ends before the last frame needed.
        FlowError: its frames are too small for the estimator.
    """
    W, H = size = grid_size(video.width, video.height, settings.short_side)
    reads_frames = "appearance" in spec.streams
    lasts = [_last_frame(clip, reads_frames) for clip in clips]
    order = sorted(range(len(clips)), key=lasts.__getitem__)
    count = max(lasts, default=-1) + 1
    # For each frame and field the last clip (by place in the order) that holds it; -1: none does.
    frame_use, field_use = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
    for place, n in enumerate(order):
        if reads_frames:
            frame_use[clips[n].frames] = place
        field_use[_real(clips[n].fields)] = place
    frames: dict[int, Uint8Array] = {}
    fields: dict[int, Future[Uint8Array]] = {}
    still = np.full((2, H, W), _ZERO_MOTION, np.uint8)
    place, luma = 0, still[0]
    estimate = create_estimator(settings.estimator, **settings.parameters)

    def field(previous: Uint8Array, following: Uint8Array) -> Uint8Array:
        return quantize(estimate(previous, following), settings.bound)

    with ThreadPoolExecutor(_threads(), thread_name_prefix="flow") as pool:
        for frame in video.stream(fps=settings.fps, stop=count):
            k = frame.index
            if seen:
                seen(k + 1)
            if frame_use[k] >= 0:
                frames[k] = frame.rgb(size)
            ends_field = k > 0 and field_use[k - 1] >= 0
            if ends_field or field_use[k] >= 0:
                before, luma = luma, frame.luma(size)
            if ends_field:
                fields[k - 1] = pool.submit(field, before, luma)
            while place < len(order) and lasts[order[place]] <= k:
                clip = clips[order[place]]
                shown = [frames[t] for t in clip.frames.tolist()] if reads_frames else []
                moved = [still if f == NO_MOTION else fields[f].result() for f in clip.fields.ravel().tolist()]
                yield (
                    order[place],
                    np.stack(shown) if shown else np.empty((0, H, W, 3), np.uint8),
                    np.stack(moved) if moved else np.empty((0, 2, H, W), np.uint8),
                )
                for t in clip.frames.tolist():
                    if frame_use[t] == place:
                        frames.pop(t, None)
                for f in _real(clip.fields).tolist():
                    if field_use[f] == place:
                        fields.pop(f, None)
                place += 1
    if place < len(order):
        raise VideoError(video.path, f"frame {count - 1} is needed, but reading it again ended before")


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # One decoder does not feed more.
    return min(4, cores)


def _last_frame(clip: ClipIndices, reads_frames: bool) -> int:
    """The frame with which a clip is complete; field f is when frame f + 1 is there."""
    last_frame = int(clip.frames.max()) if reads_frames else 0
    return max(last_frame, int(clip.fields.max()) + 1) if clip.fields.size else last_frame


def _real(fields: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    real: npt.NDArray[np.int64] = fields[fields != NO_MOTION]
    return real
