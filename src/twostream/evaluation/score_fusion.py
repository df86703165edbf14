"""Late fusion of Scores files: several models' answers about the same videos become one, with weights.

Weights that were found by looking at the very videos they are judged on make any sum of models look good. So a search
takes scores of other videos (validation), :func:`fuse_searched` refuses the same ones unless told otherwise, and the
fused scores say in their meta where the weights came from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores, ScoresError
from twostream.errors import UsageError
from twostream.evaluation.metrics import (
    FloatArray,
    Order,
    log_probabilities,
    log_softmax,
    merge_order,
    merged_logits,
    one_stream,
)

Criterion = Literal["log_loss", "accuracy"]

# Grid steps of the search by number of inputs: 101 points for two, 231 for three; beyond that the finest step moved
# between two inputs at a time.
_STEPS = {2: 100, 3: 20}
_TRANSFERS = (0.2, 0.1, 0.05, 0.01)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Fusion weights and where they come from.

    Attributes:
        values: one per input, not negative, summing to 1.
        chosen_by: ``"given"``, ``"equal"``, or the criterion of a search.
        chosen_on: the videos that a search looked at, in words; empty for given weights.
        value: the criterion at these weights, on those videos; None for given weights.
        equal_value: the criterion at equal weights, to see what the search was worth.
        on_judged: whether the search saw videos that the result is judged on, which then flatters.
    """

    values: tuple[float, ...]
    chosen_by: str
    chosen_on: str = ""
    value: float | None = None
    equal_value: float | None = None
    on_judged: bool = False


def align(several: Sequence[Scores]) -> list[Scores]:
    """Put all scores into the first one's order of videos and classes.

    A true class or group that one file knows and another does not is taken over into all.

    Raises:
        ScoresError: other videos, other classes, or other true classes; the first few are named.
        UsageError: nothing was given.
    """
    if not several:
        raise UsageError("no scores were given; name at least one scores file")
    first = several[0]
    for number, scores in enumerate(several, 1):
        _refuse_duplicates(scores, number)
        _refuse_difference("classes", first.classes, scores.classes, number)
        _refuse_difference("videos", first.videos, scores.videos, number)
    aligned = []
    for scores in several:
        rows = _order(scores.videos, first.videos)
        columns = _order(scores.classes, first.classes)
        # Column c of the first is column columns[c] here, so a label l here is the place of l among `columns`.
        place = np.argsort(columns)
        labels = scores.labels[rows]
        labels = np.where(labels >= 0, place[np.maximum(labels, 0)], -1).astype(np.int64)
        aligned.append(
            replace(
                scores,
                logits=scores.logits[rows][..., columns],
                labels=labels,
                videos=first.videos,
                groups=tuple(scores.groups[row] for row in rows),
                classes=first.classes,
            )
        )
    labels = np.max([scores.labels for scores in aligned], axis=0)
    for number, scores in enumerate(aligned, 1):
        other = np.flatnonzero((scores.labels >= 0) & (scores.labels != labels))
        if len(other):
            n = other[0]
            raise ScoresError(
                f"scores disagree on the true class of {len(other)} videos, first {first.videos[n]}: "
                f"{first.classes[scores.labels[n]]} in file {number}, {first.classes[labels[n]]} in another"
            )
    groups = tuple(
        next((name for name in names if name), "") for names in zip(*(s.groups for s in aligned), strict=True)
    )
    return [replace(scores, labels=labels, groups=groups) for scores in aligned]


def fuse(
    several: Sequence[Scores], weights: Sequence[float] | Weights | None = None, *, order: Order = "softmax"
) -> Scores:
    """One set of scores from several: a weighted mean of probabilities (``"softmax"``) or of logits.

    Every input is first merged over its own views and votes in its own order. The mean of probabilities is the
    default because models differ in the scale of their logits. Without weights all count the same.

    Returns:
        Scores of one view and one vote, ``(("fused", 1),)``, whose softmax is the fused distribution; ``meta`` names
        the inputs, the weights and how they were chosen.

    Raises:
        ScoresError: the inputs do not speak of the same videos and classes.
        UsageError: as many weights as inputs are needed, finite, not negative, not all zero.
    """
    aligned = align(several)
    if weights is None:
        weights = Weights(values=(1 / len(aligned),) * len(aligned), chosen_by="equal")
    elif not isinstance(weights, Weights):
        weights = Weights(values=_checked(weights, len(aligned)), chosen_by="given")
    elif len(weights.values) != len(aligned):
        raise UsageError(f"{len(weights.values)} weights for {len(aligned)} scores; one weight each")
    fused = _mix(_parts(aligned, order), weights.values, order)
    shared = {
        key: aligned[0].meta[key]
        for key in ("protocol", "split", "part")
        if key in aligned[0].meta and all(s.meta.get(key) == aligned[0].meta[key] for s in aligned)
    }
    return replace(
        aligned[0],
        logits=fused[:, None, None, :].astype(np.float32),
        votes=(("fused", 1),),
        meta={
            **shared,
            "model": " + ".join(str(s.meta.get("model", "?")) for s in aligned),
            "fused": [dict(s.meta) for s in aligned],
            "weights": list(weights.values),
            "weights_chosen_by": weights.chosen_by,
            "weights_chosen_on": weights.chosen_on,
            "weights_chosen_on_judged_videos": weights.on_judged,
            "fusion_order": order,
        },
    )


