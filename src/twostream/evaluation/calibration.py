"""Whether probabilities mean what they say: of the answers given with 0.8, are eight of ten right?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from twostream.clip import Scores
from twostream.errors import TwostreamError, UsageError
from twostream.evaluation.metrics import (
    FloatArray,
    IntArray,
    Order,
    log_probabilities,
)

BINS = 15
"""Bins of the expected calibration error, as in Guo et al."""

THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class CalibrationError(TwostreamError):
    """Probabilities that nothing can be said of, or that no temperature can be fitted to."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The videos whose confidence lies in (low, high]: how many, how sure on average, and how often right."""

    low: float
    high: float
    videos: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good the probabilities of judged videos are.

    Attributes:
        videos: how many of known class.
        ece: expected calibration error over 15 bins of equal width, 0..1.
        ece_equal_mass: the same over bins that hold equally many videos.
        nll: mean negative log probability of the true class, in nats.
        brier: mean squared distance of the distribution from the truth, summed over classes, 0..2.
    """

    videos: int
    ece: float
    ece_equal_mass: float
    nll: float
    brier: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What happens if only answers of at least this confidence are given.

    ``answered`` is the share of videos, ``accuracy`` that of the answers, None where there are none.
    """

    threshold: float
    answered: float
    accuracy: float | None


def figures(
    scores: Scores, *, stream_weights: Mapping[str, float] | None = None, order: Order | None = None
) -> Figures:
    """The figures of the videos of known class.

    Raises:
        CalibrationError: there are none.
    """
    values, labels = _judged(scores, stream_weights, order)
    confidence, right = _answers(values, labels)
    distribution = np.exp(values)
    truth = np.eye(values.shape[1])[labels]
    return Figures(
        videos=len(labels),
        ece=expected_error(reliability(confidence, right)),
        ece_equal_mass=expected_error(reliability(confidence, right, equal_mass=True)),
        nll=float(-values[np.arange(len(labels)), labels].mean()),
        brier=float(np.square(distribution - truth).sum(axis=1).mean()),
    )


def reliability_of(scores: Scores, **merge: Any) -> tuple[Bin, ...]:
    """The reliability table of scores, in bins of equal width. ``merge``: as :func:`figures` takes it."""
    return reliability(*_answers(*_judged(scores, merge.get("stream_weights"), merge.get("order"))))


def reliability(
    confidence: FloatArray, right: FloatArray, *, bins: int = BINS, equal_mass: bool = False
) -> tuple[Bin, ...]:
    """Confidence against accuracy, bin by bin; bins without a video are left out.

    Args:
        confidence: (N,) the probability of each answer.
        right: (N,) 1 where the answer is right, else 0.
        bins: how many.
        equal_mass: bins that hold equally many videos, give or take one, instead of ((m - 1) / bins, m / bins].
            Answers of the very same confidence share their accuracy, so that their order does not matter.

    Reference: Guo et al., ICML 2017, section 2; equal mass: Nguyen, O'Connor, EMNLP 2015.
    """
    if bins < 1:
        raise UsageError(f"calibration errors need at least 1 bin, got {bins}")
    if equal_mass:
        order = np.argsort(confidence, kind="stable")
        values, same = np.unique(confidence, return_inverse=True)
        shared = np.bincount(same, weights=right, minlength=len(values)) / np.bincount(same, minlength=len(values))
        right = shared[same]
        members: list[IntArray] = [piece for piece in np.array_split(order, bins) if len(piece)]
        edges = [0.0, *(float(confidence[piece[-1]]) for piece in members)]
    else:
        borders = np.linspace(0, 1, bins + 1)
        place = np.clip(np.searchsorted(borders, confidence, side="left") - 1, 0, bins - 1)
        members = [np.flatnonzero(place == m) for m in range(bins)]
        edges = borders.tolist()
    return tuple(
        Bin(
            low=edges[m],
            high=edges[m + 1],
            videos=len(piece),
            confidence=float(confidence[piece].mean()),
            accuracy=float(right[piece].mean()),
        )
        for m, piece in enumerate(members)
        if len(piece)
    )


def expected_error(table: Sequence[Bin]) -> float:
    """The mean distance of accuracy and confidence over the bins, by their videos."""
    total = sum(one.videos for one in table)
    return sum(one.videos * abs(one.accuracy - one.confidence) for one in table) / total


def coverage(
    scores: Scores,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    stream_weights: Mapping[str, float] | None = None,
    order: Order | None = None,
) -> tuple[Coverage, ...]:
    """For each threshold the share of videos whose answer reaches it, and how often those are right.

    Raises:
        CalibrationError: no video of known class.
    """
    confidence, right = _answers(*_judged(scores, stream_weights, order))
    table = []
    for threshold in thresholds:
        answered = confidence >= threshold
        table.append(
            Coverage(
                threshold=threshold,
                answered=float(answered.mean()),
                accuracy=float(right[answered].mean()) if answered.any() else None,
            )
        )
    return tuple(table)


def _judged(
    scores: Scores, stream_weights: Mapping[str, float] | None, order: Order | None
) -> tuple[FloatArray, IntArray]:
    """Log probabilities (N, K) and labels (N,) of the videos of known class."""
    known = np.flatnonzero(scores.labels >= 0)
    if not len(known):
        raise CalibrationError("there is nothing to compare the probabilities with: no video has a known class")
    return log_probabilities(scores, stream_weights=stream_weights, order=order)[known], scores.labels[known]


def _answers(values: FloatArray, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """The confidence of each answer and whether it is right, (N,) each."""
    answers = values.argmax(axis=1)
    # The sum of rounded probabilities may pass 1 by a bit.
    confidence = np.minimum(np.exp(values.max(axis=1)), 1.0)
    return confidence, (answers == labels).astype(np.float64)


__all__ = [
    "BINS",
    "Bin",
    "CalibrationError",
    "Coverage",
    "Figures",
    "coverage",
    "expected_error",
    "figures",
    "reliability",
    "reliability_of",
]
