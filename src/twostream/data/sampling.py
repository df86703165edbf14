"""Frame-index arithmetic: which frames and which flow fields a clip is made of. No I/O, no pixels.

Indices are 0-based. Field k is the motion from frame k to frame k+1, so N frames have N-1 fields. A step at frame t
reads frame t and the stack of fields t+o ... t+o+L-1; it is valid when that stack lies within the video.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from twostream.clip import InputSpec
from twostream.errors import TwostreamError, UsageError

ShortClips = Literal["refuse", "repeat"]
Spacing = Literal["even", "released_code"]
IntArray = npt.NDArray[np.int64]

NO_MOTION = -1
"""Stands for a field of zero motion (128 everywhere): a video of one frame has no field that could be repeated."""


class ShortClipError(TwostreamError):
    """A clip with fewer frames than one flow stack needs."""


@dataclass(frozen=True, eq=False)
class ClipIndices:
    """What one clip is made of.

    Attributes:
        frames: (T,) frame of every step; rising, but for the sweeps of ``spacing="released_code"``.
        fields: (S, L) fields of every stack; (0, L) for a network that reads no flow; :data:`NO_MOTION` where the video
            has no field at all.
    """

    frames: IntArray
    fields: IntArray

    def shifted(self, first: int) -> "ClipIndices":
        """The same clip in a longer recording in which it begins at frame ``first``."""
        return ClipIndices(self.frames + first, np.where(self.fields == NO_MOTION, NO_MOTION, self.fields + first))


def shortest(spec: InputSpec) -> int:
    """Frames that a clip needs for one stack: 11 for ten fields around the frame, 1 where no flow is read."""
    if "motion" not in spec.streams:
        return 1
    return max(spec.flow_length + 1 + max(0, spec.flow_offset), 1 - spec.flow_offset)


def valid_steps(spec: InputSpec, frame_count: int, *, short_clips: ShortClips = "refuse") -> range:
    """The frames at which a step may stand; for L = 10 and o = -5 they are 5 ... N-6.

    With ``short_clips="repeat"`` a clip shorter than :func:`shortest` has steps too: those whose stack holds every
    field there is (or comes closest), the first and the last field standing in for what is missing.

    Raises:
        ShortClipError: the clip is too short and ``short_clips`` is ``"refuse"``, or it has no frame at all.
    """
    if frame_count < 1:
        raise ShortClipError("no frames")
    if "motion" not in spec.streams:
        return range(frame_count)
    first = max(0, -spec.flow_offset)
    last = min(frame_count - 1, frame_count - 1 - spec.flow_offset - spec.flow_length)
    if first > last:
        if short_clips == "refuse":
            raise ShortClipError(
                f"{frame_count} frames, but a stack of {spec.flow_length} flow fields needs {shortest(spec)}; "
                'leave the clip out, or allow short_clips="repeat" (its first and last field are repeated)'
            )
        first, last = min(last, frame_count - 1), min(first, frame_count - 1)
    return range(max(first, 0), last + 1)


def sample_training(
    spec: InputSpec,
    frame_count: int,
    rng: np.random.Generator,
    *,
    stride: int | None = None,
    short_clips: ShortClips = "refuse",
) -> ClipIndices:
    """Draw one training clip from a video of ``frame_count`` frames.

    ``segments``: the valid steps are cut into T equal parts and one step is drawn from each (Wang et al., Temporal
    Segment Networks, ECCV 2016, section 3.1). ``strided``: a stride is drawn from ``spec.stride``, and then one of the
    runs of T steps in the grid that starts at the first valid step; where the grid is shorter than T, the T steps are
    spread evenly over the valid ones. ``snippets``: one step is drawn, and the spacing of its stacks, in frames
    (``spec.stride``) or as a share of the clip (``spec.spread``).

    ``stride`` given (for ``strided`` only) draws as ST-ResNet's released code does: the stride is common to the clips
    of a micro-batch, so the caller draws it, and the run that starts at the first grid point is never taken where there
    is another, because an index there is off by one. A third accident of that code is not repeated: after a video too
    short for the drawn stride, the rest of its micro-batch is drawn with that video's.

    Raises:
        ShortClipError: see :func:`valid_steps`.
        UsageError: a common stride for a network that is not shown strided steps.

    Reference: Feichtenhofer et al., NIPS 2016, released code.
    """
    if stride is not None and spec.sampling != "strided":
        raise UsageError(
            f"one stride for a micro-batch is for networks that see strided steps (ST-ResNet); this one is shown "
            f"{spec.sampling}"
        )
    steps = valid_steps(spec, frame_count, short_clips=short_clips)
    if spec.sampling == "segments":
        # Real-valued borders, so that every step is drawn equally often even where there are fewer steps than parts.
        T = spec.steps
        places = ((np.arange(T) + rng.random(T)) * (len(steps) / T)).astype(np.int64)
        return _aligned(spec, steps.start + np.minimum(places, len(steps) - 1), frame_count)
    if spec.sampling == "snippets":
        if spec.spread is not None:
            width = _share(spec, rng.uniform(*spec.spread), frame_count)
        else:
            width = (spec.snippets - 1) * draw_stride(spec, rng)
        return _around(spec, int(rng.integers(steps.start, steps.stop)), width, frame_count)
    skipped = 0 if stride is None else 1
    stride = draw_stride(spec, rng) if stride is None else stride
    runs = _runs(steps, stride, spec.steps)
    runs = runs[skipped:] or runs
    return _aligned(spec, runs[int(rng.integers(len(runs)))], frame_count)


def draw_stride(spec: InputSpec, rng: np.random.Generator) -> int:
    """Frames between neighbouring steps, or between stacks, evenly from ``spec.stride``."""
    return int(rng.integers(spec.stride[0], spec.stride[1] + 1))


def sample_middle(spec: InputSpec, frame_count: int, *, short_clips: ShortClips = "refuse") -> ClipIndices:
    """The clip in the middle of all that :func:`sample_training` can draw; for losses on held-out videos.

    Raises:
        ShortClipError: see :func:`valid_steps`.
    """
    steps = valid_steps(spec, frame_count, short_clips=short_clips)
    if spec.sampling == "segments":
        T = spec.steps
        places = ((2 * np.arange(T, dtype=np.int64) + 1) * len(steps) - 1) // (2 * T)
        return _aligned(spec, steps.start + places, frame_count)
    if spec.sampling == "snippets":
        return _around(spec, int(_spread(steps, 1)[0]), _test_width(spec, frame_count), frame_count)
    runs = _runs(steps, sum(spec.stride) // 2, spec.steps)
    return _aligned(spec, runs[(len(runs) - 1) // 2], frame_count)


def sample_views(
    spec: InputSpec, frame_count: int, steps: int, *, spacing: Spacing = "even", short_clips: ShortClips = "refuse"
) -> list[ClipIndices]:
    """The clips that stand for a video at test time: ``steps`` positions spread evenly over the valid steps.

    The first and the last valid step are among them; a single one is the middle. ``segments`` gives ``steps`` views of
    one step each, ``snippets`` as many views of one frame with its stacks, spaced by ``spec.test_stride``, else the
    middle of ``spec.stride``, or of ``spec.spread``.
    ``strided`` gives one view of all steps together, and of no fewer than ``spec.steps``, because such a network cannot
    judge a step alone.

    ``spacing="released_code"`` takes the steps by the rule of ST-ResNet's released code instead: a sweep from the first
    valid step with the widest stride; where that has too many, a run of them drawn at random (here: always the same one
    for one length); where it has too few, a sweep that ends at the last valid step, one from the front with a stride
    smaller by one, one to the end with a stride smaller by two, and so on, strung together. Of the last of them as many
    as are missing: the first ones of a sweep from the front, the last ones of a sweep to the end.

    Raises:
        ShortClipError: see :func:`valid_steps`.
        UsageError: the released code's spacing for a network that is not shown strided steps.

    Reference: Feichtenhofer et al., NIPS 2016: 25 steps, evenly spaced in the text; the sweeps are the released code's.
    """
    valid = valid_steps(spec, frame_count, short_clips=short_clips)
    if spacing == "released_code":
        if spec.sampling != "strided":
            raise UsageError(
                f"the released code's spacing is for networks that see strided steps together (ST-ResNet); this one is "
                f"shown {spec.sampling}: take the protocol 25-step"
            )
        return [_aligned(spec, _sweeps(valid, spec.stride[1], max(steps, spec.steps)), frame_count)]
    if spec.sampling == "strided":
        return [_aligned(spec, _spread(valid, max(steps, spec.steps)), frame_count)]
    places = _spread(valid, steps)
    if spec.sampling == "snippets":
        width = _test_width(spec, frame_count)
        return [_around(spec, int(t), width, frame_count) for t in places]
    return [_aligned(spec, places[i : i + 1], frame_count) for i in range(steps)]


def count_views(spec: InputSpec, steps: int) -> int:
    """How many clips :func:`sample_views` gives, whatever the video's length."""
    return 1 if spec.sampling == "strided" else steps


