"""Index arithmetic: every index within the video, the papers' examples exactly, even coverage."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twostream.clip import InputSpec, ShapeError
from twostream.data.sampling import (
    NO_MOTION,
    ClipIndices,
    ShortClipError,
    count_views,
    frame_range,
    sample_middle,
    sample_training,
    sample_views,
    shortest,
    valid_steps,
)
from twostream.errors import UsageError

ST_RESNET = InputSpec(sampling="strided", steps=5, snippets=5, stride=(5, 15))
STPN = InputSpec(sampling="snippets", steps=1, snippets=3, stride=(1, 10), flow_offset=0)
TSN = InputSpec(sampling="segments", steps=3, snippets=3)


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    sampling = draw(st.sampled_from(["segments", "strided", "snippets"]))
    steps = 1 if sampling == "snippets" else draw(st.integers(1, 12))
    low = draw(st.integers(1, 20))
    return InputSpec(
        streams=draw(st.sampled_from([("appearance", "motion"), ("appearance",), ("motion",)])),
        sampling=sampling,
        steps=steps,
        snippets=draw(st.integers(1, 9)) if sampling == "snippets" else steps,
        flow_length=draw(st.integers(1, 12)),
        flow_offset=draw(st.integers(-15, 15)),
        stride=(low, low + draw(st.integers(0, 15))),
    )


def assert_inside(clip: ClipIndices, spec: InputSpec, frame_count: int) -> None:
    assert clip.frames.dtype == clip.fields.dtype == np.int64
    assert clip.frames.min() >= 0
    assert clip.frames.max() < frame_count
    assert (np.diff(clip.frames) >= 0).all()
    if "motion" not in spec.streams:
        assert clip.fields.shape == (0, spec.flow_length)
    elif frame_count == 1:
        assert (clip.fields == NO_MOTION).all()
    else:
        assert clip.fields.min() >= 0
        assert clip.fields.max() <= frame_count - 2
        assert (np.diff(clip.fields, axis=1) >= 0).all()
        assert (np.diff(clip.fields[:, 0]) >= 0).all()
    if "motion" in spec.streams and frame_count >= shortest(spec):
        assert (np.diff(clip.fields, axis=1) == 1).all()


@given(spec=specs(), frame_count=st.integers(1, 400), views=st.integers(1, 30), seed=st.integers(0, 9))
@settings(max_examples=400, deadline=None)
def test_every_index_lies_within_the_video(spec: InputSpec, frame_count: int, views: int, seed: int) -> None:
    drawn = sample_training(spec, frame_count, np.random.default_rng(seed), short_clips="repeat")
    middle = sample_middle(spec, frame_count, short_clips="repeat")
    shown = sample_views(spec, frame_count, views, short_clips="repeat")
    assert len(shown) == count_views(spec, views)
    for clip in (drawn, middle, *shown):
        assert_inside(clip, spec, frame_count)
    for clip in (drawn, middle):
        assert len(clip.frames) == spec.steps
        assert clip.fields.shape == (spec.snippets if "motion" in spec.streams else 0, spec.flow_length)
    steps = [t for clip in shown for t in clip.frames]
    assert steps == sorted(steps)
    for clip in shown:
        if spec.sampling == "strided":
            assert len(clip.frames) == max(views, spec.steps)
        else:
            assert len(clip.frames) == 1
        if "motion" in spec.streams:
            assert len(clip.fields) == (spec.snippets if spec.sampling == "snippets" else len(clip.frames))


@given(spec=specs(), frame_count=st.integers(1, 200))
@settings(max_examples=200, deadline=None)
def test_steps_are_valid_exactly_where_their_stack_is_inside(spec: InputSpec, frame_count: int) -> None:
    def whole(t: int) -> bool:
        start = t + spec.flow_offset
        return "motion" not in spec.streams or (start >= 0 and start + spec.flow_length - 1 <= frame_count - 2)

    expected = [t for t in range(frame_count) if whole(t)]
    assert bool(expected) == (frame_count >= shortest(spec))
    if expected:
        assert list(valid_steps(spec, frame_count)) == expected
    else:
        with pytest.raises(ShortClipError, match=rf"{frame_count} frames.*needs {shortest(spec)};"):
            valid_steps(spec, frame_count)


@given(spec=specs(), frame_count=st.integers(1, 200), seed=st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_stacks_stand_where_the_contract_says(spec: InputSpec, frame_count: int, seed: int) -> None:
    assume("motion" in spec.streams and frame_count >= shortest(spec))
    clip = sample_training(spec, frame_count, np.random.default_rng(seed))
    starts, S = clip.fields[:, 0], spec.snippets
    if spec.sampling != "snippets":
        assert (starts == clip.frames + spec.flow_offset).all()
        return
    gaps, room = np.diff(starts), frame_count - 1 - spec.flow_length
    if room >= S - 1:
        assert (gaps == gaps[:1]).all()
        assert all(1 <= gap <= spec.stride[1] for gap in gaps)
        assert all(gap >= min(spec.stride[0], room // (S - 1)) for gap in gaps)
    if starts[0] > 0 and starts[-1] < room:
        assert starts[S // 2] == clip.frames[0] + spec.flow_offset


def test_shortest_and_valid_steps_of_the_papers() -> None:
    assert shortest(ST_RESNET) == 11
    assert shortest(STPN) == 11
    assert shortest(InputSpec(streams=("appearance",))) == 1
    # The sheet's 6 ... N-5, counted from 1.
    assert list(valid_steps(ST_RESNET, 187))[:: 187 - 11] == [5, 181]
    assert valid_steps(ST_RESNET, 11) == range(5, 6)
    assert valid_steps(STPN, 11) == range(1)
    assert valid_steps(InputSpec(streams=("appearance",)), 3) == range(3)


def test_a_centred_stack_spans_five_frames_on_either_side() -> None:
    (clip,) = sample_views(InputSpec(), 187, 1)
    assert clip.frames.tolist() == [93]
    assert clip.fields.tolist() == [list(range(88, 98))]


def test_strided_training_draws_every_run_of_the_grid_and_no_other() -> None:
    spec = ST_RESNET.with_(stride=(15, 15))
    rng = np.random.default_rng(0)
    seen = {tuple(sample_training(spec, 187, rng).frames.tolist()) for _ in range(300)}
    grid = [5 + 15 * i for i in range(12)]  # the sheet's 6, 21, ..., 171, counted from 0
    assert seen == {tuple(grid[i : i + 5]) for i in range(8)}


def test_strided_training_draws_the_stride_per_clip() -> None:
    rng = np.random.default_rng(0)
    strides = {int(np.diff(sample_training(ST_RESNET, 400, rng).frames)[0]) for _ in range(300)}
    assert strides == set(range(5, 16))


def test_strided_training_spreads_over_clips_shorter_than_the_grid() -> None:
    spec = ST_RESNET.with_(steps=11, snippets=11)
    clip = sample_training(spec, 52, np.random.default_rng(0))
    # round(linspace(6, 47, 11)) with halves away from zero, counted from 0
    assert clip.frames.tolist() == [5, 9, 13, 17, 21, 26, 30, 34, 38, 42, 46]


def test_segments_cover_every_valid_step_evenly() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([sample_training(TSN, 40, rng).frames for _ in range(6000)])
    assert (np.diff(draws, axis=1) >= 0).all()
    assert [int(column.min()) for column in draws.T] == [5, 15, 25]
    assert [int(column.max()) for column in draws.T] == [14, 24, 34]
    counts = np.bincount(draws.ravel(), minlength=40)[5:35]
    assert counts.min() > 500
    assert counts.max() < 700


def test_segments_of_a_clip_with_fewer_steps_than_parts() -> None:
    spec = TSN.with_(steps=7, snippets=7)
    rng = np.random.default_rng(0)
    draws = np.stack([sample_training(spec, 14, rng).frames for _ in range(2000)])
    counts = np.bincount(draws.ravel(), minlength=14)[5:9]
    assert counts.min() > 0.9 * counts.max()


def test_snippets_are_spaced_around_the_frame_and_kept_apart_near_the_ends() -> None:
    spec = STPN.with_(stride=(10, 10))
    clips = [sample_training(spec, 101, np.random.default_rng(i)) for i in range(200)]
    by_frame = {int(clip.frames[0]): clip.fields[:, 0].tolist() for clip in clips}
    assert by_frame[40] == [30, 40, 50]
    assert all(starts == [t - 10, t, t + 10] for t, starts in by_frame.items() if 10 <= t <= 80)
    assert all(starts == [0, 10, 20] for t, starts in by_frame.items() if t < 10)
    assert all(starts == [70, 80, 90] for t, starts in by_frame.items() if t > 80)


@pytest.mark.parametrize(
    ("frame_count", "starts"),
    [(31, [0, 10, 20]), (27, [0, 8, 16]), (15, [0, 2, 4]), (13, [0, 1, 2]), (12, [0, 1, 1]), (11, [0, 0, 0])],
)
def test_snippets_narrow_to_short_clips(frame_count: int, starts: list[int]) -> None:
    clip = sample_training(STPN.with_(stride=(10, 10)), frame_count, np.random.default_rng(0))
    assert clip.fields[:, 0].tolist() == starts


def test_snippets_at_test_time_are_spaced_by_the_middle_stride() -> None:
    clips = sample_views(STPN, 101, 5)
    assert [int(clip.frames[0]) for clip in clips] == [0, 23, 45, 68, 90]
    assert [clip.fields[:, 0].tolist() for clip in clips] == [
        [0, 5, 10],
        [18, 23, 28],
        [40, 45, 50],
        [63, 68, 73],
        [80, 85, 90],
    ]


def test_views_of_segments_and_strided_networks() -> None:
    segments = sample_views(TSN, 187, 25)
    (strided,) = sample_views(ST_RESNET, 187, 25)
    assert [int(clip.frames[0]) for clip in segments] == strided.frames.tolist()
    assert strided.frames[[0, 12, 24]].tolist() == [5, 93, 181]
    assert strided.fields.shape == (25, 10)
    assert all(clip.fields.shape == (1, 10) for clip in segments)
    # A strided network cannot judge one step alone.
    assert [clip.frames.tolist() for clip in sample_views(ST_RESNET, 31, 1)] == [[5, 10, 15, 20, 25]]


def test_the_middle_clip_is_the_middle_of_what_training_draws() -> None:
    assert sample_middle(TSN, 40).frames.tolist() == [9, 19, 29]
    assert sample_middle(InputSpec(), 187).frames.tolist() == [93]
    assert sample_middle(ST_RESNET, 187).frames.tolist() == [65, 75, 85, 95, 105]
    assert sample_middle(ST_RESNET, 31).frames.tolist() == [5, 10, 15, 20, 25]
    middle = sample_middle(STPN, 101)
    assert (middle.frames.tolist(), middle.fields[:, 0].tolist()) == ([45], [40, 45, 50])


@pytest.mark.parametrize("spec", [TSN, ST_RESNET, STPN])
def test_short_clips_are_refused_with_the_numbers_or_repeated(spec: InputSpec) -> None:
    rng = np.random.default_rng(0)
    message = r"8 frames, but a stack of 10 flow fields needs 11; leave the clip out, or allow short_clips=\"repeat\""
    for refused in (
        lambda: sample_training(spec, 8, rng),
        lambda: sample_views(spec, 8, 2),
        lambda: sample_middle(spec, 8),
    ):
        with pytest.raises(ShortClipError, match=message):
            refused()
    for clip in [sample_training(spec, 8, rng, short_clips="repeat"), *sample_views(spec, 8, 2, short_clips="repeat")]:
        # Nothing that there is gets lost, and only the ends are repeated.
        for stack in clip.fields:
            assert set(stack.tolist()) == set(range(7))


def test_a_single_frame_has_no_motion() -> None:
    clip = sample_training(TSN, 1, np.random.default_rng(0), short_clips="repeat")
    assert clip.frames.tolist() == [0, 0, 0]
    assert (clip.fields == NO_MOTION).all()
    assert (clip.shifted(7).fields == NO_MOTION).all()
    assert clip.shifted(7).frames.tolist() == [7, 7, 7]


def test_no_frames_is_an_error_even_where_short_clips_are_repeated() -> None:
    with pytest.raises(ShortClipError, match="no frames"):
        valid_steps(TSN, 0, short_clips="repeat")


def test_a_stretch_of_a_recording_is_the_same_clip_further_on() -> None:
    clip = sample_middle(TSN, 40)
    moved = clip.shifted(100)
    assert (moved.frames == clip.frames + 100).all()
    assert (moved.fields == clip.fields + 100).all()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, range(100)),
        (1.0, 2.0, range(25, 50)),
        (0.03, None, range(1, 100)),
        (3.0, 99.0, range(75, 100)),
        (50.0, 60.0, range(100, 100)),
        (-1.0, 1.0, range(25)),
    ],
)
def test_seconds_become_frames_of_the_video(start: float | None, end: float | None, expected: range) -> None:
    assert frame_range(start, end, 25.0, 100) == expected


def test_the_same_generator_draws_the_same_clip() -> None:
    one, same, other = (sample_training(ST_RESNET, 300, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (one.frames == same.frames).all()
    assert (one.frames != other.frames).any()


def test_snippets_take_one_frame() -> None:
    with pytest.raises(ShapeError, match="one frame"):
        InputSpec(sampling="snippets", steps=2, snippets=2)


def test_snippets_at_test_time_may_have_a_stride_of_their_own() -> None:
    spec = STPN.with_(test_stride=10)
    assert [clip.fields[:, 0].tolist() for clip in sample_views(spec, 101, 3)] == [
        [0, 10, 20],
        [35, 45, 55],
        [70, 80, 90],
    ]
    assert sample_middle(spec, 101).fields[:, 0].tolist() == [35, 45, 55]
    assert sample_views(spec, 21, 1)[0].fields[:, 0].tolist() == [0, 5, 10]


@pytest.mark.parametrize(("frame_count", "starts"), [(101, [23, 45, 68]), (1001, [248, 495, 743]), (31, [5, 10, 15])])
def test_snippets_spread_over_a_share_of_the_clip(frame_count: int, starts: list[int]) -> None:
    spec = STPN.with_(spread=(0.25, 0.75))
    assert sample_middle(spec, frame_count).fields[:, 0].tolist() == starts
    widths = []
    for seed in range(300):
        clip = sample_training(spec, frame_count, np.random.default_rng(seed))
        assert (clip.fields >= 0).all()
        assert (clip.fields < frame_count - 1).all()
        widths.append(int(clip.fields[2, 0] - clip.fields[0, 0]) / (frame_count - 11))
    assert 0.2 <= min(widths) < 0.3
    assert 0.7 < max(widths) <= 0.8
    whole = STPN.with_(spread=(1.0, 1.0), snippets=5)
    assert sample_middle(whole, 101).fields[:, 0].tolist() == [0, 22, 45, 67, 90]
    assert len(sample_middle(STPN.with_(spread=(1.0, 1.0), snippets=1), 101).fields) == 1


def test_the_frame_may_stand_within_the_middle_snippet() -> None:
    plain, inside = (sample_views(STPN.with_(rgb_offset=offset), 101, 5) for offset in (0, 5))
    assert [int(clip.frames[0]) for clip in inside] == [int(clip.frames[0]) + 5 for clip in plain]
    assert all((a.fields == b.fields).all() for a, b in zip(plain, inside, strict=True))
    assert sample_middle(STPN.with_(rgb_offset=10), 4, short_clips="repeat").frames.tolist() == [3]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"test_stride": 0}, "test_stride is a number of frames, at least 1, got 0"),
        ({"spread": (0.0, 1.0)}, r"spread is \(lowest, highest\) with 0 < lowest <= highest <= 1, got \(0.0, 1.0\)"),
        ({"spread": (0.6, 0.5)}, "got \\(0.6, 0.5\\)"),
        ({"rgb_offset": 11}, "a frame of the middle snippet, 0 to 10, got 11"),
        ({"rgb_offset": 1, "sampling": "segments", "snippets": 1}, "are for snippets sampling, not for segments"),
    ],
)
def test_snippets_that_cannot_be(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        STPN.with_(**wrong)


def test_the_released_codes_sweeps() -> None:
    # The facts sheet's example, 1-based there: 6, 21 ... 171 | 17, 32 ... 182 | 6.
    (view,) = sample_views(ST_RESNET, 187, 25, spacing="released_code")
    sweeps = [*range(6, 172, 15), *range(17, 183, 15), 6]
    assert view.frames.tolist() == [t - 1 for t in sweeps]
    assert view.fields[:, 0].tolist() == [t - 6 for t in sweeps]


def test_a_sweep_to_the_end_keeps_its_last_steps() -> None:
    (view,) = sample_views(ST_RESNET, 260, 25, spacing="released_code")
    assert view.frames.tolist() == [t - 1 for t in [*range(6, 247, 15), *range(150, 256, 15)]]


def test_the_released_codes_sweeps_of_long_and_of_short_videos() -> None:
    (view,) = sample_views(ST_RESNET, 1000, 25, spacing="released_code")
    assert (np.diff(view.frames) == 15).all()
    assert view.frames[0] % 15 == 5
    assert view.frames[0] > 5
    assert (view.frames == sample_views(ST_RESNET, 1000, 25, spacing="released_code")[0].frames).all()
    # Three valid steps: from the front, from the end, from the front ..., the stride smaller by one each time.
    (view,) = sample_views(ST_RESNET, 13, 25, spacing="released_code")
    assert len(view.frames) == 25
    assert view.frames[:6].tolist() == [5, 7, 5, 7, 5, 7]
    assert view.frames[-3:].tolist() == [5, 6, 7]


def test_the_released_codes_draws_share_a_stride_and_skip_the_first_run() -> None:
    rng = np.random.default_rng(0)
    firsts = {int(sample_training(ST_RESNET, 100, rng, stride=15).frames[0]) for _ in range(100)}
    assert firsts == {20}
    # The grid 5, 20 ... 80 has one run of six steps; there is no other to take.
    only = sample_training(ST_RESNET.with_(steps=6, snippets=6), 100, rng, stride=15)
    assert only.frames.tolist() == [5, 20, 35, 50, 65, 80]


@pytest.mark.parametrize("spec", [TSN, STPN])
def test_the_released_codes_rules_are_for_strided_steps(spec: InputSpec) -> None:
    with pytest.raises(UsageError, match=f"strided steps.*{spec.sampling}"):
        sample_views(spec, 100, 25, spacing="released_code")
    with pytest.raises(UsageError, match=f"strided steps.*{spec.sampling}"):
        sample_training(spec, 100, np.random.default_rng(0), stride=3)