def search_weights(validation: Sequence[Scores], *, by: Criterion = "log_loss", order: Order = "softmax") -> Weights:
    """The weights that serve best on ``validation``; among equals the nearest to equal weights.

    Two inputs are searched in steps of 0.01 and three in steps of 0.05, exhaustively; more by moving weight between
    two inputs at a time until nothing helps, which for the log loss, convex in the weights, ends near the best.

    Raises:
        ScoresError: the inputs do not speak of the same videos and classes.
        UsageError: fewer than two inputs, an unknown criterion, or no video of known class.
    """
    if len(validation) < 2:
        raise UsageError(f"a search for weights needs at least two scores, got {len(validation)}")
    aligned = align(validation)
    return _search(_parts(aligned, order), aligned[0], by=by, order=order)


def search_stream_weights(
    validation: Scores, *, by: Criterion = "log_loss", order: Order | None = None
) -> dict[str, float]:
    """The weights of the streams inside one model's scores that serve best on ``validation``.

    Hand the answer to :func:`twostream.evaluation.metrics.probabilities` with the scores of the test videos.

    Raises:
        UsageError: one stream only, an unknown criterion, or no video of known class.
    """
    order = merge_order(validation, order)
    if len(validation.streams) < 2:
        raise UsageError(f"there is nothing to weigh: these scores have one stream, {validation.streams[0]!r}")
    pieces = [one_stream(validation, stream) for stream in validation.streams]
    parts = [merged_logits(piece, order=order) for piece in pieces]
    found = _search(parts, validation, by=by, order=order)
    return dict(zip(validation.streams, found.values, strict=True))


def fuse_searched(
    judged: Sequence[Scores],
    validation: Sequence[Scores],
    *,
    by: Criterion = "log_loss",
    order: Order = "softmax",
    allow_judged_videos: bool = False,
) -> Scores:
    """Fuse ``judged`` with the weights that serve best on ``validation``: the same models, in the same order.

    Args:
        allow_judged_videos: accept validation scores of the judged videos. The result is then optimistic, and its
            meta says so.

    Raises:
        UsageError: validation and judged scores share videos, are not as many, or come from other models.
        ScoresError: as :func:`align`.
    """
    if len(judged) != len(validation):
        raise UsageError(
            f"{len(judged)} scores to fuse but {len(validation)} validation scores; give one for each, in one order"
        )
    for number, (own, other) in enumerate(zip(judged, validation, strict=True), 1):
        for key in ("run", "model", "model_sha256"):
            # A run was once named by its whole path.
            one, two = (str(scores.meta.get(key, "")).rstrip("/").rpartition("/")[2] for scores in (own, other))
            if one and two and one != two:
                raise UsageError(
                    f"scores number {number} are of {key} {one!r}, their validation scores of {two!r}; give both lists "
                    "in the same order"
                )
    shared = sorted(set(judged[0].videos) & set(validation[0].videos)) if judged else []
    if shared and not allow_judged_videos:
        raise UsageError(
            f"{len(shared)} of the videos that the weights would be chosen on are among the judged ones, first "
            f"{shared[0]}; give scores of validation videos, or ask for weights chosen on the judged videos by name"
        )
    weights = search_weights(validation, by=by, order=order)
    if shared:
        weights = replace(
            weights,
            on_judged=True,
            chosen_on=f"the judged videos themselves ({len(shared)} of {len(validation[0])}), so the figures flatter",
        )
    return fuse(judged, weights, order=order)


