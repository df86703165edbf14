"""ResNets as the authors' MatConvNet files hold them: names and shapes of the parameters, and how the layers connect.

Reference: Feichtenhofer et al., NIPS 2016 and CVPR 2017; papers' sheet of ST-ResNet, sections 2 to 4 and 9.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from twostream.weights.dagnn_wiring import Attribute, Wiring

Operation = Literal["add", "multiply"]

# Depth -> letters of the residual units of conv2_x ... conv5_x, as MSRA named them.
_ABC = ("a", "b", "c")
UNITS: dict[int, tuple[tuple[str, ...], ...]] = {
    50: (_ABC, (*_ABC, "d"), (*_ABC, "d", "e", "f"), _ABC),
    101: (_ABC, ("a", *(f"b{i}" for i in range(1, 4))), ("a", *(f"b{i}" for i in range(1, 23))), _ABC),
    152: (_ABC, ("a", *(f"b{i}" for i in range(1, 8))), ("a", *(f"b{i}" for i in range(1, 36))), _ABC),
}
EXTRA = "temporal"  # what ST-MulNet's own filters over time are called in our units


class Pooling(NamedTuple):
    """A pooling over time, the same in both streams."""

    method: str
    length: Attribute
    stride: Attribute


class Parameter(NamedTuple):
    """A parameter of these networks: its shape in the file, its tensor in ours (of moments: its layer), its layout."""

    shape: tuple[int, ...]
    ours: str
    layout: Literal["filter", "time", "vector", "moments", "classifier"]


class Stream(NamedTuple):
    """What a stream is, as its parameters show it."""

    suffix: str
    depth: int
    width: int
    channels: int
    num_classes: int
    conv1_bias: bool  # the deeper ones have none
    inflated: bool  # the outer filters of every unit b span three steps (ST-ResNet)
    extra: bool  # filters over time of their own stand behind the 3x3 of every unit b (ST-MulNet)

    def units(self) -> Iterator[tuple[int, int, str, int, int]]:
        """(stage from 2, index in the stage, letters, channels in, channels inside) of every residual unit."""
        channels = self.width
        for stage, letters in enumerate(UNITS[self.depth], start=2):
            for index, letter in enumerate(letters):
                inside = self.width << (stage - 2)
                yield stage, index, letter, channels, inside
                channels = 4 * inside

    def parameters(self) -> dict[str, Parameter]:
        """All of them by MatConvNet's names."""
        s = self.suffix
        table: dict[str, Parameter] = {}

        def conv(theirs: str, ours: str, *shape: int) -> None:
            time = shape[0] != shape[1]
            table[f"{theirs}_filter{s}"] = Parameter(shape, f"{ours}.weight", "time" if time else "filter")

        def norm(theirs: str, ours: str, channels: int) -> None:
            table[f"{theirs}_mult{s}"] = Parameter((channels,), f"{ours}.weight", "vector")
            table[f"{theirs}_bias{s}"] = Parameter((channels,), f"{ours}.bias", "vector")
            table[f"{theirs}_moments{s}"] = Parameter((channels, 2), ours, "moments")

        conv("conv1", "conv1", 7, 7, self.channels, self.width)
        if self.conv1_bias:
            table[f"conv1_bias{s}"] = Parameter((self.width,), "conv1.bias", "vector")
        norm("bn_conv1", "bn1", self.width)
        for stage, index, letter, channels, inside in self.units():
            name, unit = f"{stage}{letter}_branch", f"layer{stage - 1}.{index}"
            if index == 0:
                conv(f"res{name}1", f"{unit}.downsample.0", 1, 1, channels, 4 * inside)
                norm(f"bn{name}1", f"{unit}.downsample.1", 4 * inside)
            steps = 3 if self.inflated and index == 1 else 1
            conv(f"res{name}2a", f"{unit}.conv1", 1, steps, channels, inside)
            norm(f"bn{name}2a", f"{unit}.bn1", inside)
            conv(f"res{name}2b", f"{unit}.conv2", 3, 3, inside, inside)
            norm(f"bn{name}2b", f"{unit}.bn2", inside)
            conv(f"res{name}2c", f"{unit}.conv3", 1, steps, inside, 4 * inside)
            norm(f"bn{name}2c", f"{unit}.bn3", 4 * inside)
            if self.extra and index == 1:
                time = extra_name(stage, s)
                table[f"{time}_f"] = Parameter((1, 3, inside, inside), f"{unit}.{EXTRA}.weight", "time")
                table[f"{time}_b"] = Parameter((inside,), f"{unit}.{EXTRA}.bias", "vector")
        table[f"fc1000_filter{s}"] = Parameter((1, 1, 32 * self.width, self.num_classes), "weight", "classifier")
        table[f"fc1000_bias{s}"] = Parameter((self.num_classes,), "bias", "vector")
        return table


