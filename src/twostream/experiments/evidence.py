"""What the rows that are there say of a difference: paired by seed and split, video by video."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores, ScoresError
from twostream.evaluation.statistics import (
    FEW,
    CrossedMean,
    Repetition,
    crossed_mean,
    holm,
    simultaneous_level,
    wilson_interval,
)
from twostream.experiments.claims import Claim
from twostream.experiments.hits import Hits, unit_names
from twostream.experiments.references import ceiling, chance
from twostream.experiments.rows import Finished, SuiteFolder
from twostream.experiments.suite import MotionShapes, Row, Suite

# The probability with which any of a suite's claims may be said to hold although none is true.
ERROR = 0.05

Verdict = Literal["holds", "does not hold", "not run", "too few seeds to say", "too few units to say"]
Place = tuple[int, str]


class Answers:
    """Which videos the rows that are there got right."""

    def __init__(self, folder: SuiteFolder, there: Mapping[Row, Finished]) -> None:
        self.folder = folder
        self.there = there
        self._read: dict[Row, Hits | None] = {}

    def of(self, row: Row) -> Hits | None:
        """Of one row: from its file, or for an older one from its scores; None where these are on another machine."""
        if row not in self._read:
            finished = self.there[row]
            hits = finished.hits
            file = self.folder.path / str(finished.scores_file)
            if hits is None and file.is_file():
                hits = Hits.of(Scores.load(file))
            self._read[row] = hits
        return self._read[row]

    def by_place(self, rows: Sequence[Row]) -> dict[Place, Hits]:
        """By seed and split, of those rows that are there and say."""
        found = {(row.seed, row.split): self.of(row) for row in rows if row in self.there}
        return {place: hits for place, hits in found.items() if hits is not None}


def difference(
    better: Mapping[Place, Hits],
    worse: Mapping[Place, Hits] | None,
    *,
    stream: str | None = None,
    worse_stream: str | None = None,
    minus: float = 0.0,
    level: float = 0.95,
) -> CrossedMean | None:
    """The share of right answers of one side less that of the other, or less a constant; None without a common place.

    Raises:
        ScoresError: the two were not judged on the same videos.
    """
    places = [place for place in better if worse is None or place in worse]
    if not places:
        return None
    units, unit = unit_names([better[place] for place in places])
    repetitions = []
    for place, names in zip(places, units, strict=True):
        values = better[place].values(stream)
        if worse is not None:
            values = values - _aligned(better[place], worse[place], worse_stream, place)
        repetitions.append(Repetition(seed=place[0], values=values, units=names))
    found = crossed_mean(repetitions, minus=minus, unit=unit, level=level)
    if found.low < found.high:
        return found
    # All units say the same in all seeds, and resampling cannot tell the spread: as many others as may have been missed
    # could say anything.
    missed = 1 - wilson_interval(found.units, found.units, level=level)[0]
    lowest, highest = (0.0 if worse is None else -1.0) - minus, 1.0 - minus
    low, high = (found.value + missed * (end - found.value) for end in (lowest, highest))
    return replace(found, low=low, high=high)


def accuracy_bounds(answers: Mapping[Place, Hits], *, stream: str | None = None) -> tuple[float, float] | None:
    """The 95 % interval of the share of right answers; None without rows that say."""
    found = difference(answers, None, stream=stream)
    return None if found is None else (found.low, found.high)


def reserve(found: CrossedMean) -> str | None:
    """What has to be said of an interval that rests on little."""
    few = [f"{count} {what}" for count, what in ((found.seeds, "seed"), (found.units, "unit")) if count < FEW]
    if not few:
        return None
    words = " and ".join(text if text.startswith("1 ") else f"{text}s" for text in few)
    return f"{words} only"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of a claim.

    Attributes:
        claim: in words.
        against: what the variant is compared with, in words.
        verdict: "holds" where the difference is above zero and Holm's adjusted p at most 0.05, the claims of the suite
            that were not run counting as claims too.
        difference, low, high: with an interval at ``level``, which is 1 - 0.05 / m for the m claims of the suite: all
            m together hold with a probability of 0.95 (Bonferroni). Holm's test is a little sharper, so a claim can
            hold whose interval just reaches zero.
        p_value, adjusted_p: of the difference alone, two-sided; and corrected for the number of claims (Holm).
        seeds, of_seeds: how many seeds were compared, and how many the suite has.
        units, method: how many independent units were resampled, and how in words.
        note: what has to be said besides.
    """

    claim: str
    against: str
    verdict: Verdict
    level: float
    seeds: int
    of_seeds: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    adjusted_p: float | None = None
    units: int = 0
    method: str | None = None
    note: str | None = None


