"""Read the tensors of a Caffe file, ``.caffemodel``, without Caffe and without protobuf."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twostream.weights.strict import WeightsError

# Numbers of the fields in caffe.proto.
_NET_LAYER, _NET_OLD_LAYER = 100, 2
_LAYER_NAME, _LAYER_TYPE, _LAYER_BLOBS = 1, 2, 7
_BLOB_DATA, _BLOB_SHAPE, _BLOB_OLD_SHAPE = 5, 7, (1, 2, 3, 4)
_SHAPE_DIM = 1

# What the blobs of a layer are, in order. "BN" is the layer of yjxiong/caffe, with which TSN was trained.
_PARTS = {
    "Convolution": ("weight", "bias"),
    "InnerProduct": ("weight", "bias"),
    "BN": ("weight", "bias", "running_mean", "running_var"),
}


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """The tensors by layer and part, e.g. ``"conv1/7x7_s2.weight"`` or ``"conv1/7x7_s2_bn.running_var"``; float32.

    Raises:
        WeightsError: damaged, of Caffe's first format, or with layers whose tensors are not known.
        FileNotFoundError: no such file.

    Reference: caffe.proto and bn_layer.cpp of yjxiong/caffe; protobuf's wire format.
    """
    state: dict[str, Tensor] = {}
    for number, value in _fields(memoryview(path.read_bytes())):
        if number == _NET_OLD_LAYER and isinstance(value, memoryview):
            raise WeightsError(
                "a file of Caffe's first format; upgrade_net_proto_binary, of Caffe, makes it a newer one"
            )
        if number == _NET_LAYER and isinstance(value, memoryview):
            state |= _layer(value)
    if not state:
        raise WeightsError("no layer in it has weights")
    return state


def _layer(message: memoryview) -> dict[str, Tensor]:
    name = kind = ""
    blobs = []
    for number, value in _fields(message):
        if isinstance(value, memoryview):
            if number == _LAYER_NAME:
                name = str(value, "utf-8")
            elif number == _LAYER_TYPE:
                kind = str(value, "utf-8")
            elif number == _LAYER_BLOBS:
                blobs.append(_blob(value))
    if blobs and (kind not in _PARTS or len(blobs) > len(_PARTS[kind])):
        raise WeightsError(f"layer {name} is of type {kind} with {len(blobs)} tensors; known are {', '.join(_PARTS)}")
    return {f"{name}.{part}": blob for part, blob in zip(_PARTS.get(kind, ()), blobs, strict=False)}


def _blob(message: memoryview) -> Tensor:
    data, shape, old_shape = b"", [], []
    for number, value in _fields(message):
        if number == _BLOB_DATA and isinstance(value, memoryview):
            data += value
        elif number == _BLOB_SHAPE and isinstance(value, memoryview):
            shape = [size for field, dims in _fields(value) if field == _SHAPE_DIM for size in _whole_numbers(dims)]
        elif number in _BLOB_OLD_SHAPE and isinstance(value, int):
            old_shape.append(value)
    shape = shape or old_shape
    values = np.frombuffer(data, "<f4")
    if math.prod(shape) != len(values):
        raise WeightsError(f"a tensor of shape {shape} has {len(values)} values")
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def _whole_numbers(value: int | memoryview) -> list[int]:
    """A repeated number, packed or one at a time."""
    if isinstance(value, int):
        return [value]
    numbers, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        numbers.append(number)
    return numbers


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of a message's fields; a string, bytes or a message is a view of its bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            whole, place = _varint(message, place)
            yield number, whole
            continue
        if wire == 2:
            length, place = _varint(message, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise WeightsError(f"no Caffe file: a field of wire type {wire}")
        if place + length > len(message):
            raise WeightsError(f"it ends {place + length - len(message)} bytes too early")
        yield number, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(message):
            raise WeightsError("it ends within a number")
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


__all__ = ["read_caffemodel"]
