"""MATLAB files as plain values: a struct becomes a dict, a cell a list, text a str, numbers an array.

Both kinds in use are read: version 5 (``-v6``, ``-v7``) with scipy and version 7.3, which is HDF5, with h5py. Nothing
in a file is run: function handles and objects become :class:`Unread`.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from twostream.weights.strict import WeightsError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 50  # structs within structs; a file that refers to itself has no bottom


class Unread(NamedTuple):
    """A value that stays in the file: a function handle, an object, a sparse matrix."""

    kind: str


def read_mat(path: Path, names: Collection[str]) -> dict[str, Any]:
    """The variables of ``names`` that the file has.

    A struct of one element is a dict, one of several a list of dicts; arrays keep MATLAB's order of dimensions.

    Raises:
        WeightsError: no such file, not a MATLAB file, damaged, or the reader is not installed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    if head.startswith(b"MATLAB 7.3") or _HDF5 in (head[:8], head[512:520]):
        reader, kind = _read_hdf5, "7.3 (HDF5)"
    elif head.startswith(b"MATLAB 5.0 MAT-file"):
        reader, kind = _read_version5, "5"
    else:
        raise WeightsError(f"{path} is no MATLAB file, of version 5 or 7.3: it is {_looks_like(head)}")
    try:
        return reader(path, names)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        raise WeightsError(
            f"{path}: MATLAB files of version {kind} are read with {library}, which is not installed; "
            "install it with: pip install 'twostream[matlab]'"
        ) from error
    except Exception as error:  # damaged bytes make the readers fail in any way there is
        reason = str(error).partition("\n")[0] or repr(error)
        raise WeightsError(f"{path}: a MATLAB file of version {kind} that is damaged or cut off ({reason})") from error


def _looks_like(head: bytes) -> str:
    for start, kind in (
        (b"", "empty") if not head else (b"PK\x03\x04", "a zip archive, as PyTorch writes"),
        (b"\x80", "a pickle, which is never opened here"),
        (b"<", "a page of text, perhaps what a server answered"),
    ):
        if head.startswith(start):
            return kind
    return "something else"


def _read_version5(path: Path, names: Collection[str]) -> dict[str, Any]:
    import scipy.io

    found = scipy.io.loadmat(path, variable_names=list(names))
    return {name: _plain(value) for name, value in found.items() if name in names}


def _plain(value: Any, depth: int = 0) -> Any:
    """What scipy gives, without its wrappers."""
    import scipy.io.matlab as matlab

    if depth > _DEEPEST:
        raise ValueError("structs nested without end")
    if isinstance(value, matlab.MatlabFunction | matlab.MatlabObject | matlab.MatlabOpaque):
        return Unread(type(value).__name__)
    if not isinstance(value, np.ndarray):
        return Unread(type(value).__name__)
    if value.dtype.names is not None:
        rows = [{name: _plain(row[name], depth + 1) for name in value.dtype.names} for row in value.flatten("F")]
        return rows[0] if len(rows) == 1 else rows
    if value.dtype == object:
        return [_plain(entry, depth + 1) for entry in value.flatten("F")]
    if value.dtype.kind == "U":
        return "".join(str(line) for line in value.flatten())
    return value


def _read_hdf5(path: Path, names: Collection[str]) -> dict[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        return {name: _from_hdf5(_member(file, name), file) for name in names if name in file}


def _member(group: Any, name: str) -> Any:
    import h5py

    # A link may name another file of this machine; whoever wrote the file has no business there.
    link = group.get(name, getlink=True)
    if type(link) is not h5py.HardLink:
        raise ValueError(f"{name} is a link to another place")
    return group[name]


def _from_hdf5(item: Any, file: Any, depth: int = 0) -> Any:
    """A group or data set as ``-v7.3`` lays values out: dimensions reversed, cells and structs by reference."""
    import h5py

    if depth > _DEEPEST:
        raise ValueError("structs nested without end")
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
    if isinstance(item, h5py.Group):
        if kind != "struct":
            return Unread(kind or "group")
        members = {name: _member(item, name) for name in item}
        if members and all(_is_row_of_references(member) for member in members.values()):
            columns = {
                name: [_from_hdf5(file[reference], file, depth + 1) for reference in member[()].flatten()]
                for name, member in members.items()
            }
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return {name: _from_hdf5(member, file, depth + 1) for name, member in members.items()}
    if item.external:
        raise ValueError(f"{item.name} is kept in another file")
    if item.attrs.get("MATLAB_empty", 0):
        shape = tuple(int(size) for size in item[()].flatten())
        return {"char": "", "cell": [], "struct": []}.get(kind, np.zeros(shape))
    if kind == "cell":
        return [_from_hdf5(file[reference], file, depth + 1) for reference in item[()].flatten()]
    if kind == "char":
        return "".join(map(chr, item[()].flatten()))
    if item.dtype.kind not in "fiub" or kind == "function_handle" or "MATLAB_sparse" in item.attrs:
        return Unread(kind or str(item.dtype))
    return item[()].T


def _is_row_of_references(item: Any) -> bool:
    """Whether a struct's field is one of many elements: references without a class (a cell's have one)."""
    import h5py

    return (
        isinstance(item, h5py.Dataset)
        and h5py.check_ref_dtype(item.dtype) is not None
        and "MATLAB_class" not in item.attrs
    )


__all__ = ["Unread", "read_mat"]
