"""Whether a DagNN file computes what a network computes: its layers against those wanted, connection by connection.

Two layers are the same computation when they do the same to the same inputs with the same parameters. So both networks
are written into one table that gives equal computations equal numbers, and the numbers are compared. What layers and
variables are called does not matter, and dropout, losses and the final softmax do not count.
"""

import graphlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from twostream.weights.dagnn import DagFile, Layer
from twostream.weights.strict import WeightsError

Attribute = int | str


class Operation(NamedTuple):
    """What a layer does: its kind without ``dagnn.``, settings, parameters, and the operations that it reads."""

    kind: str
    attributes: tuple[Attribute, ...] = ()
    params: tuple[str, ...] = ()
    inputs: tuple[int, ...] = ()


class Wiring:
    """Operations by number; equal ones have the same."""

    def __init__(self) -> None:
        self._numbers: dict[Operation, int] = {}
        self._operations: list[Operation] = []

    def __getitem__(self, number: int) -> Operation:
        return self._operations[number]

    def add(self, kind: str, *inputs: int, attributes: Sequence[Attribute] = (), params: Sequence[str] = ()) -> int:
        """The number of an operation; sums and products have no order of inputs."""
        if kind in ("Sum", "Mul"):
            inputs = tuple(sorted(inputs))
        operation = Operation(kind, tuple(attributes), tuple(params), inputs)
        if operation not in self._numbers:
            self._numbers[operation] = len(self._operations)
            self._operations.append(operation)
        return self._numbers[operation]

    def describe(self, number: int, depth: int = 3) -> str:
        """``Sum(ReLU(bn2a_branch1_mult), ...)``: an operation down to the nearest parameters."""
        operation = self[number]
        if operation.params:
            return operation.params[0]
        if not operation.inputs:
            return "the input"
        if depth == 0:
            return f"{operation.kind}(...)"
        return f"{operation.kind}({', '.join(self.describe(i, depth - 1) for i in operation.inputs)})"


def read_wiring(wiring: Wiring, file: DagFile, renamed: Mapping[str, str]) -> dict[str, int]:
    """Write the file's layers into ``wiring``; returns the operation of every first parameter.

    ``renamed`` gives parameters another name.

    Raises:
        WeightsError: layers of an unknown kind, or not a network that can be computed.
    """
    layers = [layer for layer in file.layers if not layer.kind.startswith(("dagnn.Loss", "dagnn.SoftMax"))]
    if foreign := [f"{layer.name} ({layer.kind})" for layer in layers if layer.kind not in _ATTRIBUTES]:
        listed = ", ".join(foreign[:5]) + (" ..." if len(foreign) > 5 else "")
        raise WeightsError(
            f"{file.path}: {len(foreign)} layers that the networks of these papers do not have: {listed}"
        )
    makers = {variable: layer for layer in layers for variable in layer.outputs}
    by_name = {layer.name: layer for layer in layers}
    if len(makers) != len(layers) or len(by_name) != len(layers):
        raise WeightsError(f"{file.path}: layers of the same name, or without exactly one output of their own")
    before = {layer.name: {makers[v].name for v in layer.inputs if v in makers} for layer in layers}
    try:
        order = list(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError as error:
        raise WeightsError(
            f"{file.path}: layers that read each other in a circle: {', '.join(error.args[1])}"
        ) from error
    the_input = wiring.add("input")
    made: dict[str, int] = {}
    found: dict[str, int] = {}
    for layer in (by_name[name] for name in order):
        inputs = [made.get(variable, the_input) for variable in layer.inputs]
        params = [renamed.get(param, param) for param in layer.params]
        kind = layer.kind.removeprefix("dagnn.")
        if kind == "DropOut":  # does nothing at test time
            number = inputs[0] if inputs else the_input
        else:
            number = wiring.add(kind, *inputs, attributes=_attributes(layer), params=params)
        made[layer.outputs[0]] = number
        if params:
            found[params[0]] = number
    return found


def difference(wiring: Wiring, found: Mapping[str, int], wanted: Mapping[str, int]) -> str:
    """Where the file's network first differs from the one wanted, whose operations come in order; ``""`` if nowhere."""
    for param, number in wanted.items():
        if param not in found:
            return f"no layer uses {param}"
        here, there = wiring[found[param]], wiring[number]
        if here.kind != there.kind or here.attributes != there.attributes or here.params != there.params:
            return f"the layer of {param} is {_settings(here)}, wanted {_settings(there)}"
        if here.inputs != there.inputs:
            reads, ought = (" and ".join(map(wiring.describe, o.inputs)) for o in (here, there))
            return f"the layer of {param} reads {reads}, wanted {ought}"
    return ""


def _settings(operation: Operation) -> str:
    return f"{operation.kind} {list(operation.attributes)} with {', '.join(operation.params)}"


def _attributes(layer: Layer) -> list[Attribute]:
    return [value for name in _ATTRIBUTES[layer.kind] for value in setting(layer.block, name)]


def setting(block: Mapping[str, Any], name: str) -> list[Attribute]:
    """A layer's setting as whole numbers or a word; one number stands for all where MatConvNet takes it so."""
    value = block.get(name)
    if name == "method":
        return [value if isinstance(value, str) else "max"]
    numbers = value.flatten().tolist() if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else []
    count, default = {"stride": (2, 1), "pad": (4, 0), "poolSize": (2, 1), "dilate": (2, 1), "leak": (1, 0)}[name]
    numbers = numbers or [default]
    numbers = numbers * count if len(numbers) == 1 else numbers
    return [int(n) if float(n).is_integer() else str(n) for n in numbers]


# What decides a layer's result, beside its parameters.
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "dagnn.Conv": ("stride", "pad", "dilate"),
    "dagnn.ConvTime": ("stride", "pad", "dilate"),
    "dagnn.BatchNorm": (),
    "dagnn.ReLU": ("leak",),
    "dagnn.Pooling": ("method", "poolSize", "stride", "pad"),
    "dagnn.PoolTime": ("method", "poolSize", "stride", "pad"),
    "dagnn.Sum": (),
    "dagnn.Mul": (),
    "dagnn.DropOut": (),
}


__all__ = ["Attribute", "Operation", "Wiring", "difference", "read_wiring", "setting"]
