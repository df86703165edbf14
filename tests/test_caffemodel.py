"""Caffe's files, written here byte by byte as protobuf's wire format has them."""

import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from twostream.models.bn_inception import BNInception
from twostream.models.registry import create_model
from twostream.weights.caffemodel import read_caffemodel
from twostream.weights.catalog import WeightsError, read_tensors, resolve_weights


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(number: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def blob(value: Tensor, shape: str = "packed") -> bytes:
    sizes = list(value.shape)
    if shape == "packed":
        dims = message(7, message(1, b"".join(map(varint, sizes))))
    elif shape == "single":
        dims = message(7, b"".join(whole(1, size) for size in sizes))
    else:
        dims = b"".join(whole(i + 1, size) for i, size in enumerate([1] * (4 - len(sizes)) + sizes))
    return dims + message(5, struct.pack(f"<{value.numel()}f", *value.flatten().tolist()))


def layer(name: str, kind: str, *blobs: bytes) -> bytes:
    # loss_weight, a float, and phase stand between, as fields of other wire types do in real files
    between = varint(5 << 3 | 5) + struct.pack("<f", 1.0) + whole(10, 1) + varint(99 << 3 | 1) + bytes(8)
    return message(100, message(1, name) + message(2, kind) + between + b"".join(message(7, b) for b in blobs))


def test_layers_shapes_and_values(tmp_path: Path) -> None:
    weight, bias = torch.randn(2, 3, 5, 5), torch.randn(2)
    norm = [torch.randn(1, 2) for _ in range(4)]
    path = tmp_path / "made.caffemodel"
    path.write_bytes(
        message(1, "a net")
        + layer("conv1/7x7_s2", "Convolution", blob(weight), blob(bias, "single"))
        + layer("conv1/7x7_s2_bn", "BN", *map(blob, norm))
        + layer("conv1/relu", "ReLU")
        + layer("fc", "InnerProduct", blob(torch.zeros(3, 200), "old"))
    )
    state = read_tensors(path)
    assert list(state) == [
        "conv1/7x7_s2.weight",
        "conv1/7x7_s2.bias",
        *(f"conv1/7x7_s2_bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
        "fc.weight",
    ]
    assert torch.equal(state["conv1/7x7_s2.weight"], weight)
    assert torch.equal(state["conv1/7x7_s2.bias"], bias)
    assert torch.equal(state["conv1/7x7_s2_bn.running_var"], norm[3])
    assert state["fc.weight"].shape == (1, 1, 3, 200)


def test_a_whole_network_starts_from_a_caffe_file(tmp_path: Path) -> None:
    ours = BNInception(width=2).state_dict()
    for value in ours.values():
        if value.ndim:
            value.copy_(torch.randn(value.shape))
    content = b""
    for name in ours:
        place, _, part = name.rpartition(".")
        if part != "weight":
            continue
        *where, kind = place.split(".")
        caffe = f"{where[0]}{where[1]}/{where[2]}" if len(where) == 3 else where[0].replace("_", "/", 1)
        if kind == "bn":
            parts = [ours[f"{place}.{p}"][None] for p in ("weight", "bias", "running_mean", "running_var")]
            content += layer(f"{caffe}_bn", "BN", *map(blob, parts))
        else:
            filter_ = ours[name].flip(1) if caffe == "conv1/7x7_s2" else ours[name]
            content += layer(caffe, "Convolution", blob(filter_), blob(ours[f"{place}.bias"]))
    path = tmp_path / "bn_inception_rgb_init.caffemodel"
    path.write_bytes(content)
    model = create_model("spatial_bn_inception", num_classes=3, width=2)
    found = resolve_weights(path, model.backbone_identity)
    assert found.says.startswith(f"weights: {path}")
    assert found.state is not None
    assert model.load_backbones(found.state, source=found.source) == "appearance as it is"
    state = model.state_dict()
    assert all(torch.equal(state[f"appearance.backbone.{name}"], value) for name, value in ours.items())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no layer in it has weights"),
        (layer("conv1/relu", "ReLU"), "no layer in it has weights"),
        (message(2, b"old"), "of Caffe's first format; upgrade_net_proto_binary"),
        (
            layer("bn", "BatchNorm", blob(torch.zeros(3))),
            "layer bn is of type BatchNorm with 1 tensors; known are Conv",
        ),
        (layer("c", "Convolution", *[blob(torch.zeros(3))] * 3), "of type Convolution with 3 tensors"),
        (layer("c", "Convolution", blob(torch.zeros(3))[:-4] + b"\0"), "it ends 3 bytes too early"),
        (layer("c", "Convolution", blob(torch.zeros(2, 3))[6:]), r"a tensor of shape \[\] has 6 values"),
        (b"\x80", "ends within a number"),
        (b"\x0b\x01", "no Caffe file: a field of wire type 3"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "made.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=says):
        read_caffemodel(path)
    with pytest.raises(WeightsError, match=rf"made\.caffemodel: cannot be read as weights.*{says}"):
        read_tensors(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.caffemodel: no such weights file"):
        read_tensors(tmp_path / "nothing.caffemodel")
