"""A run folder: what lies in it, and how its parts are read again.

======================  ===============================================================
config.yaml             the resolved configuration
data.json               classes and items of every part, as they were trained and held out
model/                  the shared model folder (model.safetensors, config.json)
checkpoints/last.ckpt   the trainer's state, from which the same command continues
metrics.csv             a row an epoch
scores/*.npz            Scores files by part, protocol and precision
report.html             the page
======================  ===============================================================
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from twostream.checkpoint import LoadedModel, load_model
from twostream.clip import Scores
from twostream.data.annotations import Annotations, load_annotations
from twostream.data.items import VideoItem, first_few
from twostream.data.leave_one_out import split_name
from twostream.data.preparation import prepare
from twostream.errors import TwostreamError
from twostream.evaluation.calibration import figures
from twostream.evaluation.evaluate import Precision, check_precision, evaluate
from twostream.evaluation.metrics import FULL_PRECISION, judged_by, one_stream, summary
from twostream.evaluation.protocols import get_protocol, view_dataset
from twostream.evaluation.statistics import accuracy_interval
from twostream.evaluation.temperature import Temperature, tempered
from twostream.flow.store import FlowSettings, FlowStore

Progress = Callable[[int, int, str], None]


class RunError(TwostreamError):
    """A folder that is not a run, or a run that does not fit what is asked of it."""


@dataclass(frozen=True)
class RunFolder:
    """The paths and readers of one run."""

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """A run that has been started.

        Raises:
            RunError: no folder, or no run in it.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise RunError(f"{path}: no such run folder; make one with: twostream train --data DATA --out {path}")
        if not run.config_file.is_file():
            raise RunError(f"{path}: not a run folder (no config.yaml in it); twostream train --out makes one")
        return run

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def data_file(self) -> Path:
        """Classes and items of every part."""
        return self.path / "data.json"

    @property
    def model_folder(self) -> Path:
        """The shared model folder."""
        return self.path / "model"

    @property
    def checkpoint_file(self) -> Path:
        """The trainer's state."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def metrics_file(self) -> Path:
        """A row an epoch."""
        return self.path / "metrics.csv"

    def scores_file(self, part: str, protocol: str, precision: str = FULL_PRECISION) -> Path:
        """Where the scores of a part under a protocol are kept; those of less than full precision have their own."""
        made = protocol if precision == FULL_PRECISION else f"{protocol}-{precision}"
        return self.path / "scores" / f"{part}-{made}.npz"

    @property
    def finished(self) -> bool:
        """Whether training reached its end: the model folder is written last."""
        return (self.model_folder / "config.json").is_file()

    def config(self) -> Mapping[str, Any]:
        """The resolved configuration as plain values."""
        try:
            values = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{self.config_file}: cannot be read ({error})") from error
        if not isinstance(values, dict):
            raise RunError(f"{self.config_file}: not a configuration")
        return values

    def annotations(self) -> Annotations:
        """The data set as this run saw it."""
        try:
            return Annotations.from_dict(json.loads(self.data_file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.data_file}: cannot be read ({error})") from error

    def model(self) -> LoadedModel:
        """The trained model."""
        if not self.finished:
            raise RunError(f"{self.path}: training has not finished; the same `twostream train` command continues it")
        return load_model(self.model_folder)

    def store(self) -> FlowStore:
        """The flow store that training read; where it has gone, one to be filled anew with the same settings."""
        settings = FlowSettings.from_dict(self.model().config["provenance"]["flow"])
        return FlowStore(Path(self.config()["flow"]["store"]), settings)


@dataclass(frozen=True)
class Evaluation:
    """The scores of a run on a part of its data, where they were written, and what could not be judged.

    ``temperature`` is the model's for answers that are made like these; None where none was fitted.
    """

    scores: Scores
    file: Path
    unreadable: Mapping[str, str]
    missing: tuple[str, ...]
    temperature: Temperature | None = None

    def to_dict(self) -> dict[str, Any]:
        """The figures as ``evaluate --json`` prints them."""
        return {
            **summary(self.scores),
            "precision": self.scores.meta["precision"],
            "scores_file": str(self.file),
            "streams": {stream: summary(one_stream(self.scores, stream))["top1"] for stream in self.scores.streams},
            "calibration": self._calibration(),
            "unreadable": dict(self.unreadable),
            "missing": list(self.missing),
        }

    def _calibration(self) -> dict[str, Any] | None:
        """How good the probabilities are, as they come and by the temperature; None without a video to judge."""
        if not (self.scores.labels >= 0).any():
            return None
        found = self.temperature
        return {
            "raw": figures(self.scores).to_dict(),
            "temperature": found.value if found else None,
            "calibrated": figures(tempered(self.scores, found.value)).to_dict() if found else None,
            "fitted_on": f"{found.part}, split {found.split}" if found else None,
            "fitted_on_these_videos": bool(found and self._is_of(found)),
        }

    def _is_of(self, found: Temperature) -> bool:
        return (self.scores.meta["part"], self.scores.meta["split"]) == (found.part, found.split)

    def _calibration_line(self) -> str:
        told = self._calibration()
        if told is None:
            return "  no video of known class, so nothing is known of how sure the answers may be"
        line = f"  expected calibration error {told['raw']['ece']:.3f}, log loss {told['raw']['nll']:.3f}"
        if told["calibrated"] is None:
            return f"{line} (no temperature for answers made like these: twostream calibrate)"
        after = f"{told['calibrated']['ece']:.3f} and {told['calibrated']['nll']:.3f}"
        flatters = ", which was fitted on these very videos" if told["fitted_on_these_videos"] else ""
        return f"{line}; at the model's temperature {told['temperature']:.3g} {after}{flatters}"

    def lines(self) -> list[str]:
        """The figures for the terminal."""
        figures = summary(self.scores)
        interval = accuracy_interval(self.scores)
        lines = [
            f"{judged_by(self.scores)} on {figures['videos']} {self.scores.meta['part']} videos, "
            f"split {figures['split']}",
            f"  top-1 {figures['top1']:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"
            f"   top-5 {figures['top5']:.3f}   mean class {figures['mean_class']:.3f}",
        ]
        if len(self.scores.streams) > 1:
            alone = [
                f"{stream} {summary(one_stream(self.scores, stream))['top1']:.3f}" for stream in self.scores.streams
            ]
            lines.append("  each stream alone: " + ", ".join(alone))
        lines.append(self._calibration_line())
        width = max(len(name) for name in figures["per_class"])
        for name, value in figures["per_class"].items():
            lines.append(f"  {name:<{width}}  " + ("no videos" if value is None else f"{value:.3f}"))
        lines.append(f"scores: {self.file}")
        lines += [f"could not be read: {reason}" for reason in self.unreadable.values()]
        if self.missing:
            lines.append(f"missing: {len(self.missing)} listed videos: {first_few([*self.missing])}")
        return lines


def evaluate_run(
    run: RunFolder,
    *,
    part: str = "test",
    split: str | None = None,
    protocol: str = "25-step",
    stream_weights: Mapping[str, float] | None = None,
    device: str = "auto",
    precision: Precision = "32-true",
    workers: int = 0,
    flow_workers: int = 1,
    batch_steps: int = 25,
    say: Callable[[str], None] = print,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge a run's model on a part of its data and keep the scores in the run folder.

    Flow that is not stored yet is computed on the way. Mirror images are left out of the protocol where the run
    was told of classes that a mirror changes.

    Args:
        run: a finished run.
        part: train, val or test.
        split: another split of the same data than the run's; its test videos must not be the run's training videos.
        protocol: a name of ``evaluation.protocols.PROTOCOLS``.
        stream_weights: weights of the streams' votes; equal by default.
        device, precision, workers, batch_steps: see :func:`evaluation.evaluate.evaluate`.
        flow_workers: processes that compute flow.
        say: takes a line for the user.
        progress: called with (done, total, what).

    Raises:
        RunError: the part is empty, or another split's videos were trained on.
        UsageError: an unknown protocol, device or precision.
    """
    check_precision(precision)
    loaded, values = run.model(), run.config()
    annotations = run.annotations()
    own_split = annotations.split
    items: Sequence[VideoItem] = annotations.parts[part]
    if split is not None and split_name(split) != own_split:
        annotations = load_annotations(
            values["data"],
            split=split,
            videos=Path(values["videos"]) if values["videos"] else None,
            allow_missing=values["allow_missing"],
            allow_leak=values["allow_leak"],
            seed=values["seed"],
        )
        items = annotations.parts[part]
        learned = {item.name for item in run.annotations().parts["train"]}
        if known := [item.name for item in items if item.name in learned]:
            raise RunError(
                f"{len(known)} of the {len(items)} {part} videos of split {split} were training videos of {run.path}, "
                f"a run on split {own_split}: {first_few(known)}. Train a run on split {split} instead"
            )
    if not items:
        raise RunError(f"{run.path}: its data has no {part} videos")
    chosen = get_protocol(protocol)
    if values["no_flip"]:
        chosen = replace(chosen, flips=False)
    store = run.store()
    readable = prepare(
        items,
        loaded.model.spec,
        store,
        workers=flow_workers,
        short_clips=values["short_clips"],
        unreadable_share=1.0,
        say=say,
        progress=progress,
    )
    views = view_dataset(chosen, readable.items, store, loaded.model.spec, short_clips=values["short_clips"])
    meta = {
        "protocol": protocol,
        "merge": chosen.merge,
        "flips": chosen.flips,
        "split": str(annotations.split),
        "part": part,
        "model": loaded.model.name,
        "model_sha256": loaded.config["weights"]["sha256"],
        "seed": values["seed"],
        # Not where it lies: the same run elsewhere has the same scores, to the byte.
        "run": run.path.resolve().name,
    }
    if stream_weights is not None:
        meta["stream_weights"] = dict(stream_weights)
    scores = evaluate(
        loaded.model,
        views,
        classes=loaded.classes,
        device=device,
        batch_steps=batch_steps,
        workers=workers,
        precision=precision,
        meta=meta,
        progress=progress,
    )
    other = "" if annotations.split == own_split else annotations.split
    name = f"{part}{'' if other.isdecimal() or not other else '-'}{other}"
    file = run.scores_file(name, protocol, precision)
    scores.save(file)
    return Evaluation(scores, file, readable.unreadable, annotations.missing, temperature_for(loaded, scores))


def temperature_for(loaded: LoadedModel, scores: Scores) -> Temperature | None:
    """The model's temperature for answers that are made and merged as ``scores``; None where it has none.

    Raises:
        CalibrationError: what the model folder says of it cannot be read.
    """
    found = loaded.calibration.get(str(scores.meta.get("protocol")))
    if found is None:
        return None
    temperature = Temperature.from_dict(found)
    return temperature if temperature.fits(scores) else None
