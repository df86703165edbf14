"""A network of MatConvNet as its file lists it: layers, the variables between them, parameters; nothing is judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from twostream.weights.mat_file import read_mat
from twostream.weights.strict import WeightsError

Array = npt.NDArray[Any]


class Layer(NamedTuple):
    """One entry of ``net.layers``: what it does, to which variables, with which parameters and settings."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[str, ...]
    block: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class DagFile:
    """What a file holds.

    Attributes:
        path: where it was found.
        layers: in the file's order, which need not be that of computing.
        arrays: the parameters by MatConvNet's names, in MatConvNet's layouts.
        classes: names in ``net.meta``; files trained from an ImageNet network still hold ImageNet's.
        mean: of ``net.meta.normalization.averageImage``, by channel.
    """

    path: Path
    layers: tuple[Layer, ...]
    arrays: Mapping[str, Array]
    classes: tuple[str, ...]
    mean: tuple[float, ...]


def read_dag(path: Path) -> DagFile:
    """The DagNN of a ``.mat`` file, in its variable ``net`` or spread over the file.

    Raises:
        WeightsError: unreadable, or without such a network.
    """
    found = read_mat(path, ("net", "layers", "params", "meta"))
    net = found.get("net", found)
    listed = net.get("layers") if isinstance(net, dict) else None
    if isinstance(listed, list) and listed and all(isinstance(row, dict) and "inputs" not in row for row in listed):
        names = ", ".join(str(row.get("name")) for row in listed[:5])
        raise WeightsError(
            f"{path}: a SimpleNN of MatConvNet ({len(listed)} layers, the first of them {names}); the networks that "
            "can be converted are kept as DagNN: ImageNet's ResNets, the base streams, ST-ResNet and ST-MulNet"
        )
    layers, params = _rows(listed), _rows(net.get("params") if isinstance(net, dict) else None)
    if not layers or not params:
        raise WeightsError(f"{path}: a MATLAB file without a DagNN of MatConvNet (net.layers and net.params)")
    try:
        return DagFile(
            path,
            tuple(_layer(row) for row in layers),
            {_text(row["name"]): _numbers(row["value"]) for row in params},
            _class_names(net.get("meta")),
            _mean(net.get("meta")),
        )
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path}: its layers or parameters are not as MatConvNet writes them ({error})") from error


def _rows(value: Any) -> list[dict[str, Any]]:
    rows = [value] if isinstance(value, dict) else value
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else []


def _layer(row: Mapping[str, Any]) -> Layer:
    inputs, outputs, params = (_texts(row[field]) for field in ("inputs", "outputs", "params"))
    block = row["block"] if isinstance(row["block"], dict) else {}
    return Layer(_text(row["name"]), _text(row["type"]), inputs, outputs, params, block)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text was wanted, got {type(value).__name__}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    """A cell of texts, a single text, or an empty matrix."""
    if isinstance(value, np.ndarray) and value.size == 0:
        return ()
    return tuple(_text(entry) for entry in ([value] if isinstance(value, str) else value))


def _numbers(value: Any) -> Array:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise TypeError(f"numbers were wanted, got {type(value).__name__}")
    return value


def _inside(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _class_names(meta: Any) -> tuple[str, ...]:
    names = _inside(meta, "classes", "name")
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _mean(meta: Any) -> tuple[float, ...]:
    image = _inside(meta, "normalization", "averageImage")
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "fiu" or image.size == 0:
        return ()
    channels = image if image.ndim == 3 else image.reshape(1, 1, -1)
    return tuple(float(mean) for mean in channels.mean((0, 1), dtype=np.float64))


__all__ = ["Array", "DagFile", "Layer", "read_dag"]