def _search(parts: list[FloatArray], truth: Scores, *, by: Criterion, order: Order) -> Weights:
    if by not in get_args(Criterion):
        raise UsageError(f"weights are searched by one of {list(get_args(Criterion))}, got {by!r}")
    known = np.flatnonzero(truth.labels >= 0)
    if not len(known):
        raise UsageError("weights cannot be searched: no video in the validation scores has a known class")
    parts = [part[known] for part in parts]
    labels = truth.labels[known]

    def cost(weights: tuple[float, ...]) -> float:
        mixed = log_softmax(_mix(parts, weights, order))
        if by == "log_loss":
            return float(-mixed[np.arange(len(labels)), labels].mean())
        return float((mixed.argmax(axis=1) != labels).mean())

    count = len(parts)
    equal = (1 / count,) * count
    if count in _STEPS:
        best = _nearest_best(_simplex(count, _STEPS[count]), equal, cost)
    else:
        best = _transfer(equal, cost)
    part = truth.meta.get("part")
    sign = 1.0 if by == "log_loss" else -1.0
    offset = 0.0 if by == "log_loss" else 1.0
    return Weights(
        values=best,
        chosen_by=by,
        chosen_on=f"{len(known)} videos" + (f" of part {part!r}" if part else ""),
        value=offset + sign * cost(best),
        equal_value=offset + sign * cost(equal),
    )


def _nearest_best(
    candidates: Iterator[tuple[float, ...]], equal: tuple[float, ...], cost: Callable[[tuple[float, ...]], float]
) -> tuple[float, ...]:
    best, best_cost = equal, cost(equal)
    for weights in candidates:
        value = cost(weights)
        if value < best_cost - 1e-12 or (
            value < best_cost + 1e-12 and _distance(weights, equal) < _distance(best, equal) - 1e-12
        ):
            best, best_cost = weights, value
    return best


def _transfer(equal: tuple[float, ...], cost: Callable[[tuple[float, ...]], float]) -> tuple[float, ...]:
    """Move weight between pairs, coarse steps first, as long as the cost falls; starting at equal breaks ties."""
    best, best_cost = equal, cost(equal)
    for step in _TRANSFERS:
        improved = True
        while improved:
            improved = False
            for giver, taker in product(range(len(equal)), repeat=2):
                moved = min(step, best[giver])
                if giver == taker or moved < 1e-9:
                    continue
                weights = list(best)
                weights[giver] -= moved
                weights[taker] += moved
                value = cost(tuple(weights))
                if value < best_cost - 1e-12:
                    best, best_cost, improved = tuple(weights), value, True
    return best


def _simplex(count: int, steps: int) -> Iterator[tuple[float, ...]]:
    for head in product(range(steps + 1), repeat=count - 1):
        if sum(head) <= steps:
            yield tuple(part / steps for part in (*head, steps - sum(head)))


def _distance(weights: tuple[float, ...], other: tuple[float, ...]) -> float:
    return float(np.square(np.subtract(weights, other)).sum())


def _mix(parts: list[FloatArray], weights: Sequence[float], order: Order) -> FloatArray:
    """Weighted mean of logits, or the logarithm of the weighted mean of probabilities; (N, K)."""
    used = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight > 0]
    if order == "logits":
        return np.asarray(sum(weight * part for part, weight in used), dtype=np.float64)
    return np.asarray(np.logaddexp.reduce([part + np.log(weight) for part, weight in used], axis=0), dtype=np.float64)


def _parts(aligned: list[Scores], order: Order) -> list[FloatArray]:
    """Each input's own answer, (N, K): log probabilities, or logits on the model's own scale."""
    return [log_probabilities(scores) if order == "softmax" else merged_logits(scores) for scores in aligned]


def _checked(weights: Sequence[float], count: int) -> tuple[float, ...]:
    if len(weights) != count:
        raise UsageError(f"{len(weights)} weights for {count} scores; one weight each")
    total = float(np.sum(weights))
    if not np.isfinite(total) or min(weights) < 0 or total <= 0:
        raise UsageError(f"weights are finite, not negative and not all zero, got {list(weights)}")
    return tuple(float(weight) / total for weight in weights)


def _order(names: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.int64]:
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name] for name in wanted], dtype=np.int64)


def _refuse_duplicates(scores: Scores, number: int) -> None:
    for what, names in (("video", scores.videos), ("class", scores.classes)):
        if len(set(names)) != len(names):
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            raise ScoresError(f"scores number {number} name the {what} {twice!r} more than once")


def _refuse_difference(what: str, first: Sequence[str], other: Sequence[str], number: int) -> None:
    def few(names: set[str]) -> str:
        return ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")

    lacking, extra = set(first) - set(other), set(other) - set(first)
    if lacking or extra:
        said = [f"lack {len(lacking)} ({few(lacking)})"] if lacking else []
        said += [f"have {len(extra)} more ({few(extra)})"] if extra else []
        raise ScoresError(f"scores number {number} speak of other {what} than the first: they " + " and ".join(said))
