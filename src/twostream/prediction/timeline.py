"""From the answers along a long video to what happens when: windows, smoothing, segments. Numbers only, no pixels.

The video is cut into cells of ``stride`` seconds. Each cell is judged by a window around its middle and speaks for its
own stretch of time; what neighbouring cells agree on becomes a segment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from twostream.clip import InputSpec
from twostream.data.sampling import ClipIndices, ShortClips, sample_views, shortest
from twostream.errors import UsageError

FloatArray = npt.NDArray[np.float64]

WINDOW = 2.0
"""Seconds that one answer looks at; about the length of one action."""
STRIDE = 0.5
"""Seconds between answers. At 25 frames/s it leaves a fifth of the flow uncomputed, at 60 frames/s two thirds."""
MIN_SCORE = 0.5
MIN_LENGTH = 1.0
UNKNOWN = "unknown"
"""The label of a video, or of a stretch of one, whose best class is not sure enough."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a video, in seconds, and what is seen in it.

    Attributes:
        start, end: in seconds.
        label: a class, or ``"unknown"``.
        score: the mean probability of the label; of the guess where it is unknown.
        guess: the best class of an unknown stretch; None where the label is a class.
    """

    start: float
    end: float
    label: str
    score: float
    guess: str | None = None

    @property
    def text(self) -> str:
        """The label for people: an unknown stretch tells its guess, with a question mark."""
        return self.label if self.guess is None else f"{self.label} ({self.guess}?)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, times to the millisecond; ``guess`` is there only where the label is unknown."""
        document = {"start": round(self.start, 3), "end": round(self.end, 3), "label": self.label, "score": self.score}
        return document if self.guess is None else {**document, "guess": self.guess}


@dataclass(frozen=True, kw_only=True)
class TimelineSettings:
    """How a timeline is made.

    Attributes:
        window: seconds that one answer looks at.
        stride: seconds between answers, and so the grain of all times.
        min_score: a stretch where no class reaches this probability is left out.
        min_length: seconds; a shorter segment is a flicker, as is a shorter gap within one.
    """

    window: float = WINDOW
    stride: float = STRIDE
    min_score: float = MIN_SCORE
    min_length: float = MIN_LENGTH

    def __post_init__(self) -> None:
        checks = (
            (self.window > 0, "window", "above 0 seconds"),
            (self.stride > 0, "stride", "above 0 seconds"),
            (0 <= self.min_score <= 1, "min_score", "a probability from 0 to 1"),
            (self.min_length >= 0, "min_length", "at least 0 seconds"),
        )
        for ok, name, wanted in checks:
            if not (ok and np.isfinite(getattr(self, name))):
                raise UsageError(f"timeline: {name} must be {wanted}, got {getattr(self, name)}")


def cell_edges(duration: float, stride: float) -> FloatArray:
    """The borders of the cells, (M + 1,): 0, stride, 2 stride ... duration; the last cell takes up the remainder."""
    cells = max(1, round(duration / stride))
    edges = np.arange(cells + 1, dtype=np.float64) * stride
    edges[-1] = duration
    return edges


def window_clips(
    spec: InputSpec, times: FloatArray, edges: FloatArray, *, window: float, short_clips: ShortClips = "refuse"
) -> list[ClipIndices]:
    """What the network is shown for each of the M cells.

    A network that judges steps alone sees one step as near to the middle of the cell as the video allows, and
    :func:`smooth` averages over the window; one that must see several steps or stacks together sees them spread over
    the window.

    Args:
        spec: of the network.
        times: (N,) the frames' times in seconds.
        edges: (M + 1,) the cells' borders.
        window: seconds around the middle of the cell; never fewer frames than one flow stack needs.
        short_clips: what is done with a video shorter than one flow stack.

    Raises:
        ShortClipError: the whole video is shorter than one flow stack and ``short_clips`` is ``"refuse"``.
    """
    clips = []
    for frames in window_frames(spec, times, edges, window=0.0 if judges_steps_alone(spec) else window):
        # One view: its step is the middle one, or it holds all steps of a network that must see several.
        (clip,) = sample_views(spec, len(frames), 1, short_clips=short_clips)
        clips.append(clip.shifted(frames.start))
    return clips


def window_frames(spec: InputSpec, times: FloatArray, edges: FloatArray, *, window: float) -> list[range]:
    """The frames of the window around each of the M cells; never fewer than one flow stack needs, if there are so many.

    Arguments as for :func:`window_clips`.
    """
    middles = (edges[:-1] + edges[1:]) / 2
    firsts = np.searchsorted(times, middles - window / 2)
    stops = np.searchsorted(times, middles + window / 2, side="right")
    return [
        _grown(first, stop, shortest(spec), len(times))
        for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True)
    ]


def judges_steps_alone(spec: InputSpec) -> bool:
    """Whether the network judges single steps, so that a window's answer is the mean over the steps within it."""
    return spec.sampling == "segments"


