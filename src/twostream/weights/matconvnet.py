"""The authors' MatConvNet files: which network one holds, and its tensors by our names; dict to dict.

What a file is follows from the names and shapes of its parameters; that it computes what our network of that name
computes is then checked layer by layer (``dagnn_wiring``). Whatever is missing, left over or different is an error.

Reference: Feichtenhofer et al., NIPS 2016 and CVPR 2017; papers' sheet of ST-ResNet, sections 2 to 4 and 9.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostream.weights.dagnn import Array, DagFile
from twostream.weights.dagnn_wiring import Wiring, difference, read_wiring, setting
from twostream.weights.matconvnet_resnet import UNITS, Operation, Parameter, Pooling, Stream, extra_name, wanted_wiring
from twostream.weights.strict import WeightsError, mismatches

EPSILON = 1e-5  # under the root of sigma in the files, and in our batch norms
RGB_MEAN, FLOW_MEAN = (123.15163084, 115.90288257, 103.0626238), 128.0  # what our Caffe layout subtracts

_STREAM = re.compile(r"_(spatial|temporal)(_Time_[fb])?$")
_EXTRA = re.compile(r"res([2-5])b_\w*branch2b\w*_(spatial|temporal)_Time_([fb])")
_FIRST_CONV = re.compile(r"res([2-5])([a-z]\d*)_branch2a_filter(_spatial|_temporal)?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Conversion:
    """A network of ours as plain values.

    Attributes:
        kind: what the file is, in words.
        model: name for ``create_model``; ``""`` for an image network, which is a backbone and no video network.
        backbone: the ``identity`` of its streams' backbone.
        numbers: for ``create_model``, beside ``num_classes``.
        num_classes: K.
        state: by our names, in float64, so that nothing is lost between sigma and the variance.
        classifiers: the tensors of ``state`` that have a row a class.
        classes: K names that the file holds, or none.
        notes: what a user should know.
    """

    kind: str
    model: str
    backbone: str
    numbers: Mapping[str, Any]
    num_classes: int
    state: Mapping[str, Tensor]
    classifiers: tuple[str, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def recognise(file: DagFile) -> Conversion:
    """Which network a file holds, as one of ours.

    Known are ImageNet's ResNet-50/101/152, base streams of them, and two streams of ResNet-50 connected as in
    ST-ResNet (stage 1: no pooling over time; stage 2: pooling) or as in ST-MulNet. Sizes are read from the file.

    Raises:
        WeightsError: another network; the message lists what is unknown, missing, misshapen or differently connected.
    """
    renamed = {name: _canonical(name) for name in file.arrays}
    arrays = {renamed[name]: array for name, array in file.arrays.items()}
    suffixes = {match[1] if (match := _STREAM.search(name)) else "" for name in arrays}
    if suffixes == {""}:
        streams = [_measure(file, arrays, "")]
    elif suffixes == {"spatial", "temporal"}:
        streams = [_measure(file, arrays, "_spatial"), _measure(file, arrays, "_temporal")]
        _check_alike(file, *streams)
    else:
        odd = [name for name in file.arrays if not _STREAM.search(name)] or list(file.arrays)
        raise WeightsError(f"{file.path}: one stream of two, or parameters of neither: {_listed(odd)}")
    table = {name: entry for stream in streams for name, entry in stream.parameters().items()}
    _check_tensors(file, arrays, table)
    operation: Operation = "multiply" if any(layer.kind == "dagnn.Mul" for layer in file.layers) else "add"
    pool = _pooling(file)
    wiring = Wiring()
    found = read_wiring(wiring, file, renamed)
    wanted = wanted_wiring(wiring, streams, operation, pool)
    names = {"": "an image network or base stream", "add": "ST-ResNet", "multiply": "ST-MulNet"}
    if unlike := difference(wiring, found, wanted):
        name = names[operation if len(streams) == 2 else ""]
        raise WeightsError(f"{file.path}: its parameters are those of {name}, its layers are not: {unlike}")
    if len(streams) == 1:
        return _one_stream(file, streams[0], arrays, pool)
    return _two_streams(file, streams, arrays, operation, pool)


def join(first: Conversion, second: Conversion) -> Conversion:
    """Two base streams, in either order, as one two-stream network with late fusion.

    Raises:
        WeightsError: not one stream of each kind, or of different depth, width or number of classes.
    """
    by_stream = {conversion.model.partition("_")[0]: conversion for conversion in (first, second)}
    if set(by_stream) != {"spatial", "temporal"}:
        raise WeightsError(
            f"two files are joined when one is an RGB base stream and the other a flow base stream; these are "
            f"{first.kind} and {second.kind}"
        )
    spatial, temporal = by_stream["spatial"], by_stream["temporal"]
    for what, ours, theirs in (
        ("backbones", spatial.backbone, temporal.backbone),
        ("numbers of classes", spatial.num_classes, temporal.num_classes),
        ("class names", spatial.classes or temporal.classes, temporal.classes or spatial.classes),
    ):
        if ours != theirs:
            raise WeightsError(f"the two base streams have different {what}: {ours} and {theirs}")
    dropouts = {"dropout": spatial.numbers["dropout"], "motion_dropout": temporal.numbers["dropout"]}
    return replace(
        spatial,
        kind=f"{spatial.kind} and {temporal.kind}",
        model=spatial.model.replace("spatial", "two_stream"),
        numbers={**spatial.numbers, **temporal.numbers, **dropouts},
        state={**spatial.state, **temporal.state},
        classifiers=spatial.classifiers + temporal.classifiers,
        classes=spatial.classes or temporal.classes,
        notes=spatial.notes + temporal.notes,
    )


def in_order(conversion: Conversion, order: Sequence[int]) -> Conversion:
    """The classifiers' rows rearranged: row i of the result is row ``order[i]``."""
    rows = torch.tensor(order)
    moved = {name: conversion.state[name][rows] for name in conversion.classifiers}
    return replace(conversion, state={**conversion.state, **moved})


