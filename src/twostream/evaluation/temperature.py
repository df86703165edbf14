"""One number that makes probabilities mean what they say: the temperature.

The temperature T > 0 divides the logits of every view and vote before anything else is done with them. Where logits
are averaged and the softmax comes last this is the textbook's softmax(z / T): no answer changes, only its confidence.
Where probabilities are averaged (protocol ``10x3``) each view's own softmax is taken at T, so a close answer may
change. T is fitted on validation videos under one protocol and holds for that one: fewer views give other logits.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from twostream.clip import Scores
from twostream.evaluation.calibration import CalibrationError, Figures, figures
from twostream.evaluation.metrics import (
    FloatArray,
    IntArray,
    Order,
    merge_order,
    merged_logits,
    normalised_weights,
    right,
)

FEW_VIDEOS = 30
"""Below so many validation videos a temperature is rough: its likelihood hangs on the few that were mistaken."""

# 1/T is looked for between these, in units of the answers' own spread: from a hair above uniform to certainty.
_LOWEST, _HIGHEST, _POINTS = 1e-3, 1e4, 43
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A fitted temperature and where it comes from.

    Attributes:
        value: T; above 1 the network was too sure of itself.
        protocol, merge, flips, stream_weights: how the answers were made that it was fitted to.
        part, split: whose videos.
        before, after: the figures of these videos at T = 1 and at T, which was fitted to them, so ``after`` flatters.
    """

    value: float
    protocol: str
    merge: Order
    flips: bool
    stream_weights: Mapping[str, float]
    part: str
    split: str
    before: Figures
    after: Figures

    @property
    def videos(self) -> int:
        """How many videos it was fitted on."""
        return self.before.videos

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as they stand in a model folder."""
        return {**asdict(self), "stream_weights": dict(self.stream_weights)}

    @classmethod
    def from_dict(cls, values: Any) -> "Temperature":
        """The inverse of :meth:`to_dict`.

        Raises:
            CalibrationError: entries that are missing or are no temperature.
        """
        try:
            figures = {key: Figures(**values[key]) for key in ("before", "after")}
            found = cls(**{**values, **figures})
            usable = np.isfinite(found.value) and found.value > 0
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"not a temperature that twostream wrote ({error!r})") from error
        if not usable:
            raise CalibrationError(f"a temperature is a finite number above 0, got {found.value}")
        return found

    def fits(self, scores: Scores) -> bool:
        """Whether ``scores`` were made and are merged as those that it was fitted to; videos may be others."""
        meta = scores.meta
        return (
            (meta.get("protocol"), meta.get("flips")) == (self.protocol, self.flips)
            and merge_order(scores) == self.merge
            and normalised_weights(scores) == dict(self.stream_weights)
        )


def tempered(scores: Scores, temperature: float) -> Scores:
    """The scores with the logits of every view and vote divided by ``temperature``.

    Raises:
        CalibrationError: not a finite number above 0.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise CalibrationError(f"a temperature is a finite number above 0, got {temperature}")
    return scores if temperature == 1 else replace(scores, logits=scores.logits / np.float32(temperature))


