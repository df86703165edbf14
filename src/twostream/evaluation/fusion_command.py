"""Late fusion of scores files as ``twostream fuse`` does it: several models, or the streams of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twostream.clip import Scores
from twostream.errors import UsageError
from twostream.evaluation.metrics import Order, merge_order, one_stream, summary
from twostream.evaluation.score_fusion import Criterion, fuse, fuse_searched


@dataclass(frozen=True)
class Fused:
    """The fused scores, the weight of each input, and the accuracy of each alone."""

    scores: Scores
    weights: Mapping[str, float]
    alone: Mapping[str, float]

    @property
    def how(self) -> str:
        """How the weights were chosen, in words."""
        by, on = self.scores.meta["weights_chosen_by"], self.scores.meta["weights_chosen_on"]
        return f"weights {by}" if not on else f"weights searched by {by} on {on}"

    def to_dict(self, file: str | None) -> dict[str, Any]:
        """The figures as ``fuse --json`` prints them; ``file`` is where the scores were written."""
        return {
            **summary(self.scores),
            "weights": dict(self.weights),
            "alone": dict(self.alone),
            "weights_chosen": self.how,
            "scores_file": file,
        }

    def lines(self) -> list[str]:
        """The figures for the terminal."""
        figures = summary(self.scores)
        width = max(len(name) for name in self.weights)
        return [
            *(f"  {name:<{width}}  weight {w:.3f}  top-1 {self.alone[name]:.3f}" for name, w in self.weights.items()),
            f"fused top-1 {figures['top1']:.3f}, mean class {figures['mean_class']:.3f}, {figures['videos']} videos",
            self.how,
        ]


def fuse_files(
    files: Sequence[Path | str],
    *,
    weights: Sequence[float] | None = None,
    search: Sequence[Path | str] | None = None,
    by: Criterion = "log_loss",
    order: Order | None = None,
    allow_judged_videos: bool = False,
) -> Fused:
    """Fuse scores files of one set of videos, or with a single file the streams in it.

    Args:
        files: of the same videos and classes.
        weights: one a file (or a stream); equal by default.
        search: validation scores of the same models in the same order, on which weights are searched.
        by: what the search looks for.
        order: what is averaged; by default probabilities of models, and for streams what their protocol says.
        allow_judged_videos: accept a search on the judged videos.

    Raises:
        ScoresError: files that do not fit each other.
        UsageError: numbers of weights or validation files that do not fit, or validation videos that are judged.
    """
    names, judged = _parts(files)
    chosen = order or ("softmax" if len(files) > 1 else merge_order(judged[0]))
    if search is not None:
        _, validation = _parts(search)
        fused = fuse_searched(judged, validation, by=by, order=chosen, allow_judged_videos=allow_judged_videos)
    else:
        fused = fuse(judged, weights, order=chosen)
    alone = {name: float(summary(scores)["top1"]) for name, scores in zip(names, judged, strict=True)}
    return Fused(fused, dict(zip(names, fused.meta["weights"], strict=True)), alone)


def _parts(files: Sequence[Path | str]) -> tuple[list[str], list[Scores]]:
    """What is fused: the files, or the streams of the only one."""
    several = [Scores.load(file) for file in files]
    if len(several) > 1:
        return [str(file) for file in files], several
    scores = several[0]
    if len(scores.streams) < 2:
        raise UsageError(
            f"{files[0]} holds one stream ({scores.streams[0]}); name the scores of a second model as well"
        )
    return list(scores.streams), [one_stream(scores, stream) for stream in scores.streams]