def judge_claims(suite: Suite, rows: Sequence[Row], answers: Answers) -> tuple[Finding, ...]:
    """All claims of a suite, in its order.

    Args:
        suite: whose claims.
        rows: all of its rows.
        answers: of those of them that are there.
    """
    level = simultaneous_level(len(suite.claims), 1 - ERROR)
    by_variant = {variant: [row for row in rows if row.variant == variant] for variant in suite.variants}
    found = [_compared(claim, by_variant, answers, level) for claim in suite.claims]
    # What was not run counts as if it had shown nothing: with each claim that is added later none gets weaker.
    adjusted = holm([mean.p_value if mean else 1.0 for mean, *_ in found])
    return tuple(
        Finding(
            claim=claim.claim,
            against=against,
            verdict=_verdict(mean, p),
            level=level,
            seeds=mean.seeds if mean else 0,
            of_seeds=len(suite.seeds),
            difference=mean.value if mean else None,
            low=mean.low if mean else None,
            high=mean.high if mean else None,
            p_value=mean.p_value if mean else None,
            adjusted_p=p if mean else None,
            units=mean.units if mean else 0,
            method=mean.method if mean else None,
            note=note,
        )
        for claim, (mean, against, note), p in zip(suite.claims, found, adjusted, strict=True)
    )


def _compared(
    claim: Claim, rows: Mapping[str, Sequence[Row]], answers: Answers, level: float
) -> tuple[CrossedMean | None, str, str | None]:
    """The difference that a claim speaks of, what it is a difference from, and why there is none."""
    better = answers.by_place(rows[claim.better])
    worse = None if claim.worse is None else answers.by_place(rows[claim.worse])
    if claim.worse is None:
        minus = _figure(claim, rows[claim.better], answers)
        named = f"{claim.above}" if isinstance(claim.above, str) else "a figure"
        against = named if minus is None else f"{named} {minus:.3f}"
    else:
        minus = 0.0
        against = claim.worse if claim.worse_stream is None else f"{claim.worse}, {claim.worse_stream} alone"
    if minus is None:
        return None, against, None
    try:
        mean = difference(better, worse, stream=claim.stream, worse_stream=claim.worse_stream, minus=minus, level=level)
    except ScoresError as error:
        return None, against, str(error)
    made = [row for variant, _ in claim.sides for row in rows[variant] if row in answers.there]
    if mean is None and any(answers.of(row) is None for row in made):
        return None, against, "rows that are there do not say which videos they got right, nor are their scores here"
    return mean, against, reserve(mean) if mean else None


def _figure(claim: Claim, rows: Sequence[Row], answers: Answers) -> float | None:
    """What a claim's variant is to be above; None where no row tells the number of classes yet."""
    if isinstance(claim.above, float):
        return claim.above
    if claim.above == "ceiling":
        data = rows[0].data
        assert isinstance(data, MotionShapes)
        return float(ceiling(data.settings())[0]["top1"])
    made = [answers.there[row] for row in rows if row in answers.there]
    return float(chance(len(made[0].figures["per_class"]))["top1"]) if made else None


def _verdict(mean: CrossedMean | None, adjusted_p: float) -> Verdict:
    if mean is None:
        return "not run"
    if mean.seeds < FEW:
        return "too few seeds to say"
    if mean.units < FEW:
        return "too few units to say"
    return "holds" if mean.value > 0 and adjusted_p <= ERROR else "does not hold"


def _aligned(better: Hits, worse: Hits, stream: str | None, place: Place) -> npt.NDArray[np.float64]:
    """The values of ``worse`` in the order of the other's videos."""
    values = dict(zip(worse.videos, worse.values(stream), strict=True))
    if values.keys() != set(better.videos):
        apart = sorted(values.keys() ^ set(better.videos))
        raise ScoresError(f"seed {place[0]}, split {place[1]}: {len(apart)} videos were judged by one only: {apart[0]}")
    return np.array([values[video] for video in better.videos])