def _canonical(name: str) -> str:
    """ST-MulNet's filters are named after the layer before them, whose name varies; all others keep theirs."""
    match = _EXTRA.fullmatch(name)
    return f"{extra_name(int(match[1]), '_' + match[2])}_{match[3]}" if match else name


def _measure(file: DagFile, arrays: Mapping[str, Array], suffix: str) -> Stream:
    """Depth, width and the rest, from the shapes of a stream's parameters."""
    first, last = (_four(arrays.get(f"{name}{suffix}")) for name in ("conv1_filter", "fc1000_filter"))
    units = {
        match.group(1, 2) for name in arrays if (match := _FIRST_CONV.fullmatch(name)) and (match[3] or "") == suffix
    }
    if first is None or last is None or not units:
        raise WeightsError(
            f"{file.path}: no ResNet of these papers; its {len(file.arrays)} parameters are "
            f"{_listed(list(file.arrays))}"
        )
    of_depth = {depth: {(str(k), u) for k, us in enumerate(stages, 2) for u in us} for depth, stages in UNITS.items()}
    depth = min(UNITS, key=lambda depth: len(units ^ of_depth[depth]))
    outer = [_four(arrays.get(f"res{k}b_branch2{part}_filter{suffix}")) for k in range(2, 6) for part in "ac"]
    return Stream(
        suffix=suffix,
        depth=depth,
        width=first[3],
        channels=first[2],
        num_classes=last[3],
        conv1_bias=depth == 50 or f"conv1_bias{suffix}" in arrays,
        inflated=any(shape is not None and shape[:2] == (1, 3) for shape in outer),
        extra=any(name.startswith(extra_name(k, suffix)) for name in arrays for k in range(2, 6)),
    )


def _check_alike(file: DagFile, spatial: Stream, temporal: Stream) -> None:
    for what, ours, theirs in (
        ("depths", spatial.depth, temporal.depth),
        ("widths", spatial.width, temporal.width),
        ("numbers of classes", spatial.num_classes, temporal.num_classes),
        ("filters over time", (spatial.inflated, spatial.extra), (temporal.inflated, temporal.extra)),
    ):
        if ours != theirs:
            raise WeightsError(
                f"{file.path}: streams of different {what}, {ours} and {theirs}, which no network here has"
            )


def _four(array: Array | None) -> tuple[int, int, int, int] | None:
    """A filter's shape; MATLAB drops dimensions of 1 at the end."""
    if array is None or array.ndim > 4:
        return None
    H, W, C, D = array.shape + (1,) * (4 - array.ndim)
    return H, W, C, D


