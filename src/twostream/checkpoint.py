"""The model folder that users pass around: ``model.safetensors`` and ``config.json``; saved whole, loaded strictly."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from twostream.clip import InputSpec
from twostream.errors import TwostreamError
from twostream.files import atomic_write, write_text
from twostream.models.contract import VideoModel
from twostream.models.registry import create_model
from twostream.version import __version__
from twostream.weights.strict import mismatches

FORMAT = "twostream-model-1"
_TENSORS, _CONFIG = "model.safetensors", "config.json"


class CheckpointError(TwostreamError):
    """A model folder that is missing, damaged, half written, or belongs to another network."""


@dataclass(frozen=True)
class LoadedModel:
    """A network read from its folder, in evaluation mode on the CPU.

    Attributes:
        model: ready to be called.
        classes: the K names, in the order of the logits.
        config: all of ``config.json``, ``provenance`` among it.
        folder: where it was found.
    """

    model: VideoModel
    classes: tuple[str, ...]
    config: Mapping[str, Any]
    folder: Path

    @property
    def calibration(self) -> Mapping[str, Any]:
        """What :func:`save_calibration` wrote about these weights, by protocol; empty where nothing was."""
        found = self.config.get("calibration", {})
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.folder / _CONFIG}: calibration is no table of protocols; calibrate it anew")
        return found


def save_model(
    folder: Path | str, model: VideoModel, *, classes: Sequence[str], provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a model folder, or replace it; a reader finds the old model, the new one, or an error, never a mixture.

    ``config.json`` holds the hash of the weights and is renamed into place last.

    Args:
        folder: made where it is missing.
        model: made by ``create_model``, on any device.
        classes: K names.
        provenance: JSON values: data, split, protocol, command and whatever else says where it came from.

    Raises:
        CheckpointError: names and classes do not fit each other.
        OutputError: the folder cannot be written.
    """
    if not model.name:
        raise CheckpointError("only networks made by create_model can be saved: this one does not know its name")
    if len(classes) != model.num_classes or len(set(classes)) != len(classes):
        raise CheckpointError(f"a model of {model.num_classes} classes needs as many different names, got {classes}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = safetensors.torch.save(tensors)
    config = {
        "format": FORMAT,
        "twostream": __version__,
        "model": model.name,
        "numbers": dict(model.numbers),
        "num_classes": model.num_classes,
        "classes": list(classes),
        "input": model.spec.to_dict(),
        "votes": [list(vote) for vote in model.votes],
        "weights": {"file": _TENSORS, "sha256": hashlib.sha256(data).hexdigest(), "tensors": len(tensors)},
        "provenance": dict(provenance or {}),
    }
    text = _text(config)
    # Nested, so that both files are complete on the disk before the first of the two renames.
    with atomic_write(Path(folder) / _CONFIG) as config_file:
        config_file.write(text.encode("utf-8"))
        config_file.flush()
        os.fsync(config_file.fileno())
        with atomic_write(Path(folder) / _TENSORS) as tensor_file:
            tensor_file.write(data)


def load_model(folder: Path | str) -> LoadedModel:
    """Rebuild the network that :func:`save_model` wrote; ``folder`` may also be a run that has one in ``model/``.

    torch's global random state is left as it was.

    Raises:
        CheckpointError: nothing there, half written, damaged, of a newer version, or not what its config says.
    """
    folder = _find(Path(folder))
    config = _read_config(folder / _CONFIG)
    tensors = _read_tensors(folder / _TENSORS, config)
    try:
        name, classes, wanted = config["model"], tuple(config["classes"]), config["input"]
        with torch.random.fork_rng(devices=[]):
            model = create_model(name, num_classes=config["num_classes"], **config["numbers"])
        spec = InputSpec.from_dict(wanted)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / _CONFIG}: not what twostream writes ({error!r})") from error
    except TwostreamError as error:
        raise CheckpointError(
            f"{folder}: saved by twostream {config.get('twostream')}, cannot be built by {__version__}: {error}"
        ) from error
    if len(classes) != config["num_classes"]:
        raise CheckpointError(f"{folder}: {len(classes)} class names for a model of {config['num_classes']} classes")
    if spec != model.spec:
        raise CheckpointError(
            f"{folder}: saved with another input than {name} has in this version: {spec}, now {model.spec}"
        )
    if wrong := mismatches(model.state_dict(), tensors):
        raise CheckpointError(
            f"{folder}: the weights are not those of {name} with {config['num_classes']} classes. "
            f"Tensors {'; '.join(wrong)}"
        )
    model.load_state_dict(tensors, strict=True)
    return LoadedModel(model.eval(), classes, config, folder)


