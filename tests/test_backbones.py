"""Backbones by name: each keeps the contract that video networks build on."""

import pytest
import torch

from twostream.errors import UsageError
from twostream.models.backbones import BACKBONES, backbone_numbers, build_backbone
from twostream.models.registry import list_models
from twostream.weights.inflate import first_layer
from twostream.weights.strict import load_strict


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_contract(name: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(name, width=8).eval()
    assert network.in_channels == 3
    assert network.identity.startswith(name)
    assert len(network.taps) == len(network.stages) + 1
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        y = network.stem(x)
        maps = [y]
        for stage in network.stages:
            for unit in stage:
                y = unit(y)
            maps.append(y)
        assert torch.equal(network(x), y)
    for tap, found in zip(network.taps, maps, strict=True):
        assert tuple(found.shape) == (1, tap.channels, 96 // tap.stride, 64 // tap.stride)
    motion = build_backbone(name, in_channels=20, width=8)
    load_strict(motion, first_layer(network.state_dict(), 20, name=network.first_layer), source="first layer")
    assert motion.in_channels == 20


def test_every_backbone_has_its_models() -> None:
    assert set(BACKBONES) == {*(f"resnet{d}" for d in (18, 34, 50, 101, 152)), "bn_inception", "vgg16"}
    assert {f"{kind}_{name}" for kind in ("spatial", "temporal", "two_stream", "tsn") for name in BACKBONES} <= set(
        list_models()
    )


def test_numbers_are_those_of_the_family() -> None:
    assert {name: number.default for name, number in backbone_numbers("resnet50").items()} == {
        "layout": "torchvision", "width": 64
    }  # fmt: skip
    assert list(backbone_numbers("bn_inception")) == ["width"]
    assert list(backbone_numbers("vgg16")) == ["width", "batch_norm"]


def test_wrong_names_and_numbers() -> None:
    with pytest.raises(UsageError, match=r"no backbone 'resnet20'; there are: resnet18, resnet34, .*, vgg16"):
        build_backbone("resnet20")
    with pytest.raises(UsageError, match="bn_inception takes no layout; it takes: width"):
        build_backbone("bn_inception", layout="caffe")