def _check_tensors(file: DagFile, arrays: Mapping[str, Array], table: Mapping[str, Parameter]) -> None:
    def shaped(name: str, array: Array) -> tuple[int, ...]:
        wanted = table[name].shape if name in table else ()
        if len(wanted) == 1:  # a row or a column
            return (array.size,) if array.size == max(array.shape, default=1) else array.shape
        return (_four(array) or array.shape) if len(wanted) == 4 else array.shape

    with torch.device("meta"):
        wanted = {name: torch.empty(entry.shape) for name, entry in table.items()}
        got = {name: torch.empty(shaped(name, array)) for name, array in arrays.items()}
    if wrong := mismatches(wanted, got):
        raise WeightsError(f"{file.path}: not a network of these papers. Parameters {'; '.join(wrong)}")
    if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise WeightsError(f"{file.path}: parameters with values that are not finite: {_listed(bad)}")
    moments = {name: arrays[name] for name, entry in table.items() if entry.layout == "moments"}
    if bad := [name for name, array in moments.items() if (array[:, 1] < (0.999 * EPSILON) ** 0.5).any()]:
        raise WeightsError(
            f"{file.path}: the second column of moments is sigma, sqrt(variance + {EPSILON:g}), and cannot be below "
            f"{EPSILON**0.5:.4f}, as it is in {_listed(bad)}"
        )


def _pooling(file: DagFile) -> Pooling | None:
    """The pooling over time; where it stands is checked with the rest of the connections."""
    found = set()
    for layer in file.layers:
        if layer.kind == "dagnn.PoolTime":
            length, stride = (setting(layer.block, name)[1] for name in ("poolSize", "stride"))
            found.add(Pooling(str(setting(layer.block, "method")[0]), length, stride))
    if len(found) > 1:
        raise WeightsError(f"{file.path}: different poolings over time, which no network here has: {sorted(found)}")
    return found.pop() if found else None


def _one_stream(file: DagFile, stream: Stream, arrays: Mapping[str, Array], pool: Pooling | None) -> Conversion:
    if stream.inflated or stream.extra or pool is not None:
        raise WeightsError(f"{file.path}: a single stream with filters or pooling over time, which no network here has")
    image = stream.channels == 3 and any(layer.kind == "dagnn.SoftMax" for layer in file.layers)
    if image:
        kind, model, numbers = "image network", "", {}
        backbone, classifier = "", "fc."
    else:
        kind, part = ("spatial", "appearance") if stream.channels == 3 else ("temporal", "motion")
        model, numbers = f"{kind}_resnet{stream.depth}", {"dropout": _dropout(file, "")}
        backbone, classifier = f"{part}.backbone.", f"{part}.classifier."
        kind = f"{'RGB' if kind == 'spatial' else 'flow'} base stream"
    if stream.channels != 3:
        numbers["flow_length"] = _flow_length(file, stream)
    return Conversion(
        kind=f"{kind}, ResNet-{stream.depth}",
        model=model,
        backbone=_identity(stream),
        numbers={"layout": "caffe", "width": stream.width, **numbers},
        num_classes=stream.num_classes,
        state=_state(stream, arrays, backbone=backbone, classifier=classifier),
        classifiers=(f"{classifier}weight", f"{classifier}bias"),
        classes=_own_classes(file, stream),
        notes=_mean_notes(file, RGB_MEAN if stream.channels == 3 else (FLOW_MEAN,) * stream.channels),
    )