def extra_name(stage: int, suffix: str) -> str:
    """What ST-MulNet's own filter over time behind a stage's unit b is called, without ``_f`` or ``_b``."""
    return f"res{stage}b_branch2b_relu{suffix}_Time"


def wanted_wiring(
    wiring: Wiring, streams: Sequence[Stream], operation: Operation, pool: Pooling | None
) -> dict[str, int]:
    """The papers' network in ``wiring``: the operation of every first parameter, in the order of computing."""
    wanted: dict[str, int] = {}

    def put(kind: str, x: int, params: Sequence[str], attributes: Sequence[int] = ()) -> int:
        wanted[params[0]] = number = wiring.add(kind, x, attributes=attributes, params=params)
        return number

    def conv(x: int, name: str, stream: Stream, *, stride: int = 1, pad: int = 0, bias: bool = False) -> int:
        params = [f"{name}_{part}{stream.suffix}" for part in (("filter", "bias") if bias else ("filter",))]
        return put("Conv", x, params, (stride, stride, pad, pad, pad, pad, 1, 1))

    def over_time(x: int, params: Sequence[str]) -> int:
        return put("ConvTime", x, params, (1, 1, 0, 0, 1, 1, 1, 1))

    def norm(x: int, name: str, stream: Stream) -> int:
        return put("BatchNorm", x, [f"{name}_{part}{stream.suffix}" for part in ("mult", "bias", "moments")])

    def relu(x: int) -> int:
        return wiring.add("ReLU", x, attributes=(0,))

    def branch2(x: int, name: str, stream: Stream, *, stride: int, second: bool) -> int:
        for part in "abc":
            step = f"{name}_branch2{part}"
            if second and stream.inflated and part != "b":
                x = over_time(x, [f"res{step}_filter{stream.suffix}"])
            else:
                x = conv(x, f"res{step}", stream, stride=stride if part == "a" else 1, pad=int(part == "b"))
            x = norm(x, f"bn{step}", stream)
            x = x if part == "c" else relu(x)
            if second and stream.extra and part == "b":
                time = extra_name(int(name[0]), stream.suffix)
                x = over_time(x, [f"{time}_f", f"{time}_b"])
        return x

    ends = []
    sent: dict[int, int] = {}
    # Motion first: what it sends to appearance must be there.
    for stream in reversed(streams):
        x = wiring.add("input")
        x = relu(norm(conv(x, "conv1", stream, stride=2, pad=3, bias=stream.conv1_bias), "bn_conv1", stream))
        x = total = wiring.add("Pooling", x, attributes=("max", 3, 3, 2, 2, 0, 1, 0, 1))
        for stage, index, letter, _, _ in stream.units():
            name = f"{stage}{letter}"
            stride = 2 if stage > 2 and index == 0 else 1
            branch = x
            if index == 1 and stream.suffix == "_spatial":
                # Into the residual branch only; of appearance itself, the sum before its ReLU.
                branch = wiring.add("Sum" if operation == "add" else "Mul", sent[stage], total)
            shortcut = x
            if index == 0:
                shortcut = norm(conv(x, f"res{name}_branch1", stream, stride=stride), f"bn{name}_branch1", stream)
            total = wiring.add("Sum", shortcut, branch2(branch, name, stream, stride=stride, second=index == 1))
            x = relu(total)
            if index == 0 and stream.suffix == "_temporal":
                sent[stage] = x
        ends.append((stream, x))
    for stream, x in ends:
        if pool is not None:
            x = wiring.add("PoolTime", x, attributes=(pool.method, 1, pool.length, 1, pool.stride, 0, 0, 0, 0))
        x = wiring.add("Pooling", x, attributes=("avg", 7, 7, 1, 1, 0, 0, 0, 0))
        conv(x, "fc1000", stream, bias=True)
    return wanted


__all__ = ["EXTRA", "UNITS", "Operation", "Parameter", "Pooling", "Stream", "extra_name", "wanted_wiring"]
