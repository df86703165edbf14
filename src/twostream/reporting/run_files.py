"""Reading a run folder for a page: whatever is there, and in words what is not. Nothing missing is an error here."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from twostream.clip import Scores, ScoresError
from twostream.errors import TwostreamError, UsageError
from twostream.evaluation.metrics import FULL_PRECISION, merge_order, normalised_weights

# Which scores head the page where a run has several: the test part, by the most thorough protocol, in full
# precision where there are both.
_PARTS = ("test", "val", "train")
_PROTOCOLS = ("25x10", "10x3", "25-step", "released_code", "10-step", "1-view")


class ReportError(TwostreamError):
    """A folder that is no run, so that there is nothing to report."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled video as ``data.json`` names it."""

    name: str
    video: str
    path: Path
    label: int
    group: str
    start: float | None
    end: float | None


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds.

    Attributes:
        path, name: the folder, and what the page calls it.
        config: the resolved configuration; empty where there is none.
        model: ``model/config.json``; empty where training has not finished.
        classes: names by class index.
        parts: part ("train", "val", "test") to its samples.
        data_facts: the other entries of ``data.json``.
        history: a metric's name to its (epoch, value) pairs.
        scores: file name to scores, the one that heads the page first.
        problems: what is missing or unreadable, a sentence each.
    """

    path: Path
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    parts: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    data_facts: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, list[tuple[float, float]]] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def headline(self) -> Scores | None:
        """The scores that head the page; None before the first evaluation."""
        return next(iter(self.scores.values()), None)

    @property
    def samples(self) -> dict[str, Sample]:
        """All samples of all parts by name."""
        return {sample.name: sample for samples in self.parts.values() for sample in samples}

    @property
    def model_name(self) -> str:
        """The model's registered name, as far as any file tells it."""
        scored = self.headline.meta.get("model") if self.headline else None
        return str(self.model.get("model") or self.config.get("model") or scored or "unknown model")


def entries(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The entries under ``key``; none where the file has something else there, or nothing."""
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def read_run(path: Path, name: str) -> RunFiles:
    """Read what is in the run folder ``path``.

    Raises:
        ReportError: no folder there, or one without any file of a run.
    """
    if not path.is_dir():
        raise ReportError(f"{path}: no such run folder; make one with: twostream train --data DATA --out {path}")
    if not any((path / part).exists() for part in ("config.yaml", "data.json", "metrics.csv", "scores", "model")):
        raise ReportError(f"{path}: not a run folder (no config.yaml, data.json, metrics.csv, scores or model in it)")
    problems: list[str] = []
    config = _mapping(path / "config.yaml", problems, "The configuration")
    model = _mapping(path / "model" / "config.json", problems, "The trained model's description")
    data = _mapping(path / "data.json", problems, "The list of videos")
    classes, parts = _data(data, path / "data.json", problems)
    scores = _scores(path, problems)
    first = next(iter(scores.values()), None)
    if not classes:
        classes = first.classes if first else tuple(str(entry) for entry in model.get("classes") or ())
    return RunFiles(
        path=path,
        name=name,
        config=config,
        model=model,
        classes=classes,
        parts=parts,
        data_facts={key: value for key, value in data.items() if key not in ("classes", "parts")},
        history=_history(path / "metrics.csv", problems),
        scores=scores,
        problems=tuple(problems),
    )


def _mapping(path: Path, problems: list[str], what: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        problems.append(f"{what} is not there ({path.name}).")
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{what} cannot be read ({path.name}: {_first_line(error)}).")
        return {}
    if not isinstance(values, dict):
        problems.append(f"{what} cannot be read ({path.name} holds no entries).")
        return {}
    return values


def _data(
    data: Mapping[str, Any], path: Path, problems: list[str]
) -> tuple[tuple[str, ...], dict[str, tuple[Sample, ...]]]:
    if not data:
        return (), {}
    try:
        classes = tuple(str(name) for name in data["classes"])
        parts = {
            str(part): tuple(_sample(entry, len(classes)) for entry in listed) for part, listed in data["parts"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"The list of videos cannot be read ({path.name}: {_first_line(error)}).")
        return (), {}
    return classes, parts


def _sample(entry: Mapping[str, Any], classes: int) -> Sample:
    label = int(entry["label"])
    if not -1 <= label < classes:
        raise ValueError(f"label {label} of {entry['video']} is outside the {classes} classes")
    start, end = entry.get("start"), entry.get("end")
    # The names that scores know stretches of recordings by; see VideoItem.name.
    stretch = "" if start is None and end is None else f"@{_seconds(start)}-{_seconds(end)}"
    return Sample(
        name=f"{entry['video']}{stretch}",
        video=str(entry["video"]),
        path=Path(str(entry["path"])),
        label=label,
        group=str(entry.get("group") or ""),
        start=None if start is None else float(start),
        end=None if end is None else float(end),
    )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def _history(path: Path, problems: list[str]) -> dict[str, list[tuple[float, float]]]:
    """Every numeric column against the epoch; rows may hold some columns each, as Lightning's logger writes them."""
    history: dict[str, list[tuple[float, float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file)):
                epoch = _number(row.get("epoch"))
                for column, text in row.items():
                    value = _number(text)
                    if column and column not in ("epoch", "step") and value is not None:
                        history.setdefault(column, []).append((number if epoch is None else epoch, value))
    except FileNotFoundError:
        problems.append(f"There are no training curves ({path.name} is not there).")
    except (OSError, ValueError, csv.Error) as error:
        problems.append(f"The training curves cannot be read ({path.name}: {_first_line(error)}).")
        return {}
    return history


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _scores(path: Path, problems: list[str]) -> dict[str, Scores]:
    found: dict[str, Scores] = {}
    for file in sorted((path / "scores").glob("*.npz")):
        try:
            scores = Scores.load(file)
            merge_order(scores)
            normalised_weights(scores)
        except (ScoresError, UsageError) as error:
            problems.append(f"Scores were left out: {file.name}: {str(error).removeprefix(f'{file}: ')}.")
            continue
        if len(scores):
            found[file.name] = scores
        else:
            problems.append(f"Scores were left out: {file.name} holds no videos.")
    if not found:
        problems.append(f"There are no scores yet. Make them with: twostream evaluate {path}")

    def place(name: str) -> tuple[int, int, bool, str]:
        meta = found[name].meta
        half = meta.get("precision", FULL_PRECISION) != FULL_PRECISION
        return _place(meta.get("part"), _PARTS), _place(meta.get("protocol"), _PROTOCOLS), half, name

    return {name: found[name] for name in sorted(found, key=place)}


def _place(value: Any, order: tuple[str, ...]) -> int:
    return order.index(value) if value in order else len(order)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
