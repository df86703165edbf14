import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twostream.clip import InputSpec
from twostream.data.sampling import ShortClipError, shortest
from twostream.errors import UsageError
from twostream.prediction.timeline import (
    UNKNOWN,
    Segment,
    TimelineSettings,
    cell_edges,
    judges_steps_alone,
    segments,
    smooth,
    window_clips,
)

CLASSES = ("run", "jump")
SEGMENTS = InputSpec(size=32, resize=32)
STRIDED = InputSpec(size=32, resize=32, steps=5, snippets=5, sampling="strided", stride=(5, 15))
SNIPPETS = InputSpec(size=32, resize=32, snippets=3, sampling="snippets", stride=(5, 10), flow_offset=0)
FloatArray = npt.NDArray[np.float64]


def cells(text: str, high: float = 0.9) -> tuple[FloatArray, FloatArray]:
    """One cell of a second per letter: r(un), j(ump), or - for neither."""
    rows = {"r": (high, 1 - high), "j": (1 - high, high), "-": (0.45, 0.44)}
    return np.arange(len(text) + 1, dtype=np.float64), np.array([rows[letter] for letter in text])


def said(text: str, *, min_length: float = 0.0, min_score: float = 0.5, high: float = 0.9) -> list[tuple[float, ...]]:
    edges, probabilities = cells(text, high)
    found = segments(edges, probabilities, CLASSES, min_score=min_score, min_length=min_length)
    return [(s.start, s.end, CLASSES.index(s.label)) for s in found]


def told(text: str, *, high: float = 0.9, **options: float) -> list[tuple[float, float, str]]:
    return [(s.start, s.end, s.text) for s in segments(*cells(text, high), CLASSES, **options)]


@pytest.mark.parametrize(
    ("text", "min_length", "expected"),
    [
        ("rrrr", 0, [(0, 4, 0)]),
        ("rrjj", 0, [(0, 2, 0), (2, 4, 1)]),
        ("-rr--j", 0, [(1, 3, 0), (5, 6, 1)]),
        ("----", 0, []),
        # A flicker and a gap between two runs of one label are filled, alone or together.
        ("rrrjrrr", 2, [(0, 7, 0)]),
        ("rrr-rrr", 2, [(0, 7, 0)]),
        ("rrrrj-rrrr", 3, [(0, 10, 0)]),
        # As long as min_length is no flicker.
        ("rrrjjrrr", 2, [(0, 3, 0), (3, 5, 1), (5, 8, 0)]),
        ("rrr--rrr", 2, [(0, 3, 0), (5, 8, 0)]),
        # A flicker between different labels, or alone, or at an end is left out.
        ("--r--", 2, []),
        ("rrr-j--rrr", 3, [(0, 3, 0), (7, 10, 0)]),
        ("rrrj", 2, [(0, 3, 0)]),
        ("jrrr", 2, [(1, 4, 0)]),
        # Nothing is said where nothing lasts.
        ("rjrjrj", 2, []),
        # The whole video is no flicker, however short.
        ("r", 5, [(0, 1, 0)]),
        ("rr", 5, [(0, 2, 0)]),
    ],
)
def test_what_happens_when(text: str, min_length: float, expected: list[tuple[float, ...]]) -> None:
    assert said(text, min_length=min_length) == expected


def test_a_fill_that_would_sink_the_score_is_not_made() -> None:
    assert said("rjr", min_length=2, high=0.6) == []
    # Filled one after the other: the first gap alone would sink the score, what has grown carries it.
    edges = np.arange(6.0)
    probabilities = np.array([[0.6, 0.1], [0.1, 0.2], [0.95, 0], [0.45, 0.1], [0.95, 0]])
    (segment,) = segments(edges, probabilities, CLASSES, min_score=0.6, min_length=2)
    assert segment == Segment(0, 5, "run", pytest.approx(3.05 / 5))