def save_calibration(loaded: LoadedModel, protocol: str, record: Mapping[str, Any]) -> None:
    """Write into a model's ``config.json`` how its answers under ``protocol`` are calibrated, in the place of before.

    In ``config.json``, so that two files stay the whole model; :func:`save_model` drops it together with the weights.

    Args:
        loaded: the model whose answers were looked at; its folder must still hold the same weights.
        protocol: other protocols' records stay.
        record: JSON values.

    Raises:
        CheckpointError: the folder holds another model by now.
        OutputError: the folder cannot be written.
    """
    path = loaded.folder / _CONFIG
    config = _read_config(path)
    if config.get("weights") != loaded.config["weights"]:
        raise CheckpointError(f"{loaded.folder}: was saved anew in the meantime; calibrate the model that is there now")
    known = replace(loaded, config=config).calibration
    config["calibration"] = {**known, protocol: dict(record)}
    write_text(path, _text(config))


def is_model(folder: Path | str) -> bool:
    """Whether a folder is a model's, or a run that has one."""
    return any((Path(folder) / inner / _CONFIG).is_file() for inner in (".", "model"))


def image_network(source: LoadedModel, model: VideoModel) -> dict[str, Tensor]:
    """The weights of a model's appearance backbone, as an image network that both streams of ``model`` can start from.

    Raises:
        CheckpointError: the model looks at no frames, or its backbone is another.
    """
    backbone = getattr(getattr(source.model, "appearance", None), "backbone", None)
    if backbone is None:
        raise CheckpointError(f"{source.folder} ({source.model.name}) has no network on frames to start from")
    if source.model.backbone_identity != model.backbone_identity:
        raise CheckpointError(
            f"{source.folder} ({source.model.name}) is built on {source.model.backbone_identity}, {model.name} on "
            f"{model.backbone_identity}; an image network must be the same"
        )
    return dict(backbone.state_dict())


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=1, ensure_ascii=False) + "\n"