def _grown(first: int, stop: int, least: int, frame_count: int) -> range:
    """The frames ``first`` to ``stop`` with as many on both sides as make ``least``, moved into the video."""
    lack = max(0, least - (stop - first))
    first = max(0, min(first - lack // 2, frame_count - max(least, stop - first)))
    return range(first, min(frame_count, max(stop, first + least)))


def smooth(probabilities: FloatArray, width: float) -> FloatArray:
    """Moving averages over ``width`` cells (M, K) -> (M, K); at the ends over those that there are.

    A window that ends within a cell counts that cell by the share it covers.
    """
    M = len(probabilities)
    total = np.zeros_like(probabilities)
    weight = np.zeros((M, 1))
    reach = int(np.ceil(max(width, 1) / 2 - 0.5))
    for shift in range(-min(reach, M - 1), min(reach, M - 1) + 1):
        share = 1.0 if shift == 0 else float(np.clip(width / 2 - (abs(shift) - 0.5), 0, 1))
        into, out_of = slice(max(0, -shift), M - max(0, shift)), slice(max(0, shift), M - max(0, -shift))
        total[into] += share * probabilities[out_of]
        weight[into] += share
    smoothed: FloatArray = total / weight
    return smoothed


@dataclass(frozen=True)
class _Run:
    """The cells ``start`` to ``stop`` under one label, -1 for nothing."""

    start: int
    stop: int
    label: int


def segments(
    edges: FloatArray,
    probabilities: FloatArray,
    classes: Sequence[str],
    *,
    min_score: float = MIN_SCORE,
    min_length: float = MIN_LENGTH,
    unknown: float = 0.0,
) -> tuple[Segment, ...]:
    """What happens when, in order and without overlap.

    A cell bears the label of its most probable class, or none below ``min_score``. Neighbours of one label become a
    run. What lies between two runs of one label is filled with it if it is shorter than ``min_length``, other labels in
    it last less long than either run, and the mean probability over all still reaches ``min_score``. What is then still
    shorter than ``min_length`` is a flicker and left out, unless the whole video is no longer.

    With ``unknown`` the stricter of it and ``min_score`` decides, and what lies outside these segments becomes one
    labelled ``"unknown"`` where it lasts ``min_length``. Its guess may have a score above the bound where only flickers
    of that class had.

    Args:
        edges: (M + 1,) rising borders of the cells in seconds.
        probabilities: (M, K), one row a cell.
        classes: K names.
        min_score: lowest probability of a label in a cell, and lowest score of a segment.
        min_length: seconds.
        unknown: lowest probability that a class is named with; 0: nothing is called unknown.
    """
    min_score = max(min_score, unknown)
    lengths = np.diff(edges)
    best = probabilities.argmax(axis=1)
    labels = np.where(probabilities.max(axis=1) >= min_score, best, -1)
    borders = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]

    def seconds(run: _Run) -> float:
        return float(edges[run.stop] - edges[run.start])

    def score(run: _Run) -> float:
        values, weights = probabilities[run.start : run.stop, run.label], lengths[run.start : run.stop]
        # The mean above the lowest value, so that rounding never takes it below a bound that every cell has reached.
        lowest = float(values.min())
        return min(1.0, lowest + float(((values - lowest) * weights).sum() / weights.sum()))

    def filled(runs: list[_Run]) -> int | None:
        # Which earlier run the last one joins, over nothing but flickers and gaps that are short taken together.
        last = runs[-1]
        for place in range(len(runs) - 2, -1, -1):
            if edges[last.start] - edges[runs[place].stop] >= min_length:
                return None
            if runs[place].label != last.label or last.label < 0:
                continue
            between = slice(runs[place].stop, last.start)
            against = float(lengths[between][(labels[between] >= 0) & (labels[between] != last.label)].sum())
            outlasted = against < min(seconds(runs[place]), seconds(last))
            if outlasted and score(_Run(runs[place].start, last.stop, last.label)) >= min_score:
                return place
        return None

    runs: list[_Run] = []
    for start, stop in pairwise(borders):
        runs.append(_Run(start, stop, int(labels[start])))
        # A run that has grown may now reach a still earlier one of its label.
        while (place := filled(runs)) is not None:
            runs[place:] = [_Run(runs[place].start, runs[-1].stop, runs[-1].label)]
    least = min(min_length, float(edges[-1] - edges[0])) - 1e-9
    found = [run for run in runs if run.label >= 0 and seconds(run) >= least]
    told = [Segment(float(edges[r.start]), float(edges[r.stop]), classes[r.label], score(r)) for r in found]
    if unknown > 0:
        starts, stops = [0, *(run.stop for run in found)], [*(run.start for run in found), len(labels)]
        for start, stop in zip(starts, stops, strict=True):
            if start < stop and edges[stop] - edges[start] >= least:
                means = lengths[start:stop] @ probabilities[start:stop]
                guess = _Run(start, stop, int(means.argmax()))
                told.append(
                    Segment(float(edges[start]), float(edges[stop]), UNKNOWN, score(guess), classes[guess.label])
                )
    return tuple(sorted(told, key=lambda segment: segment.start))
