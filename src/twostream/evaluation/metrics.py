"""Functions of Scores: how votes and views become one answer per video, and how often that answer is right.

Ties are broken by class index, the lower one first, so that the same scores give the same figures everywhere. Videos
whose true class is unknown (label -1) are left out of every figure and counted in :func:`summary`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores
from twostream.errors import UsageError

Order = Literal["logits", "softmax"]

FULL_PRECISION = "32-true"
"""The precision that scores have unless they were asked for with another, and that temperatures are fitted to."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def merge_order(scores: Scores, order: Order | None = None) -> Order:
    """What is averaged, ``"logits"`` (softmax last) or ``"softmax"`` (softmax first): ``order``, else the protocol's.

    Without either it is ``"logits"``, the papers' choice.

    Raises:
        UsageError: an order of another name.
    """
    chosen = scores.meta.get("merge", "logits") if order is None else order
    if chosen not in get_args(Order):
        raise UsageError(f"the merge of views and votes is one of {list(get_args(Order))}, got {chosen!r}")
    return cast(Order, chosen)


def judged_by(scores: Scores) -> str:
    """How scores were made, for people: the protocol, and the precision where it is not the full one."""
    precision = scores.meta.get("precision", FULL_PRECISION)
    return f"{scores.meta.get('protocol', 'unknown')}{'' if precision == FULL_PRECISION else f' in {precision}'}"


