"""How sure a score is: intervals of accuracy, paired comparisons, and several claims at once.

Videos of one group (a person, a recording) resemble each other, so a test set holds fewer independent facts than
videos. Where the scores know the groups, whole groups are resampled; an interval that resamples videos would be too
narrow. Networks trained from other seeds differ too: what is said of a method, and not of one network, resamples seeds
and groups. All of it is seeded: the same scores give the same interval.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores
from twostream.errors import UsageError
from twostream.evaluation.metrics import BoolArray, Order, right
from twostream.evaluation.score_fusion import align

# With five seeds that all agree the sign test comes to p = 0.0625 and no further, with six to 0.031; and a bootstrap
# of so few is narrower than it should be, by sqrt(1 - 1 / n) in a mean.
FEW = 6

# How often data that are crossed are drawn: 25 of these lie beyond either end of an interval at 0.995.
RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An accuracy with its interval.

    Attributes:
        value, low, high: shares of 0..1; NaN without a video to judge.
        level: the confidence level, 0.95 unless asked otherwise.
        videos, units: how many videos were judged, and how many independent units were resampled.
        method: in words for people, ``"bootstrap over 10 groups"``.
    """

    value: float
    low: float
    high: float
    level: float
    videos: int
    units: int
    method: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same videos.

    Attributes:
        difference, low, high: accuracy of the second minus that of the first, with its interval.
        level, videos, units, method: as in :class:`Interval`.
        only_first, only_second: videos that only the one or only the other recognised.
        p_value: McNemar's exact test of those two counts, which takes videos as independent; where groups are few,
            trust the interval.
    """

    difference: float
    low: float
    high: float
    level: float
    videos: int
    units: int
    method: str
    only_first: int
    only_second: int
    p_value: float


def accuracy_interval(
    scores: Scores,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    stream_weights: Mapping[str, float] | None = None,
    order: Order | None = None,
) -> Interval:
    """Top-1 accuracy with a percentile bootstrap interval over groups, or over videos where there are no groups.

    Where every unit has the same accuracy (all right, say) resampling says nothing about the spread, and the interval
    is Wilson's for as many trials as there are units.

    Reference:
        Efron, Tibshirani, *An Introduction to the Bootstrap*, 1993, ch. 13 (percentile interval); Davison, Hinkley,
        *Bootstrap Methods and their Application*, 1997, sec. 3.8 (resampling of clusters).
    """
    _check(level, resamples)
    known = scores.labels >= 0
    hits = right(scores, stream_weights=stream_weights, order=order)[known].astype(np.float64)
    units, kind = _units(scores, known)
    videos, count = len(hits), _count(units)
    value = float(hits.mean()) if videos else math.nan
    totals, sizes = _per_unit(hits, units)
    if videos and np.ptp(totals / sizes) > 0:
        low, high = _bootstrap(totals, sizes, level=level, resamples=resamples, seed=seed)
        method = f"bootstrap over {count} {kind}"
    else:
        low, high = wilson_interval(value * count if videos else 0.0, count, level=level)
        method = f"Wilson's interval for {count} {kind}"
    return Interval(value=value, low=low, high=high, level=level, videos=videos, units=count, method=method)


def wilson_interval(successes: float, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share from independent trials; (NaN, NaN) without a trial.

    Unlike the textbook's normal interval it stays inside 0..1 and keeps its coverage at small counts.

    Raises:
        UsageError: more successes than trials, negative ones, or a level outside 0..1.

    Reference:
        Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22, 1927; recommended by
        Brown, Cai, DasGupta, *Interval estimation for a binomial proportion*, Statistical Science 16, 2001.
    """
    _check(level, 1)
    if not 0 <= successes <= trials:
        raise UsageError(f"successes lie between 0 and the trials, got {successes} of {trials}")
    if trials == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def compare(first: Scores, second: Scores, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Comparison:
    """How much better ``second`` is than ``first`` on the same videos, each with its own merge.

    The interval resamples groups (videos without them) and takes both models' answers of a video together.

    Raises:
        ScoresError: they do not speak of the same videos and classes.

    Reference:
        Efron, Tibshirani 1993 as for :func:`accuracy_interval`; McNemar, *Note on the sampling error of the
        difference between correlated proportions*, Psychometrika 12, 1947, in its exact binomial form.
    """
    _check(level, resamples)
    one, other = align([first, second])
    known = one.labels >= 0
    first_right, second_right = right(one)[known], right(other)[known]
    gain = second_right.astype(np.float64) - first_right.astype(np.float64)
    units, kind = _units(one, known)
    totals, sizes = _per_unit(gain, units)
    count = _count(units)
    if len(gain):
        low, high = _bootstrap(totals, sizes, level=level, resamples=resamples, seed=seed)
    else:
        low = high = math.nan
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    return Comparison(
        difference=float(gain.mean()) if len(gain) else math.nan,
        low=low,
        high=high,
        level=level,
        videos=len(gain),
        units=count,
        method=f"bootstrap over {count} {kind}",
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar_p(only_first, only_second),
    )


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What one trained network did on its test videos.

    Attributes:
        seed: it was trained from. Several repetitions may have one, on other splits.
        values: (N,), a video's part of the mean: 1 where it was recognised, or a difference of two such.
        units: (N,), what each video is drawn with: its group, or the video itself. One name is one unit in all
            repetitions.
    """

    seed: int
    values: npt.NDArray[np.float64]
    units: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class CrossedMean:
    """A mean over networks and videos that holds for other seeds and other units, as far as there were enough of them.

    Attributes:
        value, low, high: less the constant that it is compared with; with its percentile interval.
        level: of the interval.
        p_value: two-sided, that nothing remains; at least 2 / (resamples + 1).
        seeds, units: how many of each were resampled.
        method: in words for people, ``"bootstrap over 20 groups and 6 seeds"``.
    """

    value: float
    low: float
    high: float
    level: float
    p_value: float
    seeds: int
    units: int
    method: str


def crossed_mean(
    repetitions: Sequence[Repetition],
    *,
    minus: float = 0.0,
    unit: str = "groups",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CrossedMean:
    """The mean over all videos of all repetitions, seeds and units being drawn with replacement, crossed.

    Every seed meets the same units, so neither videos nor rows are independent. A resample draws as many units as there
    are and, apart from that, as many seeds as there are, and takes the mean over the product of both, each pair as
    often as its unit times its seed were drawn. With one seed only units are drawn: the answer then holds for that
    network. Where unit and seed explain nothing the interval is somewhat too wide; no bootstrap of crossed data is
    exact.

    The p-value is the smallest level at which the percentile interval excludes zero: twice the smaller share of
    resamples on either side of zero, zeros counting on both, with one more on either side so that it is never zero.

    Args:
        repetitions: at least one, with a value.
        minus: a constant that the mean is compared with: a ceiling, chance.
        unit: what the units are called.
        level: of the interval.
        resamples: how many; a high level needs many.
        seed: of the resampling.

    Raises:
        UsageError: no value, or a level or number of resamples that there is not.

    Reference:
        Owen, *The pigeonhole bootstrap*, Annals of Applied Statistics 1, 2007; McCullagh, *Resampling and exchangeable
        arrays*, Bernoulli 6, 2000 (none is exact); Davison, Hinkley, *Bootstrap Methods and their Application*, 1997,
        sec. 4.2 (the one more); Efron, Tibshirani 1993 as for :func:`accuracy_interval`. Bouthillier et al.,
        *Accounting for variance in machine learning benchmarks*, MLSys 2021, on why seeds and data both belong in.
    """
    _check(level, resamples)
    totals, sizes = _cells(repetitions)
    if not sizes.sum():
        raise UsageError("a mean needs at least one video that was judged")
    means = np.concatenate([*_crossed(totals, sizes, resamples=resamples, seed=seed)])
    # Where not every seed met every unit, a resample can be without a video.
    drawn = means[~np.isnan(means)] - minus
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    seeds, units = totals.shape
    also = f" and {seeds} seeds" if seeds > 1 else ""
    return CrossedMean(
        value=float(totals.sum() / sizes.sum() - minus),
        low=float(low),
        high=float(high),
        level=level,
        p_value=min(1.0, 2 * (tail + 1) / (len(drawn) + 1)),
        seeds=seeds,
        units=units,
        method=f"bootstrap over {units} {unit}{also}",
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values: who claims all with one of at most 0.05 claims a falsehood with a probability of at most 0.05.

    Holds however the claims depend on each other. The smallest of m p-values counts m times, the next m - 1 times, and
    none less than one before it.

    Raises:
        UsageError: a p-value outside 0..1.

    Reference:
        Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 6, 1979.
    """
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise UsageError(f"p-values lie between 0 and 1, got {wrong[0]}")
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return tuple(adjusted)


def simultaneous_level(claims: int, level: float = 0.95) -> float:
    """The level at which each of so many intervals is to be made, for all to hold together at ``level``.

    Reference:
        Bonferroni's inequality: Dunn, *Multiple comparisons among means*, JASA 56, 1961.
    """
    _check(level, 1)
    return 1 - (1 - level) / max(1, claims)


def _cells(repetitions: Sequence[Repetition]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sum of values and number of videos, both (seeds, units)."""
    seeds = {seed: row for row, seed in enumerate(dict.fromkeys(r.seed for r in repetitions))}
    names = dict.fromkeys(unit for r in repetitions for unit in r.units)
    place = {name: column for column, name in enumerate(names)}
    totals = np.zeros((len(seeds), len(place)))
    sizes = np.zeros((len(seeds), len(place)))
    for repetition in repetitions:
        columns = np.array([place[unit] for unit in repetition.units], np.int64)
        totals[seeds[repetition.seed]] += np.bincount(columns, weights=repetition.values, minlength=len(place))
        sizes[seeds[repetition.seed]] += np.bincount(columns, minlength=len(place))
    return totals, sizes


def _crossed(
    totals: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], *, resamples: int, seed: int
) -> Iterator[npt.NDArray[np.float64]]:
    """Means of resamples, some at a time; NaN for one that drew no video."""
    rng = np.random.default_rng(seed)
    seeds, units = totals.shape
    # Few enough that the counts of a large test set still fit into a cache.
    most = max(1, 250_000 // units)
    for first in range(0, resamples, most):
        count = min(most, resamples - first)
        of_units, of_seeds = _drawn(rng, count, units), _drawn(rng, count, seeds)
        videos = ((of_units @ sizes.T) * of_seeds).sum(axis=1)
        sums = ((of_units @ totals.T) * of_seeds).sum(axis=1)
        yield np.divide(sums, videos, out=np.full(count, np.nan), where=videos > 0)


def _drawn(rng: np.random.Generator, count: int, size: int) -> npt.NDArray[np.float64]:
    """How often each of ``size`` was drawn in ``size`` draws with replacement, (count, size)."""
    picks = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
    return np.bincount(picks.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """The two-sided exact probability of a split at least as uneven, if both were equally likely; 1 for no split.

    Reference:
        McNemar 1947, with the binomial distribution in place of its normal limit.
    """
    total = only_first + only_second
    tail = sum(math.comb(total, count) for count in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << total))


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise UsageError(f"a confidence level lies between 0 and 1, like 0.95; got {level}")
    if resamples < 1:
        raise UsageError(f"a bootstrap needs at least one resample, got {resamples}")


def _units(scores: Scores, known: BoolArray) -> tuple[npt.NDArray[np.int64], str]:
    """The unit that each judged video belongs to, and what the units are; a video without a group is its own."""
    groups = [group for group, judged in zip(scores.groups, known.tolist(), strict=True) if judged]
    # One group says nothing about how groups differ; videos are then the best that can be had.
    if any(groups) and len(set(groups)) > 1:
        keys = [(group, -1) if group else ("", index) for index, group in enumerate(groups)]
        place = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        return np.array([place[key] for key in keys], dtype=np.int64), "groups"
    return np.arange(len(groups), dtype=np.int64), "videos"


def _count(units: npt.NDArray[np.int64]) -> int:
    return int(units.max(initial=-1)) + 1


def _per_unit(
    values: npt.NDArray[np.float64], units: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    count = _count(units)
    totals = np.bincount(units, weights=values, minlength=count).astype(np.float64)
    return totals, np.bincount(units, minlength=count).astype(np.float64)


def _bootstrap(
    totals: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.float64],
    *,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    # A row at a time: a test set of thousands of videos would not fit as one matrix.
    for row in range(resamples):
        pick = rng.integers(len(totals), size=len(totals))
        drawn[row] = totals[pick].sum() / sizes[pick].sum()
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
