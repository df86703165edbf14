"""Figures of several folds as one: every video of theirs counts once, however many stand in a fold."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any


def pooled(figures: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """Top-1 and mean class accuracy over the videos of all folds together.

    Args:
        figures: of each fold, as ``evaluation.metrics.summary`` gives them. Those without counts (chance) are the same
            in all folds, and count alike.
    """
    judged = [fold for fold in figures if fold.get("top1") is not None]
    of_class: dict[str, list[tuple[float, int]]] = {}
    for fold in judged:
        for name, count in fold.get("per_class_videos", {}).items():
            if count:
                of_class.setdefault(name, []).append((fold["per_class"][name], count))
    # Of what has no counts, one fold tells all.
    classes = [_mean(pairs) for pairs in of_class.values()] or [fold["mean_class"] for fold in judged[:1]]
    return {
        "top1": _mean([(fold["top1"], fold.get("videos", 1)) for fold in judged]) if judged else None,
        "mean_class": fmean(classes) if judged else None,
    }


def _mean(pairs: list[tuple[float, int]]) -> float:
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)