def _find(folder: Path) -> Path:
    for candidate in (folder, folder / "model"):
        if (candidate / _CONFIG).is_file():
            return candidate
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder; a model is a folder with {_TENSORS} and {_CONFIG}")
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; name the folder that holds {_TENSORS} and {_CONFIG}")
    if (folder / _TENSORS).exists() or (folder / "model" / _TENSORS).exists():
        raise CheckpointError(f"{folder}: weights without a {_CONFIG}, left by a writer that was stopped; save it anew")
    raise CheckpointError(
        f"{folder}: no model in it (neither {_CONFIG} nor model/{_CONFIG}). A run has one once its first validation "
        "is over; the same twostream train command goes on with it"
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
        known = config["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a model's configuration ({error!r})") from error
    if known != FORMAT:
        raise CheckpointError(f"{path}: of the format {known!r}; this version of twostream reads {FORMAT!r}")
    assert isinstance(config, dict)
    return config


def _read_tensors(path: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
        wanted = config["weights"]["sha256"]
    except (OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the weights cannot be read ({error!r})") from error
    if hashlib.sha256(data).hexdigest() != wanted:
        raise CheckpointError(
            f"{path}: damaged, or not the weights that {_CONFIG} beside it was written for (its SHA-256 differs)"
        )
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error


@dataclass(frozen=True)
class Transfer:
    """What came from another model and what did not.

    Attributes:
        source: where from.
        loaded: tensors that were carried over.
        skipped: tensors of the source that were left, with the reason.
        initialised: tensors of the new model that keep their fresh values.
        changed: which of the loaded ones were given another shape on the way, and how.
    """

    source: str
    loaded: tuple[str, ...]
    skipped: Mapping[str, str]
    initialised: tuple[str, ...]
    changed: Mapping[str, str]

    def describe(self) -> str:
        """Lines for the terminal: for every part of the network how much of it came over, and why not all."""
        lines = [f"init: {len(self.loaded)} tensors from {self.source}"]
        for part, names in _by_part([*self.loaded, *self.initialised]).items():
            count = len(set(names) & set(self.loaded))
            reasons = sorted({f"{n} {self.skipped[n]}" for n in names if n in self.skipped})
            line = f"  {part}: {count} of {len(names)}" + ("" if count == len(names) else ", the rest fresh")
            lines.append(line + (f" ({'; '.join(reasons)})" if reasons else ""))
            ways = [self.changed[name] for name in names if name in self.changed]
            lines += [f"    of these {ways.count(way)} {way}" for way in dict.fromkeys(ways)]
        for part, names in _by_part([n for n in self.skipped if n not in self.initialised]).items():
            lines.append(f"  {part}: {len(names)} left behind ({self.skipped[names[0]]})")
        return "\n".join(lines)


def transfer(model: VideoModel, source: LoadedModel, *, classes: Sequence[str]) -> Transfer:
    """Carry over every tensor of ``source`` that has the same name, shape and meaning in ``model`` (``--init``).

    A network may say how it takes a tensor that has another shape in it (:meth:`VideoModel.adapt`): ST-ResNet spreads
    the 1x1 filters of a two-stream run over time.

    A classifier is carried over only when the classes and their order are the same: rows of other classes would be
    noise with a history. Several sources may follow each other, e.g. a spatial and a temporal run.

    Raises:
        CheckpointError: the two normalise a stream they share in different ways (another layout), or no layer but a
            classifier fits.
    """
    origin = f"{source.folder} ({source.model.name})"
    for key in ("rgb_mean", "rgb_std", "flow_mean", "flow_std"):
        there, here = getattr(source.model.spec, key), getattr(model.spec, key)
        if there != here:
            raise CheckpointError(
                f"{origin} normalises its input with {key} {there}, {model.name} with {here}: they are of different "
                "layouts; build both with the same layout"
            )
    ours = model.state_dict()
    theirs, changed = model.adapt(source.model.state_dict())
    ours_by_class, theirs_by_class = _class_tensors(model), _class_tensors(source.model)
    skipped: dict[str, str] = {}
    loaded: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        if name not in ours:
            skipped[name] = f"{model.name} has none"
        elif name in ours_by_class | theirs_by_class and tuple(classes) != source.classes:
            skipped[name] = "its classes are others"
        elif tensor.shape != ours[name].shape:
            skipped[name] = f"{tuple(tensor.shape)} there, {tuple(ours[name].shape)} here"
        else:
            loaded[name] = tensor
    if not any(tensor.ndim > 1 and name not in ours_by_class for name, tensor in loaded.items()):
        name, reason = next(iter(skipped.items()))
        raise CheckpointError(
            f"no layer of {origin} fits {model.name} as it is built here, e.g. {name}: {reason}. "
            "Start from a run with the same backbone, width and layout"
        )
    model.load_state_dict(ours | loaded, strict=True)
    changed = {name: way for name, way in changed.items() if name in loaded}
    return Transfer(origin, tuple(loaded), skipped, tuple(name for name in ours if name not in loaded), changed)


def _by_part(names: Sequence[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(".".join(name.split(".")[:2]), []).append(name)
    return parts


def _class_tensors(model: VideoModel) -> set[str]:
    """The tensors whose shape depends on the number of classes, found by building a twin with one class more."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        twin = create_model(model.name, num_classes=model.num_classes + 1, **model.numbers)
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    return {name for name, tensor in model.state_dict().items() if tensor.shape != shapes[name]}


__all__ = [
    "CheckpointError",
    "LoadedModel",
    "Transfer",
    "image_network",
    "is_model",
    "load_model",
    "save_calibration",
    "save_model",
    "transfer",
]
