"""Every image network by name, and the one function that builds them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twostream.errors import UsageError
from twostream.models.backbone import Backbone
from twostream.models.bn_inception import BNInception
from twostream.models.resnet import DEPTHS, ResNet
from twostream.models.vgg import VGG16


class Number(NamedTuple):
    """One number that a builder takes: the type that its signature names, and its default."""

    kind: Any
    default: Any


def open_numbers(build: Callable[..., Any], closed: Mapping[str, Any]) -> dict[str, Number]:
    """The arguments of a function or class that ``closed`` does not already decide."""
    return {
        p.name: Number(p.annotation, p.default)
        for p in inspect.signature(build, eval_str=True).parameters.values()
        if p.kind is not p.VAR_KEYWORD and p.name not in closed
    }


@dataclass(frozen=True)
class BackboneEntry:
    """A name's network.

    Attributes:
        build: the class.
        title: as it is written in a sentence.
        numbers: those of its keyword arguments that the user may give.
        fixed: arguments that the name decides.
    """

    build: type[Backbone]
    title: str
    numbers: tuple[str, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)


# To add one: write it in a file beside this one and name it here; the registry then has every model on top of it.
BACKBONES: dict[str, BackboneEntry] = {
    **{
        f"resnet{depth}": BackboneEntry(ResNet, f"ResNet-{depth}", ("layout", "width"), {"depth": depth})
        for depth in DEPTHS
    },
    "bn_inception": BackboneEntry(BNInception, "BN-Inception", ("width",)),
    "vgg16": BackboneEntry(VGG16, "VGG-16", ("width", "batch_norm")),
}


def backbone_numbers(name: str) -> dict[str, Number]:
    """The numbers that a backbone takes beside ``in_channels``.

    Raises:
        UsageError: no such backbone.
    """
    entry = _entry(name)
    taken = open_numbers(entry.build, {})
    return {number: taken[number] for number in entry.numbers}


def build_backbone(name: str, *, in_channels: int = 3, **numbers: Any) -> Backbone:
    """An image network with fresh weights from torch's global random state.

    Args:
        name: a key of :data:`BACKBONES`.
        in_channels: 3 for frames, 2 L for flow.
        numbers: what :func:`backbone_numbers` lists for this name.

    Raises:
        UsageError: an unknown name, number or value.
    """
    entry = _entry(name)
    if unknown := sorted(set(numbers) - set(backbone_numbers(name))):
        raise UsageError(f"{name} takes no {', '.join(unknown)}; it takes: {', '.join(sorted(backbone_numbers(name)))}")
    return entry.build(**entry.fixed, in_channels=in_channels, **numbers)


def _entry(name: str) -> BackboneEntry:
    if name not in BACKBONES:
        raise UsageError(f"there is no backbone {name!r}; there are: {', '.join(BACKBONES)}")
    return BACKBONES[name]


__all__ = ["BACKBONES", "BackboneEntry", "Number", "backbone_numbers", "build_backbone", "open_numbers"]
