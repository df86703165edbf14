"""The loops of the store's codec for 8-bit fields, compiled by Numba; ``flow/codecs.py`` says what is around them.

A field is coded row by row, u above v, as differences to the row above (the first row of each: to 128). 32 px of a row
are a group, four of them a block. Each group has a byte that says which of its eight blocks differ, and each of those
has a code: a number of :data:`PATTERNS`, or an escape. So reading costs a table look-up per block that differs and one
addition of vectors per group, with few branches that the CPU cannot foresee: those cost more than all else.
"""

# Numba and llvmlite have no types, and neither has what they compile.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from twostream.flow.compiled import OPTIONS, kernel

GROUP = 32
BLOCKS = 8
# Differences of a block, each in -8 to 7, as four nibbles in two bytes; or as they are, in four bytes.
NIBBLES, PLAIN = 254, 255
# Code and escape of all its blocks.
LONGEST_GROUP = BLOCKS * 5

# Side of the cube of blocks that may have a code of their own: differences of -6 to 6.
_REACH = 6
_SIDE = 2 * _REACH + 1

_SOURCES = (Path(__file__),)
_INNER = {**OPTIONS, "forceinline": True}
_LOW, _HIGH = np.uint32(0x7F7F7F7F), np.uint32(0x80808080)
_NOTHING = np.uint64(0)


def _patterns() -> tuple[Any, Any]:
    """The blocks that have a code, code -> four differences as one word, and its inverse over the cube.

    Measured on DIS and TV-L1 of real clips, 94 to 96 % of the blocks that differ are among the 253 with the least
    3 max|d| + 2 sum|d_i - d_(i-1)|; the best 253 for each would be 94 to 97 %.
    """
    cube = np.stack(np.meshgrid(*[np.arange(-_REACH, _REACH + 1)] * 4, indexing="ij"), -1).reshape(-1, 4)
    cost = 3 * abs(cube).max(1) + 2 * abs(np.diff(cube, axis=1)).sum(1)
    # No difference has no cost and is first: code 0, which stands for a block without a code.
    chosen = np.argsort(cost, kind="stable")[:NIBBLES]
    words = np.zeros(256, np.uint32)
    words[:NIBBLES] = cube[chosen].astype(np.int8).view(np.uint32).ravel()
    codes = np.full(len(cube), NIBBLES, np.uint8)
    codes[chosen] = np.arange(NIBBLES)
    return words, codes


def _places() -> Any:
    """Mask -> where in the group the blocks that differ begin, beyond it when there are no more; and their number."""
    places = np.full((256, BLOCKS + 1), GROUP, np.uint8)
    for mask in range(256):
        blocks = [k for k in range(BLOCKS) if mask >> k & 1]
        places[mask, : len(blocks)] = [4 * k for k in blocks]
        places[mask, BLOCKS] = len(blocks)
    return places


PATTERNS, CODES = _patterns()
PLACES = _places()


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _loader(bits: int, result: Any) -> Any:
    def load(_typing: Any, array: Any, _index: Any) -> Any:
        """The bytes from an index on as one word."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, index = args
            return builder.load(_pointer(context, builder, sig.args[0], array, index, ir.IntType(bits)), align=1)

        return result(array, types.intp), generate

    return intrinsic(load)


def _storer(bits: int, kind: Any) -> Any:
    def store(_typing: Any, array: Any, _index: Any, _value: Any) -> Any:
        """Write one word's bytes from an index on."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, index, value = args
            builder.store(value, _pointer(context, builder, sig.args[0], array, index, ir.IntType(bits)), align=1)
            return context.get_dummy_value()

        return types.void(array, types.intp, kind), generate

    return intrinsic(store)


_load32, _store32 = _loader(32, types.uint32), _storer(32, types.uint32)
_store64 = _storer(64, types.uint64)


def _adder() -> Any:
    def add_group(_typing: Any, into: Any, _i: Any, first: Any, _j: Any, second: Any, _k: Any) -> Any:
        """``into[i:i+32] = first[j:j+32] + second[k:k+32]``, modulo 256."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8), GROUP)
            into, one, other = (
                _pointer(context, builder, sig.args[n], args[n], args[n + 1], vector) for n in range(0, 6, 2)
            )
            builder.store(builder.add(builder.load(one, align=1), builder.load(other, align=1)), into, align=1)
            return context.get_dummy_value()

        return types.void(into, types.intp, first, types.intp, second, types.intp), generate

    return intrinsic(add_group)


_add_group = _adder()


@njit(**_INNER)
def _difference(a, b):
    """``a - b``, each of four bytes modulo 256."""
    return np.uint32(((a | _HIGH) - (b & _LOW)) ^ ((a ^ ~b) & _HIGH))


@njit(**_INNER)
def _code(word):
    """The code of a block's differences, given as one word."""
    place = np.int64(0)
    near = small = True
    for k in range(4):
        d = np.int64(np.int8((word >> np.uint32(8 * k)) & np.uint32(255)))
        if not -_REACH <= d <= _REACH:
            near = False
        if not -8 <= d <= 7:
            small = False
        place = place * _SIDE + d + _REACH
    if near:
        return np.int64(CODES[place])
    return np.int64(NIBBLES if small else PLAIN)


