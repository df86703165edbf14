"""Late fusion of scores files as ``twostream fuse`` does it: several models, ours or others', or the streams of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twostream.clip import Scores, ScoresError
from twostream.errors import UsageError
from twostream.evaluation.metrics import Order, merge_order, one_stream, summary
from twostream.evaluation.score_fusion import Criterion, align, fuse, fuse_searched
from twostream.evaluation.score_tables import Kind, ScoreTable, logits_of, looks_like, matched, read_scores
from twostream.evaluation.temperature import CalibrationError, fit_temperature, tempered
from twostream.evaluation.video_names import AmbiguousNameError, match_videos

_ORDERS = {
    "softmax": "after the softmax (a mean of probabilities)",
    "logits": "before the softmax (a mean of logits)",
}


@dataclass(frozen=True)
class Fused:
    """The fused scores, the weight of each input, and the accuracy of each alone.

    ``outside`` says of each file that is not ours what its numbers were taken for.
    """

    scores: Scores
    weights: Mapping[str, float]
    alone: Mapping[str, float | None]
    outside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def how(self) -> str:
        """How the weights were chosen, in words."""
        by, on = self.scores.meta["weights_chosen_by"], self.scores.meta["weights_chosen_on"]
        return f"weights {by}" if not on else f"weights searched by {by} on {on}"

    @property
    def flatters(self) -> bool:
        """Whether the weights were chosen on videos that they are judged on."""
        return bool(self.scores.meta["weights_chosen_on_judged_videos"])

    def to_dict(self, file: str | None) -> dict[str, Any]:
        """The figures as ``fuse --json`` prints them; ``file`` is where the scores were written."""
        return {
            **summary(self.scores),
            "weights": dict(self.weights),
            "alone": dict(self.alone),
            "weights_chosen": self.how,
            "weights_chosen_on_judged_videos": self.flatters,
            "order": self.scores.meta["fusion_order"],
            "outside": {name: dict(told) for name, told in self.outside.items()},
            "scores_file": file,
        }

    def lines(self) -> list[str]:
        """The figures for the terminal."""
        figures = summary(self.scores)
        width = max(len(name) for name in self.weights)
        lines = [
            *(f"{name}: {_described(told)}" for name, told in self.outside.items()),
            *(
                f"  {name:<{width}}  weight {w:.3f}  top-1 {_share(self.alone[name])}"
                for name, w in self.weights.items()
            ),
            f"fused top-1 {_share(figures['top1'])}, mean class {_share(figures['mean_class'])}, "
            f"{figures['videos']} videos",
            f"{self.how}; merged {_ORDERS[self.scores.meta['fusion_order']]}",
        ]
        if self.flatters:
            lines.append(
                "WARNING: the weights were chosen on the videos they are judged on: these figures are no result, only "
                "what could at best be hoped for"
            )
        return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _described(told: Mapping[str, Any]) -> str:
    if told["detected"]:
        reason = {
            "probabilities": "rows lie in 0..1 and sum to 1",
            "logits": "rows are no distributions",
        }[told["kind"]]
        return f"taken for {told['kind']}: {reason} (--outside says otherwise)"
    scaled = "" if told["temperature"] is None else f", divided by {told['temperature']:.3g}, fitted on validation"
    return f"{told['kind']}{scaled}"


def fuse_files(
    files: Sequence[Path | str],
    *,
    weights: Sequence[float] | None = None,
    search: Sequence[Path | str] | None = None,
    by: Criterion = "log_loss",
    order: Order | None = None,
    allow_judged_videos: bool = False,
    outside: Kind | None = None,
    alone: bool = False,
) -> Fused:
    """Fuse scores files of one set of videos, or with a single file the streams in it.

    Files may be other people's (:mod:`twostream.evaluation.score_tables`). Their videos and classes are matched by
    name to the first of ours, where labels and groups come from; without one of ours, to the first that has labels.

    Args:
        files: of the same videos and classes.
        weights: one a file (or a stream); equal by default.
        search: validation scores of the same models in the same order, on which weights are searched.
        by: what the search looks for.
        order: what is averaged; by default probabilities of models, and for streams what their protocol says.
        allow_judged_videos: accept a search on the judged videos.
        outside: what the numbers of other people's files are; None: found by looking at them. Margins of a support
            vector machine have no scale: they are divided by the temperature that serves best on their validation
            file, or without a search are fit for a mean of logits only, where their weight is their scale.
        alone: whether a single file of one stream will do, to be handed on merged.

    Raises:
        ScoresError: files that cannot be read or do not fit each other.
        CalibrationError: the scale of margins cannot be found on their validation file.
        UsageError: numbers of weights or validation files that do not fit, or validation videos that are judged.
    """
    judged = _Inputs.read(files, outside, alone=alone)
    chosen = order or ("softmax" if len(files) > 1 else merge_order(judged.scores[0]))
    if outside is not None and not judged.tables:
        raise UsageError(
            "--outside says what the numbers of other people's files are, but all of these are twostream's"
        )
    if search is None:
        if outside == "margins" and chosen == "softmax":
            raise UsageError(
                "margins have no scale, so there are no probabilities to average: add --search with validation scores, "
                "on which their scale is found, or --order logits --weights, where the weight is the scale"
            )
        fused = fuse(judged.scores, weights, order=chosen)
    else:
        validation = _Inputs.read(search, outside, alone=alone)
        judged, validation = _on_one_scale(judged, validation)
        validation = _named_alike(validation, judged)
        fused = fuse_searched(
            judged.scores, validation.scores, by=by, order=chosen, allow_judged_videos=allow_judged_videos
        )
    # Aligned, as the true classes may stand in another file.
    accuracy = {name: summary(s)["top1"] for name, s in zip(judged.names, align(judged.scores), strict=True)}
    told = {judged.names[place]: judged.scores[place].meta["outside"] for place in judged.tables}
    return Fused(fused, dict(zip(judged.names, fused.meta["weights"], strict=True)), accuracy, told)


@dataclass(frozen=True)
class _Inputs:
    """What is fused: files, or the streams of the only one; ``tables`` are the places of those that are not ours."""

    names: list[str]
    scores: list[Scores]
    tables: tuple[int, ...] = ()
    ours: bool = True

    @classmethod
    def read(cls, files: Sequence[Path | str], outside: Kind | None, *, alone: bool) -> "_Inputs":
        several = [read_scores(file) for file in files]
        first = several[0]
        if len(several) == 1 and isinstance(first, Scores):
            if len(first.streams) < 2 and not alone:
                raise UsageError(
                    f"{files[0]} holds one stream ({first.streams[0]}); name the scores of a second model as well"
                )
            return cls(list(first.streams), [one_stream(first, stream) for stream in first.streams])
        if len(several) == 1:
            raise UsageError(f"{files[0]} is somebody else's and has nothing to be fused with; name scores of ours too")
        names = [str(file) for file in files]
        tables = tuple(place for place, found in enumerate(several) if isinstance(found, ScoreTable))
        ours = [place for place, found in enumerate(several) if isinstance(found, Scores)]
        labelled = [place for place, found in enumerate(several) if (found.labels >= 0).any()]
        if not ours and not labelled:
            raise UsageError(
                "nobody knows the true classes: name at least one scores file of twostream, or give one of the others "
                "a column label"
            )
        place = (ours or labelled)[0]
        reference = several[place]
        shared: dict[str, Any] = {}
        if isinstance(reference, Scores):
            shared = {key: reference.meta[key] for key in ("split", "part") if key in reference.meta}
        return cls(
            names,
            [
                found
                if isinstance(found, Scores)
                else _scores_of(
                    matched(found, reference.videos, reference.classes, where=names[place]), outside, shared
                )
                for found in several
            ],
            tables,
            bool(ours),
        )


def _scores_of(table: ScoreTable, outside: Kind | None, shared: Mapping[str, Any]) -> Scores:
    kind = outside or looks_like(table)
    told = {"file": str(table.path), "kind": kind, "detected": outside is None, "temperature": None}
    return Scores(
        logits=logits_of(table, kind)[:, None, None],
        labels=table.labels,
        videos=table.videos,
        classes=table.classes,
        votes=(("outside", 1),),
        meta={**shared, "model": table.path.stem, "outside": told},
    )


def _on_one_scale(judged: _Inputs, validation: _Inputs) -> tuple[_Inputs, _Inputs]:
    """Both, with each file's numbers taken for the same in both, and margins divided by what serves on validation."""
    if len(judged.scores) != len(validation.scores):
        # fuse_searched says so.
        return judged, validation
    own, other = list(judged.scores), list(validation.scores)
    for place in sorted({*judged.tables, *validation.tables}):
        kinds = [scores[place].meta.get("outside", {}).get("kind") for scores in (own, other)]
        pair = f"{judged.names[place]} and {validation.names[place]}"
        if None not in kinds and kinds[0] != kinds[1]:
            raise UsageError(f"{pair} are taken for {kinds[0]} and {kinds[1]}; say what they are with --outside")
        if "margins" in kinds:
            if None in kinds:
                raise UsageError(
                    f"{pair}: the scale of margins is found on validation margins of the same origin; name such"
                )
            temperature = _scale(align(validation.scores)[place], validation.names[place])
            own[place], other[place] = (_scaled(scores[place], temperature) for scores in (own, other))
        # Other people's files tell their models by names that say the part as well.
        other[place] = replace(other[place], meta={k: v for k, v in other[place].meta.items() if k != "model"})
    return replace(judged, scores=own), replace(validation, scores=other)


def _scale(margins: Scores, name: str) -> float:
    try:
        return fit_temperature(margins)
    except CalibrationError as error:
        raise CalibrationError(f"{name}: the margins have no scale ({error}); try --outside logits") from error


def _scaled(margins: Scores, temperature: float) -> Scores:
    told = {**margins.meta["outside"], "temperature": temperature}
    return replace(tempered(margins, temperature), meta={**margins.meta, "outside": told})


def _named_alike(validation: _Inputs, judged: _Inputs) -> _Inputs:
    """Validation under the judged names where it has the same videos, so that this is noticed whoever wrote them."""
    if validation.ours and judged.ours:
        return validation
    names = judged.scores[0].videos
    renamed = []
    for scores in validation.scores:
        try:
            places = match_videos(scores.videos, names)
        except AmbiguousNameError as error:
            raise ScoresError(f"validation: {error}") from error
        videos = [own if place is None else names[place] for own, place in zip(scores.videos, places, strict=True)]
        renamed.append(replace(scores, videos=tuple(videos)))
    return replace(validation, scores=renamed)