def fit_temperature(
    scores: Scores, *, stream_weights: Mapping[str, float] | None = None, order: Order | None = None
) -> float:
    """The T that makes the true classes of ``scores`` most likely.

    The negative log likelihood is convex in 1/T where logits are averaged. It is looked over on a grid first, so that
    a second valley, which averaged probabilities can have, is seen too; golden sections then close in on the lowest.

    Args:
        scores: of validation videos; those of unknown class are left out.
        stream_weights, order: as :func:`metrics.probabilities` takes them.

    Raises:
        CalibrationError: no video of known class, or the likelihood has no best T: all answers are right, or they
            know no more than a guess.

    Reference: Guo, Pleiss, Sun, Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017, section 4.2.
    """
    order = merge_order(scores, order)
    known = np.flatnonzero(scores.labels >= 0)
    if not len(known):
        raise CalibrationError("no temperature can be fitted: no video has a known class")
    voices = _voices(scores, known, stream_weights, order)
    spread = float(np.mean([-voice.below.mean() for voice in voices]))
    if spread <= 0:
        raise CalibrationError("no temperature can be fitted: the answers tell no class from another")

    def cost(log_inverse: float) -> float:
        inverse = np.exp(log_inverse)
        # The softmax of each view, at the true class only.
        likelihoods = [
            np.logaddexp.reduce(inverse * voice.own - np.log(np.exp(inverse * voice.below).sum(axis=-1)), axis=1)
            + voice.log_weight
            for voice in voices
        ]
        return float(-np.logaddexp.reduce(likelihoods, axis=0).mean())

    grid = np.linspace(np.log(_LOWEST), np.log(_HIGHEST), _POINTS) - np.log(spread)
    costs = np.array([cost(point) for point in grid])
    lowest = np.flatnonzero(costs <= costs.min() + 1e-12)
    hits = int(right(scores, stream_weights=stream_weights, order=order).sum())
    if lowest[-1] == len(grid) - 1:
        raise CalibrationError(
            f"no temperature can be fitted: the smaller it is the better it fits, as {hits} of {len(known)} videos "
            "are recognised and no mistake says how sure to be; hold out more validation videos"
        )
    if lowest[0] == 0:
        raise CalibrationError(
            "no temperature can be fitted: the larger it is the better it fits, so on these "
            f"{len(known)} videos ({hits} recognised) the answers know no more than a guess; train longer first"
        )
    best = _golden_section(cost, float(grid[lowest[0] - 1]), float(grid[lowest[0] + 1]))
    return float(np.exp(-best))


@dataclass(frozen=True)
class _Voice:
    """What one stream says: M softmaxes whose mean counts with a weight.

    ``below`` (N, M, K) are logits counted from the highest of their view, ``own`` (N, M) those of the true class, and
    ``log_weight`` is the logarithm of the weight of each of the M.
    """

    below: FloatArray
    own: FloatArray
    log_weight: float


def _voices(scores: Scores, known: IntArray, stream_weights: Mapping[str, float] | None, order: Order) -> list[_Voice]:
    labels = scores.labels[known]

    def voice(logits: FloatArray, weight: float) -> _Voice:
        below = logits - logits.max(axis=-1, keepdims=True)
        own = np.take_along_axis(below, labels[:, None, None], axis=-1)[..., 0]
        return _Voice(below, own, float(np.log(weight / logits.shape[1])))

    if order == "logits":
        # One softmax, of the mean.
        return [voice(merged_logits(scores, stream_weights=stream_weights, order=order)[known][:, None], 1.0)]
    weights = normalised_weights(scores, stream_weights)
    K = len(scores.classes)
    return [
        voice(scores.logits[known][:, :, votes].astype(np.float64).reshape(len(known), -1, K), weights[stream])
        for stream, votes in scores.vote_slices().items()
        if weights[stream]
    ]


def _golden_section(cost: Callable[[float], float], low: float, high: float) -> float:
    """Where ``cost`` is lowest between ``low`` and ``high``, if it has one valley there."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = cost(left), cost(right)
    while high - low > 1e-8:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = cost(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = cost(right)
    return (low + high) / 2


def calibrate(scores: Scores, *, stream_weights: Mapping[str, float] | None = None) -> Temperature:
    """Fit a temperature on the scores of validation videos.

    Args:
        scores: with protocol, flips, part and split in their meta, as ``evaluate`` writes them.
        stream_weights: those that predictions will be made with; None: equal ones.

    Raises:
        CalibrationError: as :func:`fit_temperature`.
    """
    weights = normalised_weights(scores, stream_weights or dict.fromkeys(scores.streams, 1.0))
    value = fit_temperature(scores, stream_weights=weights)
    return Temperature(
        value=value,
        protocol=str(scores.meta.get("protocol")),
        merge=merge_order(scores),
        flips=bool(scores.meta.get("flips")),
        stream_weights=weights,
        part=str(scores.meta.get("part")),
        split=str(scores.meta.get("split")),
        before=figures(scores, stream_weights=weights),
        after=figures(tempered(scores, value), stream_weights=weights),
    )


__all__ = [
    "FEW_VIDEOS",
    "CalibrationError",
    "Temperature",
    "calibrate",
    "fit_temperature",
    "tempered",
]
