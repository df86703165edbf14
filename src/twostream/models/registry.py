"""Every network by name, and the one function that builds them."""

import difflib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import torch

from twostream.errors import UsageError
from twostream.models.backbones import BACKBONES, Number, backbone_numbers, open_numbers
from twostream.models.contract import VideoModel
from twostream.models.resnet import DEPTHS
from twostream.models.st_pyramid import st_pyramid
from twostream.models.st_resnet import st_resnet
from twostream.models.two_stream import two_stream


@dataclass(frozen=True)
class ModelEntry:
    """A name's builder: a function of ``num_classes`` and of numbers that the user may give.

    Attributes:
        build: its keyword arguments with defaults are the numbers; their annotations are checked.
        summary: one line for ``twostream models``.
        fixed: arguments that the name itself decides; not open to the user. Where ``backbone`` is among them, the
            backbone's own numbers are open too, and ``build`` hands them on.
        defaults: numbers whose default is another one under this name.
    """

    build: Callable[..., VideoModel]
    summary: str
    fixed: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)


_FRAMES: Mapping[str, Any] = {
    "streams": ("appearance",),
    "motion_dropout": None,
    "flow_length": 10,
    "flow_offset": None,
}
_FLOW: Mapping[str, Any] = {"streams": ("motion",), "motion_dropout": None}
_BOTH: Mapping[str, Any] = {"streams": ("appearance", "motion")}
# As in the released code of Spatiotemporal Multiplier Networks, which sets 0.8 where its base networks have dropout:
# the one on flow does, the one on frames was trained without.
_MULNET: Mapping[str, Any] = {
    "operation": "multiply",
    "temporal_init": "centre",
    "temporal_pool": 5,
    "temporal_pool_stride": 1,
    "steps": 5,
    "min_stride": 5,
    "max_stride": 35,
    "dropout": 0.0,
    "motion_dropout": 0.8,
}

# To add a network: write its builder in a file beside this one and name it here. tests/test_models_contract.py
# then holds it to the contract.
MODELS: dict[str, ModelEntry] = {
    f"{kind}_{name}": ModelEntry(build, summary.format(backbone.title), {"backbone": name, **fixed}, defaults)
    for kind, build, summary, fixed, defaults in (
        ("spatial", two_stream, "{} on single frames", _FRAMES, {}),
        ("temporal", two_stream, "{} on stacks of optical flow", _FLOW, {}),
        ("two_stream", two_stream, "{} on frames and another on flow, scores averaged (late fusion)", _BOTH, {}),
        (
            "tsn",
            two_stream,
            "late fusion on {} that sees several segments of a clip at once (Temporal Segment Networks)",
            _BOTH,
            {"segments": 3},
        ),
        (
            "stpn",
            st_pyramid,
            "{} on a frame and several stacks of flow, fused in three levels, with attention (STPN)",
            {},
            {},
        ),
    )
    for name, backbone in BACKBONES.items()
} | {
    f"{variant}{depth}": ModelEntry(st_resnet, summary.format(depth), {"variant": variant, "depth": depth}, defaults)
    for variant, summary, defaults in (
        ("st_resnet", "ResNet-{} on frames and flow, joined by residual connections and over time (ST-ResNet)", {}),
        ("st_mulnet", "ResNet-{} on frames times flow, with extra filters over time (ST-MulNet)", _MULNET),
    )
    for depth in DEPTHS
}


class ModelRow(NamedTuple):
    """One line of ``twostream models``; ``parameters`` counts what is learnt, the classifier included."""

    name: str
    summary: str
    parameters: int
    numbers: dict[str, Any]


def list_models() -> list[str]:
    """The names that :func:`create_model` knows, sorted."""
    return sorted(MODELS)


def known_numbers(name: str) -> dict[str, Any]:
    """The numbers that a model takes, with their defaults.

    Raises:
        UsageError: no such model.
    """
    return {number: value.default for number, value in _numbers(name).items()}


def create_model(name: str, *, num_classes: int, **numbers: Any) -> VideoModel:
    """Build a network with fresh weights from torch's global random state.

    Args:
        name: one of :func:`list_models`.
        num_classes: K, at least 2.
        numbers: what :func:`known_numbers` lists for this name.

    Raises:
        UsageError: an unknown name, number or value; the message says which would do.
    """
    entry, known = _entry(name), _numbers(name)
    if unknown := sorted(set(numbers) - set(known)):
        close = {n: difflib.get_close_matches(n, known, n=1) for n in unknown}
        hint = "".join(f" Did you mean {match[0]}?" for match in close.values() if match)
        raise UsageError(f"{name} takes no {', '.join(unknown)}.{hint} It takes: {', '.join(sorted(known))}")
    if not _fits(num_classes, int) or num_classes < 2:
        raise UsageError(f"num_classes must be a whole number of at least 2, got {num_classes!r}")
    for number, value in numbers.items():
        if not _fits(value, known[number].kind):
            raise UsageError(f"{name}: {number} must be {_described(known[number].kind)}, got {value!r}")
    numbers = known_numbers(name) | numbers
    model = entry.build(num_classes=num_classes, **entry.fixed, **numbers)
    model.name, model.numbers = name, numbers
    return model


def describe_models(num_classes: int = 101) -> list[ModelRow]:
    """A row for every model, sorted by name, counted at its default numbers and ``num_classes`` (UCF101's 101)."""
    rows = []
    for name in list_models():
        with torch.device("meta"):  # shapes without memory
            model = create_model(name, num_classes=num_classes)
        parameters = sum(p.numel() for p in model.parameters())
        rows.append(ModelRow(name, MODELS[name].summary, parameters, known_numbers(name)))
    return rows


def _entry(name: str) -> ModelEntry:
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UsageError(f"there is no model {name!r}; {hint}All of them: twostream models")
    return MODELS[name]


def _numbers(name: str) -> dict[str, Number]:
    entry = _entry(name)
    numbers = open_numbers(entry.build, {"num_classes": None, **entry.fixed})
    if "backbone" in entry.fixed:
        numbers |= backbone_numbers(entry.fixed["backbone"])
    return {n: Number(kind, entry.defaults.get(n, default)) for n, (kind, default) in numbers.items()}


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _described(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_described(option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    names = {bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "none"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


__all__ = ["MODELS", "ModelEntry", "ModelRow", "create_model", "describe_models", "known_numbers", "list_models"]
