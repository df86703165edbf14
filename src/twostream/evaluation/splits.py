"""One network's recipe on several splits of a data set: the mean that the literature reports, and its parts."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from twostream.clip import Scores
from twostream.errors import TwostreamError
from twostream.evaluation.metrics import FloatArray, judged_by, mean_class_accuracy, right
from twostream.evaluation.statistics import wilson_interval

# Share of a split's test videos that the lists of another must know. Each of HMDB51's splits leaves a quarter of all
# videos unused, and each another quarter.
_SAME_DATA = 0.5

_LEVEL = 0.95
_RESAMPLES = 2000


class SplitsError(TwostreamError):
    """Scores of which no mean over splits can be taken."""


@dataclass(frozen=True, kw_only=True)
class JudgedSplit:
    """A run and the split that it was judged on.

    Attributes:
        name: of the run, for messages and tables.
        scores: of its test videos.
        listed: names of all videos of all parts of its data; empty where they are not known.
    """

    name: str
    scores: Scores
    listed: Collection[str] = ()

    @property
    def split(self) -> str:
        """Which split this is."""
        return str(self.scores.meta.get("split", "unknown"))


@dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """What one run did on one split; ``top1`` and ``mean_class`` are 0..1."""

    split: str
    run: str
    videos: int
    top1: float
    mean_class: float


@dataclass(frozen=True, kw_only=True)
class SplitMean:
    """The mean over splits.

    Attributes:
        splits: what it is the mean of, in the order given.
        top1, mean_class: every split counts alike, 0..1.
        low, high: interval of ``top1`` at 0.95: for other videos, not for other networks.
        method: in words for people, ``"bootstrap over 25 groups"``.
        together: top-1 over the videos of all splits together, each counting alike; other than ``top1`` where splits
            differ in size.
        model, judged_by, part: what all have in common.
        classes: how many.
    """

    splits: tuple[SplitFigures, ...]
    top1: float
    mean_class: float
    low: float
    high: float
    method: str
    together: float
    model: str
    judged_by: str
    part: str
    classes: int

    @property
    def videos(self) -> int:
        """Of all splits; one that is tested on in two of them counts twice."""
        return sum(one.videos for one in self.splits)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "splits": [asdict(one) for one in self.splits]}

    def lines(self) -> list[str]:
        """What the terminal shows."""
        wide = max(len(one.split) for one in self.splits)
        return [
            f"mean over {len(self.splits)} splits: {self.model}, {self.judged_by}, {self.classes} classes, "
            f"{self.part} videos",
            *(
                f"  split {one.split:<{wide}}  top-1 {one.top1:.3f}   mean class {one.mean_class:.3f}   "
                f"{one.videos} videos   {one.run}"
                for one in self.splits
            ),
            f"  mean  {'':<{wide}}  top-1 {self.top1:.3f}   mean class {self.mean_class:.3f}   95 % interval of top-1 "
            f"{self.low:.3f} to {self.high:.3f} ({self.method}; for these networks)",
            f"  all {self.videos} videos together: top-1 {self.together:.3f}",
        ]


def mean_of_splits(judged: Sequence[JudgedSplit]) -> SplitMean:
    """The mean of runs of one model on different splits of one data set.

    The interval resamples groups (videos where there are none), each with all of its videos in all splits.

    Raises:
        SplitsError: fewer than two; a split twice; other classes, data, models, parts, protocols or precisions; or a
            run without a video of known class. Names the runs.
    """
    if len(judged) < 2:
        raise SplitsError("a mean over splits needs runs of at least two splits")
    for one in judged:
        if not (one.scores.labels >= 0).any():
            raise SplitsError(f"{one.name} has no video of known class")
    for first, other in combinations(judged, 2):
        _refuse_strangers(first, other)
    figures = []
    # Of every unit (a group, else a video): its share of the mean, and how much of that it got right.
    shares: dict[str, float] = {}
    gains: dict[str, float] = {}
    hits = 0
    # One group says nothing about how groups differ.
    grouped = len({group for one in judged for group in one.scores.groups if group}) > 1
    for one in judged:
        scores = one.scores
        known = np.flatnonzero(scores.labels >= 0)
        found = right(scores)
        hits += int(found.sum())
        figures.append(
            SplitFigures(
                split=one.split,
                run=one.name,
                videos=len(known),
                top1=float(found[known].mean()),
                mean_class=mean_class_accuracy(scores),
            )
        )
        for n in known.tolist():
            unit = f"group {scores.groups[n]}" if grouped and scores.groups[n] else scores.videos[n]
            share = 1 / (len(judged) * len(known))
            shares[unit] = shares.get(unit, 0.0) + share
            gains[unit] = gains.get(unit, 0.0) + share * bool(found[n])
    top1 = float(np.mean([one.top1 for one in figures]))
    low, high, how = _interval(np.array([*gains.values()]), np.array([*shares.values()]), top1)
    meta = judged[0].scores.meta
    return SplitMean(
        splits=tuple(figures),
        top1=top1,
        mean_class=float(np.mean([one.mean_class for one in figures])),
        low=low,
        high=high,
        method=f"{how} {len(shares)} {'groups' if grouped else 'videos'}",
        together=hits / sum(one.videos for one in figures),
        model=str(meta.get("model", "unknown model")),
        judged_by=judged_by(judged[0].scores),
        part=str(meta.get("part", "test")),
        classes=len(judged[0].scores.classes),
    )


def _refuse_strangers(first: JudgedSplit, other: JudgedSplit) -> None:
    both = f"{first.name} and {other.name}"
    if first.split == other.split:
        raise SplitsError(f"{both} are both of split {first.split}; name one run a split")
    if set(first.scores.classes) != set(other.scores.classes):
        lone = sorted(set(first.scores.classes) ^ set(other.scores.classes))
        raise SplitsError(f"{both} have other classes: {', '.join(lone[:3])}{' ...' if len(lone) > 3 else ''}")
    for what, one, two in (
        ("models", *(str(judged.scores.meta.get("model", "unknown")) for judged in (first, other))),
        ("parts of their data", *(str(judged.scores.meta.get("part", "test")) for judged in (first, other))),
        ("protocols", *(judged_by(judged.scores) for judged in (first, other))),
    ):
        if one != two:
            raise SplitsError(f"{both} are of other {what}: {one} and {two}")
    for one_split, of in ((first, other), (other, first)):
        if of.listed:
            known = sum(video in of.listed for video in one_split.scores.videos)
            if known < _SAME_DATA * len(one_split.scores):
                raise SplitsError(
                    f"{both} are of other data: {of.name} lists {known} of the {len(one_split.scores)} videos that "
                    f"{one_split.name} was judged on"
                )


def _interval(gains: FloatArray, shares: FloatArray, value: float) -> tuple[float, float, str]:
    """The interval of a mean over units of unlike shares, and how it was made, as :func:`accuracy_interval` does it."""
    count = len(gains)
    if np.ptp(gains / shares) < 1e-12:
        return *wilson_interval(min(value, 1.0) * count, count, level=_LEVEL), "Wilson's interval for"
    rng = np.random.default_rng(0)
    drawn = np.empty(_RESAMPLES)
    for row in range(_RESAMPLES):
        pick = rng.integers(count, size=count)
        drawn[row] = gains[pick].sum() / shares[pick].sum()
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high), "bootstrap over"


__all__ = ["JudgedSplit", "SplitFigures", "SplitMean", "SplitsError", "mean_of_splits"]
