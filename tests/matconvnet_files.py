"""MatConvNet's files as the papers' authors made them: the layers their scripts connect, and both of MATLAB's formats.

Values are written plainly: a dict is a struct, a list of dicts an array of structs, a tuple a cell, a str text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io

from st_resnet_reference import UNITS

Arrays = Mapping[str, npt.NDArray[Any]]
Net = dict[str, Any]


def layer(name: str, kind: str, inputs: Sequence[str], output: str, params: Sequence[str] = (), **block: Any) -> Net:
    """One entry of ``net.layers``; numbers of its block become rows."""
    block = {key: value if isinstance(value, str) else np.array([value], float) for key, value in block.items()}
    return {
        "name": name,
        "type": f"dagnn.{kind}",
        "inputs": tuple(inputs),
        "outputs": (output,),
        "params": tuple(params),
        "block": block or np.zeros((0, 0)),
    }


def image_layers(units: Mapping[int, Sequence[str]] = UNITS, *, conv1_bias: bool = True) -> list[Net]:
    """A ResNet as MatConvNet's importer of Caffe models writes it: in-place layers append an x to the variable."""
    layers: list[Net] = []

    def conv(name: str, x: str, size: int, stride: int = 1, bias: bool = False) -> str:
        params = [f"{name}_filter", f"{name}_bias"] if bias else [f"{name}_filter"]
        pad = size // 2
        layers.append(layer(name, "Conv", [x], name, params, hasBias=[bias], pad=[pad] * 4, stride=[stride] * 2))
        norm = name.replace("res", "bn") if name.startswith("res") else f"bn_{name}"
        params = [f"{norm}_{part}" for part in ("mult", "bias", "moments")]
        layers.append(layer(norm, "BatchNorm", [name], f"{name}x", params, epsilon=[1e-5]))
        return f"{name}x"

    def relu(name: str, x: str) -> str:
        layers.append(layer(f"{name}_relu", "ReLU", [x], f"{x}x", leak=[0]))
        return f"{x}x"

    x = relu("conv1", conv("conv1", "data", 7, 2, conv1_bias))
    layers.append(
        layer("pool1", "Pooling", [x], "pool1", method="max", poolSize=[3, 3], stride=[2, 2], pad=[0, 1, 0, 1])
    )
    x = "pool1"
    for k, letters in units.items():
        for u in letters:
            unit, stride = f"res{k}{u}", 2 if k > 2 and u == "a" else 1
            shortcut = conv(f"{unit}_branch1", x, 1, stride) if u == "a" else x
            y = relu(f"{unit}_branch2a", conv(f"{unit}_branch2a", x, 1, stride))
            y = relu(f"{unit}_branch2b", conv(f"{unit}_branch2b", y, 3))
            y = conv(f"{unit}_branch2c", y, 1)
            layers.append(layer(unit, "Sum", [shortcut, y], unit))
            x = relu(unit, unit)
    layers.append(layer("pool5", "Pooling", [x], "pool5", method="avg", poolSize=[7, 7], stride=[1, 1], pad=[0] * 4))
    params = ["fc1000_filter", "fc1000_bias"]
    layers.append(layer("fc1000", "Conv", ["pool5"], "fc1000", params, hasBias=[True], pad=[0] * 4, stride=[1, 1]))
    layers.append(layer("prob", "SoftMax", ["fc1000"], "prob"))
    return layers


def base_layers(*, dropout: float | None = None, **of_image: Any) -> list[Net]:
    """A base stream: no softmax, a loss, errors, and perhaps dropout before the classifier."""
    layers = image_layers(**of_image)[:-1]
    layers[0]["inputs"] = ("input",)
    if dropout is not None:
        layers.append(layer("drop_pool5", "DropOut", ["pool5"], "drop_pool5", rate=[dropout]))
        by_name(layers, "fc1000")["inputs"] = ("drop_pool5",)
    layers.append(layer("loss_fc1000", "Loss", ["fc1000", "label"], "objective_fc1000", loss="softmaxlog"))
    layers.append(layer("top1error", "Loss", ["fc1000", "label"], "top1error", loss="classerror"))
    return layers