def _two_streams(
    file: DagFile,
    streams: Sequence[Stream],
    arrays: Mapping[str, Array],
    operation: Operation,
    pool: Pooling | None,
) -> Conversion:
    spatial, temporal = streams
    filters = {(True, False): "add", (False, True): "multiply"}.get((spatial.inflated, spatial.extra))
    if filters != operation or spatial.depth != 50 or spatial.channels != 3:
        raise WeightsError(
            f"{file.path}: two streams of ResNet-{spatial.depth} on {spatial.channels} and {temporal.channels} "
            f"channels, with motion that enters by {operation}, {'inflated' if spatial.inflated else 'no inflated'} "
            f"filters and {'extra' if spatial.extra else 'no extra'} ones over time: neither ST-ResNet-50 (add, "
            "inflated) nor ST-MulNet-50 (multiply, extra)"
        )
    if pool is not None and (pool.method != "max" or not all(isinstance(size, int) for size in pool[1:])):
        raise WeightsError(f"{file.path}: {pool} over time; known is the maximum over a number of steps")
    kind = f"ST-ResNet, stage {1 if pool is None else 2}" if operation == "add" else "ST-MulNet"
    numbers: dict[str, Any] = {"temporal_pool": None if pool is None else pool.length}
    if pool is not None:
        numbers["temporal_pool_stride"] = pool.stride
    state = {
        name: tensor
        for stream, part in ((spatial, "appearance"), (temporal, "motion"))
        for name, tensor in _state(
            stream, arrays, backbone=f"{part}.backbone.", classifier=f"{part}.classifier."
        ).items()
    }
    return Conversion(
        kind=f"{kind}, ResNet-50",
        model="st_resnet50" if operation == "add" else "st_mulnet50",
        backbone=_identity(spatial),
        numbers={
            "layout": "caffe",
            "width": spatial.width,
            "flow_length": _flow_length(file, temporal),
            "dropout": _dropout(file, "_spatial"),
            "motion_dropout": _dropout(file, "_temporal"),
            **numbers,
        },
        num_classes=spatial.num_classes,
        state=state,
        classifiers=tuple(f"{part}.classifier.{of}" for part in ("appearance", "motion") for of in ("weight", "bias")),
        classes=_own_classes(file, spatial),
        notes=_mean_notes(file, (FLOW_MEAN,) * temporal.channels + RGB_MEAN),
    )


def _identity(stream: Stream) -> str:
    return f"resnet{stream.depth}-caffe" + ("" if stream.width == 64 else f"-width{stream.width}")


def _own_classes(file: DagFile, stream: Stream) -> tuple[str, ...]:
    """The file's class names, unless they are of another network's classes (ImageNet's, before it was trained on)."""
    names = file.classes
    return names if len(names) == stream.num_classes and len(set(names)) == len(names) else ()


def _flow_length(file: DagFile, stream: Stream) -> int:
    if stream.channels % 2:
        raise WeightsError(
            f"{file.path}: the motion stream reads {stream.channels} channels; u and v make an even number"
        )
    return stream.channels // 2


def _dropout(file: DagFile, suffix: str) -> float:
    """The share of features before the classifier that training set to zero."""
    rates = [
        layer.block.get("rate")
        for layer in file.layers
        if layer.kind == "dagnn.DropOut" and layer.name.endswith(suffix)
    ]
    return next(
        (round(float(rate.item()), 6) for rate in rates if isinstance(rate, np.ndarray) and rate.size == 1), 0.0
    )


def _mean_notes(file: DagFile, mean: Sequence[float]) -> tuple[str, ...]:
    """Our networks subtract the published means; a file that says otherwise was trained on other inputs."""
    if len(file.mean) == len(mean) and max(abs(a - b) for a, b in zip(file.mean, mean, strict=True)) > 0.5:
        listed = ", ".join(f"{value:.1f}" for value in file.mean)
        return (f"{file.path.name} was trained on inputs less {listed}; here {', '.join(f'{m:.1f}' for m in mean)}",)
    return ()


def _state(stream: Stream, arrays: Mapping[str, Array], *, backbone: str, classifier: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, (_, ours, layout) in stream.parameters().items():
        array = arrays[name].astype(np.float64)
        if layout == "moments":
            # Our batch norm adds epsilon to the variance before the root; in the file that is done.
            state[f"{backbone}{ours}.running_mean"] = torch.from_numpy(array[:, 0].copy())
            state[f"{backbone}{ours}.running_var"] = torch.from_numpy(array[:, 1] ** 2 - EPSILON)
            state[f"{backbone}{ours}.num_batches_tracked"] = torch.tensor(0)
            continue
        place = (classifier if name.startswith("fc1000") else backbone) + ours
        if layout == "vector":
            state[place] = torch.from_numpy(array.reshape(-1))
            continue
        # H x W x Cin x Cout -> Cout x Cin x H x W
        weight = torch.from_numpy(np.ascontiguousarray(array.reshape(_four(array)).transpose(3, 2, 0, 1)))
        if layout == "time":
            weight = weight.transpose(2, 3).unsqueeze(-1)  # 1 x 3 x Cin x Cout -> Cout x Cin x 3 x 1 x 1
        state[place] = weight.flatten(1) if layout == "classifier" else weight
    if not stream.conv1_bias:
        state[f"{backbone}conv1.bias"] = torch.zeros(stream.width, dtype=torch.float64)
    return state


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", and {len(names) - 5} more" if len(names) > 5 else "")


__all__ = ["Conversion", "in_order", "join", "recognise"]
