import itertools
import math
from typing import Any

import numpy as np
import pytest

from twostream.clip import Scores, ScoresError
from twostream.errors import UsageError
from twostream.evaluation.statistics import (
    Repetition,
    accuracy_interval,
    compare,
    crossed_mean,
    holm,
    mcnemar_p,
    simultaneous_level,
    wilson_interval,
)


def scores(hits: Any, *, groups: Any = (), labels: Any = None, names: Any = None) -> Scores:
    """Two classes; the true one is class 1, and a hit is an answer for it."""
    hits = np.asarray(hits, bool)
    return Scores(
        logits=np.where(hits[:, None], [[0.0, 2.0]], [[2.0, 0.0]])[:, None, None].astype(np.float32),
        labels=np.ones(len(hits), np.int64) if labels is None else np.asarray(labels),
        videos=tuple(names or (f"v{n}" for n in range(len(hits)))),
        classes=("no", "yes"),
        votes=(("fused", 1),),
        groups=tuple(groups),
    )


def test_wilson_against_published_figures() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    low, high = wilson_interval(20, 20)
    assert (low, high) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)
    assert all(math.isnan(bound) for bound in wilson_interval(0, 0))


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(UsageError, match=r"successes lie between 0 and the trials, got -?\d of 2"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_are_shares(level: float) -> None:
    with pytest.raises(UsageError, match=r"a confidence level lies between 0 and 1, like 0\.95; got"):
        accuracy_interval(scores([True]), level=level)
    with pytest.raises(UsageError, match="a confidence level"):
        wilson_interval(1, 2, level=level)


def test_a_bootstrap_needs_a_resample() -> None:
    with pytest.raises(UsageError, match="at least one resample, got 0"):
        compare(scores([True]), scores([True]), resamples=0)


def test_without_groups_videos_are_resampled_and_agree_with_theory() -> None:
    hits = np.arange(400) < 280
    interval = accuracy_interval(scores(hits))
    assert interval.value == 0.7
    assert (interval.videos, interval.units, interval.method) == (400, 400, "bootstrap over 400 videos")
    assert (interval.low, interval.high) == pytest.approx(wilson_interval(280, 400), abs=0.01)
    assert interval == accuracy_interval(scores(hits))
    assert interval != accuracy_interval(scores(hits), seed=1)
    narrow = accuracy_interval(scores(hits), level=0.5)
    assert interval.low < narrow.low < 0.7 < narrow.high < interval.high


def test_groups_that_resemble_each_other_widen_the_interval() -> None:
    hits = np.repeat([True, False, True, True, False, True, True, True, False, True], 40)
    groups = np.repeat([f"g{n}" for n in range(10)], 40)
    alone, grouped = accuracy_interval(scores(hits)), accuracy_interval(scores(hits, groups=groups))
    assert grouped.method == "bootstrap over 10 groups"
    assert grouped.units == 10
    assert grouped.high - grouped.low > 4 * (alone.high - alone.low)


def test_the_interval_keeps_its_coverage() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        rates = rng.beta(7, 3, 30)  # mean 0.7
        hits = rng.random((30, 5)) < rates[:, None]
        groups = [f"g{n}" for n in np.repeat(np.arange(30), 5)]
        interval = accuracy_interval(scores(hits.ravel(), groups=groups), resamples=200, seed=trial)
        covered += interval.low <= 0.7 <= interval.high
    assert covered >= 176  # 0.95 of 200, less four standard deviations and the percentile interval's small bias


def test_videos_without_a_group_stand_for_themselves_and_one_group_says_nothing() -> None:
    assert accuracy_interval(scores([True, False, True, False], groups=["a", "a", "", ""])).units == 3
    single = accuracy_interval(scores([True, False, True], groups=["a", "a", "a"]))
    assert single.method == "bootstrap over 3 videos"


def test_all_right_is_not_certain() -> None:
    perfect = accuracy_interval(scores([True] * 20, groups=[f"g{n // 2}" for n in range(20)]))
    assert perfect.method == "Wilson's interval for 10 groups"
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(wilson_interval(10, 10)[0])
    none = accuracy_interval(scores([False] * 4))
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high > 0.3


def test_unknown_labels_are_left_out() -> None:
    known = accuracy_interval(scores([True, False, True, True], labels=[1, 1, -1, -1], groups=["a", "b", "c", "d"]))
    assert (known.videos, known.units, known.value) == (2, 2, 0.5)
    nothing = accuracy_interval(scores([True], labels=[-1]))
    assert nothing.videos == 0
    assert all(math.isnan(figure) for figure in (nothing.value, nothing.low, nothing.high))


def test_mcnemar_against_the_binomial() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_p(5, 0) == pytest.approx(2 / 32)
    assert mcnemar_p(2, 9) == pytest.approx(2 * (1 + 11 + 55) / 2**11)
    assert 0 < mcnemar_p(1000, 3000) < 1e-200


def test_two_models_are_compared_video_by_video() -> None:
    rng = np.random.default_rng(1)
    first = rng.random(200) < 0.6
    second = first | (rng.random(200) < 0.3)
    order = rng.permutation(200)
    names = [f"v{n}" for n in order]
    result = compare(scores(first), scores(second[order], names=names))
    assert result.difference == pytest.approx(second.mean() - first.mean())
    assert (result.only_first, result.only_second) == (0, int((second & ~first).sum()))
    assert 0 < result.low < result.difference < result.high
    assert result.p_value < 1e-3
    assert (result.videos, result.units, result.method) == (200, 200, "bootstrap over 200 videos")
    assert result == compare(scores(first), scores(second[order], names=names))
    back = compare(scores(second), scores(first))
    assert back.difference == -result.difference
    # Pairing removes what both find hard: the same two accuracies, taken as independent, are less sure.
    apart = [interval.high - interval.low for interval in map(accuracy_interval, (scores(first), scores(second)))]
    assert result.high - result.low < math.hypot(*apart)


def test_a_gain_in_one_group_only_is_not_significant_over_groups() -> None:
    groups = np.repeat([f"g{n}" for n in range(8)], 20)
    first = np.zeros(160, bool)
    second = groups == "g3"
    result = compare(scores(first, groups=groups), scores(second, groups=groups))
    assert result.p_value < 1e-4
    assert result.low == 0.0


def test_a_comparison_needs_the_same_videos_and_something_to_judge() -> None:
    with pytest.raises(ScoresError, match="speak of other videos"):
        compare(scores([True, True]), scores([True, True], names=["v0", "other"]))
    nothing = compare(scores([True], labels=[-1]), scores([True], labels=[-1]))
    assert math.isnan(nothing.difference)
    assert math.isnan(nothing.low)
    assert nothing.p_value == 1.0


def repetition(seed: int, values: Any, units: Any) -> Repetition:
    return Repetition(seed=seed, values=np.asarray(values, np.float64), units=units)


def test_seeds_and_groups_are_drawn_crossed_as_by_hand() -> None:
    # Two seeds, two groups, "a" with one video and "b" with two; every one of the 4 x 4 draws written out.
    gains = [[1.0, 0.0, 1.0], [0.0, -1.0, 1.0]]
    result = crossed_mean([repetition(k, values, "abb") for k, values in enumerate(gains)], level=0.6)
    totals, sizes = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([1, 2])
    means = [
        sum(totals[s, g] for s in seeds for g in groups) / (2 * sum(sizes[g] for g in groups))
        for seeds in itertools.product((0, 1), repeat=2)
        for groups in itertools.product((0, 1), repeat=2)
    ]
    assert result.value == 2 / 6
    assert (result.low, result.high) == (np.quantile(means, 0.2), np.quantile(means, 0.8)) == (0.0, 0.5)
    # Zero only where the second seed is drawn twice: a quarter of all draws, none is below.
    assert result.p_value == pytest.approx(2 * 4 / 16, abs=0.02)
    assert (result.seeds, result.units, result.method) == (2, 2, "bootstrap over 2 groups and 2 seeds")
    assert result == crossed_mean([repetition(k, values, "abb") for k, values in enumerate(gains)], level=0.6)


def test_a_difference_from_a_constant() -> None:
    hits = repetition(0, [1, 1, 0, 1, 1, 1], "abcdef")
    result = crossed_mean([hits], minus=1 / 3, unit="videos")
    assert result.value == pytest.approx(1 / 2)
    assert result.method == "bootstrap over 6 videos"
    # At most a third right of six draws: a video that was not recognised is drawn with probability 1/6.
    tail = sum(math.comb(6, k) * (5 / 6) ** k * (1 / 6) ** (6 - k) for k in range(3))
    assert result.p_value == pytest.approx(2 * tail, abs=0.005)
    assert crossed_mean([repetition(0, [1, 0] * 20, range(40))], minus=0.5).p_value == 1.0


def test_a_p_value_is_never_zero_and_what_has_no_mean_is_refused() -> None:
    sure = crossed_mean([repetition(k, [1.0] * 5, "abcde") for k in range(3)], resamples=999)
    assert (sure.low, sure.high, sure.p_value) == (1.0, 1.0, 2 / 1000)
    assert crossed_mean([repetition(0, [0.0] * 5, "abcde")]).p_value == 1.0
    for nothing in ([], [repetition(0, [], "")]):
        with pytest.raises(UsageError, match="at least one video that was judged"):
            crossed_mean(nothing)


def test_splits_of_one_seed_share_it_and_a_unit_is_one_in_all_of_them() -> None:
    parts = [repetition(0, [1, 0], "ab"), repetition(0, [1, 1], "ac"), repetition(1, [0, 0], "ab")]
    result = crossed_mean(parts)
    assert (result.seeds, result.units, result.value) == (2, 3, 0.5)
    # "c" and the second seed never met; resamples of these alone have no mean and are left out.
    alone = crossed_mean([repetition(0, [1], "c"), repetition(1, [0], "a")])
    assert not math.isnan(alone.low + alone.high + alone.p_value)


def test_the_crossed_interval_keeps_its_coverage_where_one_over_groups_alone_does_not() -> None:
    rng = np.random.default_rng(0)
    covered = narrow = 0
    for trial in range(200):
        gains = 0.1 + 0.2 * rng.normal(size=(12, 1)) + 0.2 * rng.normal(size=(1, 25)) + 0.3 * rng.normal(size=(12, 25))
        of_seeds = [repetition(k, values, range(25)) for k, values in enumerate(gains)]
        crossed = crossed_mean(of_seeds, resamples=300, seed=trial)
        pooled = crossed_mean([repetition(0, v.values, v.units) for v in of_seeds], resamples=300, seed=trial)
        covered += crossed.low <= 0.1 <= crossed.high
        narrow += pooled.low <= 0.1 <= pooled.high
    assert covered >= 180, "0.95 of 200 less three standard deviations"
    assert narrow < 170, "far from 0.95"


def test_holm_against_an_example_by_hand() -> None:
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04 is raised to what came before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.5, 0.9, 0.4]) == (1.0, 1.0, 1.0)
    assert holm([0.03]) == (0.03,)
    assert holm([]) == ()
    with pytest.raises(UsageError, match=r"p-values lie between 0 and 1, got 1\.5"):
        holm([0.1, 1.5])


def test_levels_of_intervals_that_hold_together() -> None:
    assert simultaneous_level(5) == pytest.approx(0.99)
    assert simultaneous_level(0) == simultaneous_level(1) == pytest.approx(0.95)