def stage1_layers(
    *, kind: str = "Sum", filters: str = "outer", dropout: float | None = None, sends: Sequence[int] = (2, 3, 4, 5)
) -> list[Net]:
    """Both base streams, connected: ``filters`` over time replace the "outer" ones of units b, or are "extra"."""
    layers: list[Net] = []
    for stream in ("spatial", "temporal"):
        for one in base_layers(dropout=dropout if stream == "temporal" else None):
            name = "prediction" if one["name"] == "fc1000" else one["name"]
            one["name"] = f"{name}_{stream}"
            for key in ("inputs", "outputs", "params"):
                one[key] = tuple(entry if entry == "label" else f"{entry}_{stream}" for entry in one[key])
            layers.append(one)
    layers[0]["inputs"] = ("input",)
    by_name(layers, "conv1_temporal")["inputs"] = ("input_flow",)
    for k in sends:
        name = f"res{k}a_relu_spatial_sum"
        place = layers.index(by_name(layers, f"res{k}a_relu_spatial"))
        layers.insert(place + 1, layer(name, kind, [f"res{k}ax_temporal", f"res{k}a_spatial"], name))
        by_name(layers, f"res{k}b_branch2a_spatial")["inputs"] = (name,)
    for k in (2, 3, 4, 5):
        for stream in ("spatial", "temporal"):
            if filters == "outer":
                for part in "ac":
                    one = by_name(layers, f"res{k}b_branch2{part}_{stream}")
                    one |= {"type": "dagnn.ConvTime", "block": {**one["block"], "pad": np.array([[0.0, 0, 1, 1]])}}
            elif filters == "extra":
                # Appended at the end, as addLayer does; layers are computed in the order of their variables.
                before = f"res{k}b_branch2b_relu_{stream}"
                name, x = f"{before}_Time", f"res{k}b_branch2bxx_{stream}"
                by_name(layers, f"res{k}b_branch2c_{stream}")["inputs"] = (name,)
                layers.append(
                    layer(name, "ConvTime", [x], name, [f"{name}_f", f"{name}_b"], pad=[0, 0, 1, 1], stride=[1, 1])
                )
    return layers


def pooled(layers: list[Net], *, length: float = 5, stride: float = 2, method: str = "max") -> list[Net]:
    """With a pooling over time behind res5c_relu of both streams."""
    for stream in ("spatial", "temporal"):
        name = f"res5c_relu_pool_{stream}"
        by_name(layers, f"pool5_{stream}")["inputs"] = (name,)
        sizes = {"poolSize": [1, length], "stride": [1, stride], "pad": [0] * 4}
        layers.append(layer(name, "PoolTime", [f"res5cx_{stream}"], name, method=method, **sizes))
    return layers


def by_name(layers: Sequence[Net], name: str) -> Net:
    return next(one for one in layers if one["name"] == name)


def net(layers: Sequence[Net], arrays: Arrays, **meta: Any) -> Net:
    """What DagNN.saveobj gives."""
    return {
        "vars": [
            {"name": "input", "precious": np.array([[False]])},
            {"name": "label", "precious": np.array([[False]])},
        ],
        "params": [
            {"name": name, "value": value, "learningRate": np.ones((1, 1)), "weightDecay": np.ones((1, 1))}
            for name, value in arrays.items()
        ],
        "layers": list(layers),
        "meta": {"normalization": {"imageSize": np.array([[224.0, 224, 3, 10]])}} | meta,
        "conserveMemory": np.ones((1, 1)),
    }


def write(path: Path, variables: Mapping[str, Any], *, version: str = "5", compressed: bool = False) -> Path:
    """A file of MATLAB's version 5 (by scipy) or 7.3 (HDF5, by hand)."""
    if version == "5":
        values = {name: _for_scipy(value) for name, value in variables.items()}
        scipy.io.savemat(path, values, do_compression=compressed, oned_as="column")
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            _put(file, file, name, value)
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(text)
    return path


def _for_scipy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _for_scipy(entry) for key, entry in value.items()}
    if isinstance(value, list):
        rows = np.empty((1, len(value)), dtype=[(key, object) for key in value[0]])
        for column, row in enumerate(value):
            for key, entry in row.items():
                rows[key][0, column] = _for_scipy(entry)
        return rows
    if isinstance(value, tuple):
        cell = np.empty((1, len(value)) if value else (0, 0), dtype=object)
        for column, entry in enumerate(value):
            cell[0, column] = _for_scipy(entry)
        return cell
    return value


def _put(file: Any, group: Any, name: str, value: Any) -> None:
    if isinstance(value, dict):
        struct = group.create_group(name)
        struct.attrs["MATLAB_class"] = np.bytes_("struct")
        for key, entry in value.items():
            _put(file, struct, key, entry)
    elif isinstance(value, list):
        struct = group.create_group(name)
        struct.attrs["MATLAB_class"] = np.bytes_("struct")
        for key in value[0]:
            references = [[_reference(file, row[key])] for row in value]
            struct.create_dataset(key, data=np.array(references, dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)
    elif isinstance(value, tuple):
        _dataset(group, name, [[_reference(file, entry)] for entry in value], "cell", h5py.ref_dtype)
    elif isinstance(value, str):
        _dataset(group, name, [[ord(letter)] for letter in value], "char", np.uint16)
    else:
        array = np.asarray(value)
        kind = {"f4": "single", "f8": "double", "b1": "logical"}.get(array.dtype.str[1:], "double")
        _dataset(group, name, array.T, kind, np.uint8 if kind == "logical" else array.dtype)


def _dataset(group: Any, name: str, data: Any, kind: str, dtype: Any) -> None:
    empty = np.size(data) == 0
    item = group.create_dataset(name, data=np.zeros(2, np.uint64) if empty else np.array(data, dtype=dtype))
    item.attrs["MATLAB_class"] = np.bytes_(kind)
    if empty:
        item.attrs["MATLAB_empty"] = np.uint8(1)


def _reference(file: Any, value: Any) -> Any:
    kept = file.require_group("#refs#")
    name = f"v{len(kept)}"
    kept.create_group(name)  # taken before the values inside of it take the next
    _put(file, kept[name], "value", value)
    return kept[name]["value"].ref