def encode(field, rows, masks, codes, escapes, ends):
    """Code a field.

    Args:
        field: (2, H, W) uint8.
        rows: buffer of twice the whole groups of a row.
        masks: one byte per group.
        codes, escapes: what follows, each from its beginning.
        ends: how many bytes there are of ``codes`` and ``escapes``.
    """
    H, W = field.shape[1], field.shape[2]
    groups = (W + GROUP - 1) // GROUP
    above, row = 0, groups * GROUP
    group = code_end = escape_end = 0
    for plane in range(2):
        for x in range(2 * groups * GROUP):
            rows[x] = 128
        for y in range(H):
            for x in range(W):
                rows[row + x] = field[plane, y, x]
            for x in range(0, groups * GROUP, GROUP):
                mask = 0
                for k in range(BLOCKS):
                    word = _difference(_load32(rows, row + x + 4 * k), _load32(rows, above + x + 4 * k))
                    if word == 0:
                        continue
                    mask |= 1 << k
                    code = _code(word)
                    codes[code_end] = code
                    code_end += 1
                    if code == NIBBLES:
                        for half in range(2):
                            pair = word >> np.uint32(16 * half)
                            escapes[escape_end] = ((pair + 8) & 15) | ((((pair >> 8) + 8) & 15) << 4)
                            escape_end += 1
                    elif code == PLAIN:
                        _store32(escapes, escape_end, word)
                        escape_end += 4
                masks[group] = mask
                group += 1
            for x in range(W):
                rows[above + x] = rows[row + x]
    ends[0], ends[1] = code_end, escape_end


@njit(**_INNER)
def _put(data, code, escape, rows, x, places, differ, first, last, count, patterns):
    """Differences of some blocks into their group; gives the place of the next escape."""
    for k in range(first, last):
        number = data[code + k]
        word = patterns[number]
        if number >= NIBBLES and k < count:
            if number == NIBBLES:
                a, b = np.uint32(data[escape]), np.uint32(data[escape + 1])
                nibbles = (a & 15) | ((a >> 4) << 8) | ((b & 15) << 16) | ((b >> 4) << 24)
                word = _difference(np.uint32(nibbles), np.uint32(0x08080808))
                escape += 2
            else:
                word = _load32(data, escape)
                escape += 4
        _store32(rows, x + np.int64(places[differ, k]), word)
    return escape


def decode(data, mask, code, escape, end, field, rows, patterns, places):
    """The inverse of :func:`encode`; False where the data are not a field of this size.

    Args:
        data: the bytes, followed by LONGEST_GROUP for each group of a row, and 8, that are read by damaged data only.
        mask, code, escape: where each of the three parts begins, one behind the other.
        end: of the last.
        field: (2, H, W) uint8, to be written.
        rows: buffer of twice the whole groups of a row, and one group.
        patterns, places: :data:`PATTERNS` and :data:`PLACES`.
    """
    H, W = field.shape[1], field.shape[2]
    width = (W + GROUP - 1) // GROUP * GROUP
    first_escape = escape
    still = width + GROUP
    for x in range(width):
        rows[still + x] = 128
    for plane in range(2):
        for y in range(H):
            # Looked at once a row; what a row can take beyond is within ``data``.
            if code > first_escape or escape > end:
                return False
            for x in range(0, width, GROUP):
                for k in range(0, GROUP, 8):
                    _store64(rows, x + k, _NOTHING)
                differ = np.int64(data[mask])
                mask += 1
                count = np.int64(places[differ, BLOCKS])
                escape = _put(data, code, escape, rows, x, places, differ, 0, 5, count, patterns)
                if count > 5:
                    escape = _put(data, code, escape, rows, x, places, differ, 5, 8, count, patterns)
                code += count
            at = (plane * H + y) * W
            if W < GROUP:
                for x in range(W):
                    field[plane, y, x] = rows[x] + (field[plane, y - 1, x] if y else 128)
            else:
                # The last group begins where it ends with the row; what overlaps is computed twice.
                for x in range(0, W + GROUP - 1, GROUP):
                    x = min(x, W - GROUP)
                    if y:
                        _add_group(field, at + x, field, at + x - W, rows, x)
                    else:
                        _add_group(field, at + x, rows, still + x, rows, x)
    return code == first_escape and escape == end


_BYTES = "uint8[::1]"
encode = kernel(f"void(uint8[:,:,::1], {', '.join([_BYTES] * 4)}, int64[::1])", *_SOURCES)(encode)
decode = kernel(
    f"boolean({_BYTES}, intp, intp, intp, intp, uint8[:,:,::1], {_BYTES}, uint32[::1], uint8[:,::1])", *_SOURCES
)(decode)

__all__ = ["BLOCKS", "CODES", "GROUP", "LONGEST_GROUP", "NIBBLES", "PATTERNS", "PLACES", "PLAIN", "decode", "encode"]