def test_a_score_is_the_mean_over_time() -> None:
    edges = np.array([0.0, 1.0, 1.5])
    (segment,) = segments(edges, np.array([[0.9, 0.1], [0.6, 0.4]]), CLASSES)
    assert segment.score == pytest.approx((0.9 + 0.5 * 0.6) / 1.5)
    assert segment.to_dict() == {"start": 0.0, "end": 1.5, "label": "run", "score": segment.score}


def test_what_is_not_sure_enough_is_unknown() -> None:
    named = [(1, 3, "run"), (5, 6, "jump")]
    assert told("-rr--j") == named
    assert told("-rr--j", unknown=0.6) == [(0, 1, "unknown (run?)"), named[0], (3, 5, "unknown (run?)"), named[1]]
    # The stricter bound decides, whichever it is.
    everything = [(0, 6, "unknown (run?)")]
    assert told("-rr--j", unknown=0.95) == told("-rr--j", unknown=0.1, min_score=0.95) == everything
    assert told("-rr--j", unknown=0.6, min_score=0.1) == told("-rr--j", unknown=0.1, min_score=0.6)
    # What does not last is a flicker, unknown or not; what lasts and holds flickers only is unknown.
    assert told("rrr-jjj", unknown=0.6, min_length=2) == [(0, 3, "run"), (4, 7, "jump")]
    assert told("rrr-rrr", unknown=0.6, min_length=2) == [(0, 7, "run")]
    assert told("rrrjrj", unknown=0.6, min_length=2) == [(0, 3, "run"), (3, 6, "unknown (jump?)")]
    assert told("-", unknown=0.6, min_length=5) == [(0, 1, "unknown (run?)")]


def test_an_unknown_stretch_has_the_score_of_its_guess() -> None:
    edges = np.array([0.0, 1.0, 1.5])
    (segment,) = segments(edges, np.array([[0.3, 0.7], [0.6, 0.4]]), CLASSES, unknown=0.8)
    assert segment == Segment(0, 1.5, UNKNOWN, pytest.approx((0.7 + 0.5 * 0.4) / 1.5), "jump")
    assert segment.to_dict() == {
        "start": 0.0,
        "end": 1.5,
        "label": "unknown",
        "score": segment.score,
        "guess": "jump",
    }


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=1, max_size=30),
    st.floats(0, 1),
    st.floats(0, 6),
    st.floats(0.05, 3),
)
def test_segments_hold_their_promises(
    counts: list[list[int]], min_score: float, min_length: float, stride: float
) -> None:
    probabilities = np.array(counts, np.float64) + 1e-3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    edges = np.arange(len(counts) + 1) * stride
    found = segments(edges, probabilities, ("a", "b", "c"), min_score=min_score, min_length=min_length)
    assert all(min_score <= s.score <= 1 for s in found)
    assert all(s.end - s.start >= min(min_length, edges[-1]) - 1e-6 for s in found)
    borders = [border for s in found for border in (s.start, s.end)]
    assert borders == sorted(borders)
    assert all(0 <= border <= edges[-1] for border in borders)
    assert all(s.start < s.end for s in found)
    assert all(a.label != b.label or b.start > a.end for a, b in pairwise(found))
    # Asked for what is unknown, the named segments stay, and no hole is left that lasts.
    if min_score > 0:
        whole = segments(edges, probabilities, ("a", "b", "c"), min_length=min_length, min_score=0, unknown=min_score)
        assert tuple(s for s in whole if s.guess is None) == found
        ends = [0.0, *(s.end for s in whole)]
        starts = [*(s.start for s in whole), float(edges[-1])]
        assert all(0 <= start - end < max(min_length, 1e-6) for end, start in zip(ends, starts, strict=True))


@pytest.mark.parametrize(
    ("duration", "stride", "expected"),
    [(2.0, 0.5, [0, 0.5, 1, 1.5, 2]), (2.2, 1.0, [0, 1, 2.2]), (0.1, 0.5, [0, 0.1]), (1.8, 1.0, [0, 1, 1.8])],
)
def test_cells_cover_the_video(duration: float, stride: float, expected: list[float]) -> None:
    assert cell_edges(duration, stride).tolist() == pytest.approx(expected)