def normalised_weights(scores: Scores, stream_weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """One weight per stream, summing to 1: ``stream_weights``, else those in the scores' meta, else equal ones.

    Raises:
        UsageError: a stream that the scores do not have, a negative or infinite weight, or nothing but zeros.
    """
    given = scores.meta.get("stream_weights") if stream_weights is None else stream_weights
    if given is None:
        given = dict.fromkeys(scores.streams, 1.0)
    if unknown := sorted(set(given) - set(scores.streams)):
        raise UsageError(f"weights for streams {unknown}, but these scores have {list(scores.streams)}")
    weights = {stream: float(given.get(stream, 0.0)) for stream in scores.streams}
    total = sum(weights.values())
    if not np.isfinite(total) or total <= 0 or min(weights.values()) < 0:
        raise UsageError(f"stream weights are finite, not negative and not all zero, got {dict(given)}")
    return {stream: weight / total for stream, weight in weights.items()}


def one_stream(scores: Scores, stream: str) -> Scores:
    """The scores that ``stream`` alone would have given.

    Raises:
        UsageError: no such stream.
    """
    if stream not in scores.streams:
        raise UsageError(f"no stream {stream!r}; these scores have {list(scores.streams)}")
    votes = scores.vote_slices()[stream]
    meta = {key: value for key, value in scores.meta.items() if key != "stream_weights"}
    return replace(scores, logits=scores.logits[:, :, votes], votes=((stream, len(votes)),), meta=meta)


def merged_logits(
    scores: Scores, *, stream_weights: Mapping[str, float] | None = None, order: Order | None = None
) -> FloatArray:
    """Values (N, K) whose softmax is :func:`probabilities`: mean logits, or for ``"softmax"`` log mean softmaxes."""
    order = merge_order(scores, order)
    weights = normalised_weights(scores, stream_weights)
    logits = scores.logits.astype(np.float64)
    parts = []
    for stream, votes in scores.vote_slices().items():
        if not weights[stream]:
            continue
        own = logits[:, :, votes]  # (N, R, V', K)
        own = own.reshape(own.shape[0], own.shape[1] * own.shape[2], own.shape[3])
        if order == "logits":
            parts.append(weights[stream] * own.mean(axis=1))
        else:
            # In logarithms, so that a probability too small for a float keeps its place in the ranking.
            mean = np.logaddexp.reduce(log_softmax(own), axis=1) - np.log(own.shape[1])
            parts.append(np.log(weights[stream]) + mean)
    merged = np.sum(parts, axis=0) if order == "logits" else np.logaddexp.reduce(parts, axis=0)
    return cast(FloatArray, merged)


def log_probabilities(
    scores: Scores, *, stream_weights: Mapping[str, float] | None = None, order: Order | None = None
) -> FloatArray:
    """The logarithm of :func:`probabilities`, (N, K)."""
    return log_softmax(merged_logits(scores, stream_weights=stream_weights, order=order))


def probabilities(
    scores: Scores, *, stream_weights: Mapping[str, float] | None = None, order: Order | None = None
) -> FloatArray:
    """One distribution over the classes per video, (N, K).

    Each stream is the mean over its votes and all views; the streams are then averaged by weight, so that a stream
    with many votes counts no more than one with few. ``order`` says whether logits or softmaxes are averaged; it and
    ``stream_weights`` default to what the scores' meta says (``merge``, ``stream_weights``), else logits, equally.
    """
    return cast(FloatArray, np.exp(log_probabilities(scores, stream_weights=stream_weights, order=order)))


def log_softmax(logits: FloatArray) -> FloatArray:
    """Over the last axis, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return cast(FloatArray, shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def ranks(scores: Scores, **merge: Any) -> IntArray:
    """The place of the true class in each video's answer, (N,), 0 the first; -1 where the truth is unknown."""
    values = log_probabilities(scores, **merge)
    known = np.maximum(scores.labels, 0)
    own = values[np.arange(len(scores)), known][:, None]
    ahead = (values > own) | ((values == own) & (np.arange(values.shape[1]) < known[:, None]))
    return np.where(scores.labels >= 0, ahead.sum(axis=1), -1).astype(np.int64)


def predictions(scores: Scores, **merge: Any) -> IntArray:
    """The most probable class of each video, (N,). ``merge``: as :func:`probabilities` takes it."""
    return cast(IntArray, log_probabilities(scores, **merge).argmax(axis=1).astype(np.int64))


def right(scores: Scores, **merge: Any) -> BoolArray:
    """Whether each video of known class was recognised, (N,); False where the truth is unknown."""
    return cast(BoolArray, ranks(scores, **merge) == 0)


def top_k_accuracy(scores: Scores, k: int = 1, **merge: Any) -> float:
    """The share of videos whose true class is among the first ``k``, clipped to K; NaN without a video to judge.

    Raises:
        UsageError: ``k`` below 1.
    """
    if k < 1:
        raise UsageError(f"top-k accuracy needs k >= 1, got {k}")
    place = ranks(scores, **merge)
    place = place[place >= 0]
    return float((place < k).mean()) if len(place) else float("nan")


def log_loss(scores: Scores, **merge: Any) -> float:
    """The mean negative log probability of the true class, in nats; NaN without a video to judge."""
    known = np.flatnonzero(scores.labels >= 0)
    if not len(known):
        return float("nan")
    return float(-log_probabilities(scores, **merge)[known, scores.labels[known]].mean())


def confusion_matrix(scores: Scores, **merge: Any) -> IntArray:
    """Counts (K, K): row the true class, column the answer."""
    K = len(scores.classes)
    known = scores.labels >= 0
    cells = scores.labels[known] * K + predictions(scores, **merge)[known]
    return np.bincount(cells, minlength=K * K).reshape(K, K).astype(np.int64)


def per_class_accuracy(scores: Scores, **merge: Any) -> FloatArray:
    """The share of each class's videos that were recognised, (K,); NaN for a class without videos."""
    counts = confusion_matrix(scores, **merge)
    total = counts.sum(axis=1)
    return np.where(total > 0, np.diag(counts) / np.maximum(total, 1), np.nan)


def mean_class_accuracy(scores: Scores, **merge: Any) -> float:
    """The mean of :func:`per_class_accuracy` over the classes that have videos; NaN where none has."""
    accuracies = per_class_accuracy(scores, **merge)
    seen = accuracies[~np.isnan(accuracies)]
    return float(seen.mean()) if len(seen) else float("nan")


def summary(
    scores: Scores, *, stream_weights: Mapping[str, float] | None = None, order: Order | None = None
) -> dict[str, Any]:
    """The figures of ``twostream evaluate --json``; None stands where there was nothing to judge.

    ``videos`` counts the judged ones and ``unlabelled`` those left out because their true class is unknown.
    """
    merge: dict[str, Any] = {"stream_weights": stream_weights, "order": order}
    of_class = np.bincount(scores.labels[scores.labels >= 0], minlength=len(scores.classes))
    judged = int(of_class.sum())
    return {
        "protocol": scores.meta.get("protocol"),
        "split": scores.meta.get("split"),
        "videos": judged,
        "unlabelled": len(scores) - judged,
        "top1": _or_none(top_k_accuracy(scores, 1, **merge)),
        "top5": _or_none(top_k_accuracy(scores, 5, **merge)),
        "mean_class": _or_none(mean_class_accuracy(scores, **merge)),
        "per_class": {
            name: _or_none(value)
            for name, value in zip(scores.classes, per_class_accuracy(scores, **merge).tolist(), strict=True)
        },
        "per_class_videos": dict(zip(scores.classes, of_class.tolist(), strict=True)),
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