def frame_range(start: float | None, end: float | None, fps: float, frame_count: int) -> range:
    """The frames of the stretch from ``start`` to ``end`` seconds (None: the video's own), cut to the video."""
    first = 0 if start is None else round(start * fps)
    last = frame_count if end is None else round(end * fps)
    return range(min(max(first, 0), frame_count), min(last, frame_count))


def _spread(steps: range, count: int) -> IntArray:
    # Whole numbers throughout: halves round up on every machine, as MATLAB's round does and NumPy's does not.
    if count == 1:
        return np.array([(steps.start + steps.stop - 1) // 2], np.int64)
    return steps.start + (2 * np.arange(count, dtype=np.int64) * (len(steps) - 1) + count - 1) // (2 * (count - 1))


def _runs(steps: range, stride: int, T: int) -> list[IntArray]:
    grid = np.arange(steps.start, steps.stop, stride, dtype=np.int64)
    if len(grid) < T:
        return [_spread(steps, T)]
    return [grid[i : i + T] for i in range(len(grid) - T + 1)]


def _sweeps(steps: range, stride: int, count: int) -> IntArray:
    sweep = np.arange(steps.start, steps.stop, stride, dtype=np.int64)
    if len(sweep) > count:
        first = int(np.random.default_rng(steps.stop).integers(1, len(sweep) - count + 1))
        return sweep[first : first + count]
    found = [sweep]
    from_front = False
    missing = count - len(sweep)
    while missing > 0:
        if from_front:
            sweep = np.arange(steps.start, steps.stop, stride, dtype=np.int64)
        else:
            sweep = np.arange(steps.stop - 1, steps.start - 1, -stride, dtype=np.int64)[::-1]
        # What is too many falls away at the far end: a sweep to the last step keeps its last ones.
        found.append(sweep[:missing] if from_front else sweep[-missing:])
        missing -= len(sweep)
        from_front, stride = not from_front, max(1, stride - 1)
    return np.concatenate(found)


def _aligned(spec: InputSpec, frames: IntArray, frame_count: int) -> ClipIndices:
    return ClipIndices(frames, _stacks(spec, frames + spec.flow_offset, frame_count))


def _test_width(spec: InputSpec, frame_count: int) -> int:
    if spec.spread is not None:
        return _share(spec, sum(spec.spread) / 2, frame_count)
    return (spec.snippets - 1) * (spec.test_stride or sum(spec.stride) // 2)


def _share(spec: InputSpec, share: float, frame_count: int) -> int:
    # Of the distance between the first and the last place where a stack may begin. Half a frame rounds up.
    return int(share * max(0, frame_count - 1 - spec.flow_length) + 0.5) if spec.snippets > 1 else 0


def _around(spec: InputSpec, t: int, width: int, frame_count: int) -> ClipIndices:
    # The window of stacks is narrowed to the clip, then moved into it as a whole: near an end its stacks stay apart
    # instead of falling on one another. Where even a spacing of 1 is too wide, the last ones coincide.
    S, room = spec.snippets, frame_count - 1 - spec.flow_length
    starts = np.full(S, t + spec.flow_offset, np.int64)
    if room >= 0:
        gaps = max(1, S - 1)
        # Strides stay equal when they are narrowed; a share of the clip need not be a multiple of the gaps.
        width = max(S - 1, min(width, room if spec.spread is not None else room // gaps * gaps))
        places = np.arange(S, dtype=np.int64) * width // gaps
        first = t + spec.flow_offset - int(places[S // 2])
        starts = np.minimum(min(max(first, 0), max(0, room - width)) + places, room)
    frames = np.array([min(t + spec.rgb_offset, frame_count - 1)], np.int64)
    return ClipIndices(frames, _stacks(spec, starts, frame_count))


def _stacks(spec: InputSpec, starts: IntArray, frame_count: int) -> IntArray:
    L = spec.flow_length
    if "motion" not in spec.streams:
        return np.empty((0, L), np.int64)
    if frame_count == 1:
        return np.full((len(starts), L), NO_MOTION, np.int64)
    fields: IntArray = np.clip(starts[:, None] + np.arange(L, dtype=np.int64), 0, frame_count - 2)
    return fields