def test_smoothing_averages_over_the_window() -> None:
    one = np.zeros((7, 1))
    one[3] = 1
    assert smooth(one, 1)[:, 0].tolist() == one[:, 0].tolist()
    assert smooth(one, 0.1)[:, 0].tolist() == one[:, 0].tolist()
    assert smooth(one, 3)[:, 0] == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0])
    # Four cells around the middle of one: three whole and two halves.
    assert smooth(one, 4)[:, 0] == pytest.approx([0, 1 / 7, 1 / 4, 1 / 4, 1 / 4, 1 / 7, 0])
    assert smooth(np.ones((5, 2)), 100) == pytest.approx(np.ones((5, 2)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.floats(0.1, 30))
def test_smoothed_rows_stay_probabilities(cells: int, width: float) -> None:
    rows = np.random.default_rng(cells).dirichlet([1, 1, 1], cells)
    smoothed = smooth(rows, width)
    assert smoothed.sum(axis=1) == pytest.approx(np.ones(cells))
    assert smoothed.mean() == pytest.approx(1 / 3)


@pytest.mark.parametrize("spec", [SEGMENTS, STRIDED, SNIPPETS, SEGMENTS.with_(streams=("appearance",))])
@pytest.mark.parametrize("frame_count", [11, 30, 100])
@pytest.mark.parametrize("fps", [4.0, 25.0])
def test_windows_stay_in_the_video_and_near_their_cell(spec: InputSpec, frame_count: int, fps: float) -> None:
    times = np.arange(frame_count) / fps
    edges = cell_edges(frame_count / fps, 0.5)
    clips = window_clips(spec, times, edges, window=2.0)
    assert len(clips) == len(edges) - 1
    room = max(1.0, shortest(spec) / fps)
    for clip, start, end in zip(clips, edges[:-1], edges[1:], strict=True):
        assert len(clip.frames) == spec.steps
        assert 0 <= clip.frames.min() <= clip.frames.max() < frame_count
        if clip.fields.size:
            assert 0 <= clip.fields.min() <= clip.fields.max() < frame_count - 1
        held = np.concatenate([times[clip.frames], times[np.unique(clip.fields)]])
        middle = np.clip((start + end) / 2, room / 2, max(room / 2, times[-1] - room / 2))
        assert np.abs(held - middle).max() <= room + 1.5 / fps


def test_a_step_stands_in_the_middle_of_its_cell_where_the_video_allows() -> None:
    times = np.arange(100) / 25
    steps = [int(clip.frames[0]) for clip in window_clips(SEGMENTS, times, cell_edges(4, 0.5), window=2)]
    assert steps == [7, 19, 32, 44, 57, 69, 82, 94]
    # In a video of variable rate the times decide, not the indices.
    times = np.concatenate([np.arange(50) / 50, 1 + np.arange(30) / 10])
    steps = [int(clip.frames[0]) for clip in window_clips(SEGMENTS, times, cell_edges(4, 1.0), window=2)]
    assert steps == [25, 55, 65, 74]


def test_a_video_shorter_than_a_stack_is_refused_or_repeated() -> None:
    times = np.arange(7) / 25
    with pytest.raises(ShortClipError, match="7 frames"):
        window_clips(SEGMENTS, times, cell_edges(7 / 25, 0.5), window=2)
    (clip,) = window_clips(SEGMENTS, times, cell_edges(7 / 25, 0.5), window=2, short_clips="repeat")
    assert set(clip.fields.ravel()) == set(range(6))


def test_only_networks_of_single_steps_are_averaged_over_the_window() -> None:
    assert judges_steps_alone(SEGMENTS)
    assert not judges_steps_alone(STRIDED)
    assert not judges_steps_alone(SNIPPETS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "window must be above 0 seconds, got 0"),
        ({"stride": -1}, "stride must be above 0 seconds"),
        ({"stride": math.inf}, "stride must be above 0 seconds, got inf"),
        ({"min_score": 1.5}, "min_score must be a probability"),
        ({"min_score": math.nan}, "min_score must be a probability"),
        ({"min_length": -1}, "min_length must be at least 0 seconds"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TimelineSettings(**change)
