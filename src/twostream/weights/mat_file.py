"""MATLAB files as plain values: a struct becomes a dict, a cell a list, text a str, numbers an array.

Both kinds in use are read: version 5 (``-v6``, ``-v7``), and version 7.3, which is HDF5 and needs h5py. Nothing in a
file is run: function handles and objects become :class:`Unread`.
"""

import math
import struct
import zlib
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
        raise WeightsError(
            f"{path}: MATLAB files of version {kind} are read with h5py, which is not installed; "
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


# version 5 ------------------------------------------------------------------------------------------------------------

# Data types and array classes of the format's elements.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_UNREAD = {3: "object", 5: "sparse matrix", 16: "function handle", 17: "opaque object"}
_LOGICAL, _COMPLEX = 0x0200, 0x0800


def _read_version5(path: Path, names: Collection[str]) -> dict[str, Any]:
    """The format is short, and scipy's reader crashes the interpreter on some damaged files; so it is read here."""
    found = {}
    data = memoryview(path.read_bytes())
    order = {b"IM": "<", b"MI": ">"}[bytes(data[126:128])]
    place = 128
    while place < len(data):
        kind, start, end, following = _tag(data, place, order)
        matrix = data[start:end]
        # Compressed elements follow each other without padding.
        place = end if kind == _COMPRESSED else following
        if kind == _COMPRESSED:
            head = memoryview(zlib.decompressobj().decompress(matrix, 4096))
            if _Elements(head[8:], order).header().name in names:
                matrix = _decompressed(matrix)[8:]
            else:
                continue
        name = _Elements(matrix, order).header().name
        if name in names:
            found[name] = _Elements(matrix, order).value()
    return found


def _decompressed(data: memoryview) -> memoryview:
    decoder = zlib.decompressobj()
    whole = decoder.decompress(data)
    if not decoder.eof:
        raise ValueError("compressed data end too early")
    return memoryview(whole)


def _tag(data: memoryview, place: int, order: str) -> tuple[int, int, int, int]:
    """(type, start, end, start of the next) of the element at ``place``; the data of small ones lie in the tag."""
    first, size = struct.unpack_from(f"{order}2I", data, place)
    if first >> 16:
        kind, size, start, following = first & 0xFFFF, first >> 16, place + 4, place + 8
    else:
        kind, start = first, place + 8
        following = start + size + -size % 8
    if start + size > len(data) or (first >> 16 and size > 4):
        raise ValueError("an element reaches beyond the end")
    return kind, start, start + size, following


class _Header(NamedTuple):
    """What an array begins with."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str


class _Elements:
    """The elements of one array, read one after the other; views of the file until a value is made."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.data = data
        self.order = order
        self.place = 0

    def next(self) -> tuple[int, memoryview]:
        """The type and the data of the next element."""
        kind, start, end, self.place = _tag(self.data, self.place, self.order)
        return kind, self.data[start:end]

    def numbers(self) -> Any:
        """The next element as it is stored."""
        kind, data = self.next()
        return np.frombuffer(data, f"{self.order}{_TYPES[kind]}")

    def text(self) -> str:
        """The next element as a name."""
        return bytes(self.next()[1]).decode("latin-1")

    def header(self) -> _Header:
        flags = int(self.numbers()[0])
        if flags & 0xFF == 17:  # has no size
            return _Header(17, flags, (), self.text())
        shape = tuple(int(size) for size in self.numbers())
        return _Header(flags & 0xFF, flags, shape, self.text())

    def value(self, depth: int = 0) -> Any:
        """The array whose elements these are."""
        if depth > _DEEPEST:
            raise ValueError("structs nested without end")
        if not self.data:  # a field that was never set
            return np.zeros((0, 0))
        kind, flags, shape, _ = self.header()
        count = math.prod(shape)
        if kind in _UNREAD or flags & _COMPLEX:
            return Unread(_UNREAD.get(kind, "complex numbers"))
        if kind == _CELL:
            return [self.inner(depth) for _ in range(count)]
        if kind == _STRUCT:
            length = int(self.numbers()[0])
            text = self.text()
            names = [text[i : i + length].partition("\0")[0] for i in range(0, len(text), length)]
            rows = [{name: self.inner(depth) for name in names} for _ in range(count if names else 0)]
            return rows[0] if len(rows) == 1 else rows
        if kind == _CHAR:
            stored, data = self.next()
            ending = ("-le" if self.order == "<" else "-be") if stored in (4, 17, 18) else ""
            return bytes(data).decode(_TEXTS[stored] + ending)
        array = self.numbers().astype(bool if flags & _LOGICAL else _CLASSES[kind])
        return array.reshape(shape, order="F")

    def inner(self, depth: int) -> Any:
        kind, data = self.next()
        if kind != _MATRIX:
            raise ValueError("an array was wanted inside of a cell or struct")
        return _Elements(data, self.order).value(depth + 1)


# version 7.3 ----------------------------------------------------------------------------------------------------------


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
