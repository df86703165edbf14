"""Clips of a video in one forward pass: only their frames are converted, flow is computed only for their fields."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from twostream.clip import InputSpec
from twostream.data.sampling import NO_MOTION, ClipIndices
from twostream.flow.contract import FlowError, FlowEstimator
from twostream.flow.estimators import create_estimator, flow_sequence, make_ready
from twostream.flow.quantize import quantize
from twostream.flow.store import FlowSettings
from twostream.video import Video, VideoError, grid_size

Uint8Array = npt.NDArray[np.uint8]

# What no flow field is kept as: see flow.quantize.
_ZERO_MOTION = 128

# Fields that a thread computes in a row: neighbours share what is known of the frame between them, while other threads
# wait for the last one of a clip.
_RUN = 4
# Clips that are handed on together. While a network takes up every core nothing is decoded for it, and before it begins
# the last of the threads must have come to its end; so it is called seldom.
_TOGETHER = 4


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

    Frames and fields are kept from when they are read until the last clip that holds them is yielded, and at most four
    clips wait for one another, so memory is bounded by the longest clips, not by the video. Flow is computed by threads
    while the next frames are decoded.

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
    estimator = create_estimator(settings.estimator, **settings.parameters)
    wanted = {f for clip in clips for f in _real(clip.fields).tolist()}
    runs = _runs(sorted(wanted), estimator)
    # Field f comes with the frame that ends its run.
    comes_with = {f: run.stop for run in runs for f in run}
    lasts = [
        max([0, *(clip.frames.tolist() if reads_frames else ()), *(comes_with[f] for f in _real(clip.fields).tolist())])
        for clip in clips
    ]
    order = sorted(range(len(clips)), key=lasts.__getitem__)
    count = max(lasts, default=-1) + 1
    # For each frame and field the last clip (by place in the order) that holds it; -1: none does.
    frame_use, field_use = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
    for place, n in enumerate(order):
        if reads_frames:
            frame_use[clips[n].frames] = place
        field_use[_real(clips[n].fields)] = place
    frames: dict[int, Uint8Array] = {}
    fields: dict[int, Future[dict[int, Uint8Array]]] = {}
    still = np.full((2, H, W), _ZERO_MOTION, np.uint8)
    place = complete = at = 0
    lumas: list[Uint8Array] = []

    if runs:
        make_ready(estimator)

    def computed(run: range, lumas: Sequence[Uint8Array]) -> dict[int, Uint8Array]:
        step = flow_sequence(estimator, first=run.start)
        step(lumas[0])
        flows = ((f, step(luma, wanted=f in wanted)) for f, luma in zip(run, lumas[1:], strict=True))
        return {f: quantize(flow, settings.bound) for f, flow in flows if flow is not None}

    with ThreadPoolExecutor(_threads(), thread_name_prefix="flow") as pool:
        for frame in video.stream(fps=settings.fps, stop=count):
            k = frame.index
            if seen:
                seen(k + 1)
            if frame_use[k] >= 0:
                frames[k] = frame.rgb(size)
            if at < len(runs) and k >= runs[at].start:
                lumas.append(frame.luma(size))
                if k == runs[at].stop:
                    computing = pool.submit(computed, runs[at], lumas)
                    fields |= {f: computing for f in runs[at] if f in wanted}
                    at += 1
                    # The frame where one run ends may be where the next one begins.
                    lumas = lumas[-1:] if at < len(runs) and runs[at].start == k else []
            while complete < len(order) and lasts[order[complete]] <= k:
                complete += 1
            if complete - place < _TOGETHER and k < count - 1:
                continue
            while place < complete:
                clip = clips[order[place]]
                shown = [frames[t] for t in clip.frames.tolist()] if reads_frames else []
                moved = [still if f == NO_MOTION else fields[f].result()[f] for f in clip.fields.ravel().tolist()]
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


def _runs(fields: Sequence[int], estimator: FlowEstimator) -> list[range]:
    """Stretches of fields, in order, that hold the given ones: each is computed by one thread, one after the other.

    A stretch begins where the estimator can, if need be before the first field that is wanted.
    """

    def can_begin(field: int) -> bool:
        with suppress(FlowError):
            flow_sequence(estimator, first=field)
            return True
        return False

    runs: list[range] = []
    for f in fields:
        start = next(k for k in range(f, -1, -1) if can_begin(k))
        if runs and (start < runs[-1].stop or (f == runs[-1].stop and len(runs[-1]) < _RUN)):
            runs[-1] = range(runs[-1].start, f + 1)
        else:
            runs.append(range(start, f + 1))
    return runs


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # One decoder does not feed more.
    return min(4, cores)


def _real(fields: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    real: npt.NDArray[np.int64] = fields[fields != NO_MOTION]
    return real
