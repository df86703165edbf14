"""A vector of floats as a Numba type, so that a kernel says itself what is computed side by side.

Numba's own vectoriser gives up on loops that read and write a dozen rows of one array, because it cannot prove that
the rows are apart. Here the order of loads and stores is the order of the source. LLVM splits the vectors into what
the CPU has: sixteen lanes are one register of AVX-512, two of AVX2, four of SSE or NEON.

Arithmetic may be contracted and uses reciprocal estimates with a Newton step, so the last bits differ between types
of CPU; on one type they do not depend on position or neighbours.
"""

# Numba calls these functions with arguments that not all of them need.
# ruff: noqa: ARG001
#
# Numba and llvmlite have no types, and neither has what they compile.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, allow-subclassing-any

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as _intrinsic
from numba.extending import lower_builtin, models, register_model

LANES = 16

# What it makes takes other arguments than the function that it is given.
intrinsic: Any = _intrinsic

_FLAGS = ("nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc")
_FLOAT = ir.FloatType()
_INT = ir.IntType(32)


class Lanes(types.Type):
    """``count`` floats of 32 bit."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Lanes({count})")

    @property
    def llvm(self) -> ir.VectorType:
        """Its type in LLVM."""
        return ir.VectorType(_FLOAT, self.count)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


_OPERATIONS = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}


def _register(operation: Callable[..., Any], name: str) -> None:
    class Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if not kws and len(args) == 2 and isinstance(args[0], Lanes) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    infer_global(operation)(Typing)

    @lower_builtin(operation, Lanes, Lanes)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, name)(*args, flags=_FLAGS)


for _operation, _name in _OPERATIONS.items():
    _register(_operation, _name)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index])


def _vector(builder: Any, values: list[Any]) -> Any:
    vector = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for k, value in enumerate(values):
        vector = builder.insert_element(vector, value, ir.Constant(_INT, k))
    return vector


def _splat(builder: Any, value: Any, count: int) -> Any:
    first = builder.insert_element(ir.Constant(ir.VectorType(_FLOAT, count), ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INT, count), [0] * count))


def _loader(count: int) -> Any:
    def load(typing: Any, array: Any, index: Any) -> Any:
        """The floats of a flat array from ``index`` on."""
        lanes = Lanes(count)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, sig.args[0], *args)
            return builder.load(builder.bitcast(pointer, lanes.llvm.as_pointer()), align=4)

        return lanes(array, types.intp), generate

    return intrinsic(load)


def _splatter(count: int) -> Any:
    def splat(typing: Any, value: Any) -> Any:
        """The same number in each lane."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _splat(builder, args[0], count)

        return Lanes(count)(types.float32), generate

    return intrinsic(splat)


load = _loader(LANES)
load4 = _loader(4)
splat = _splatter(LANES)
splat4 = _splatter(4)


@intrinsic
def read(typing: Any, array: Any, index: Any) -> Any:
    """One number of a flat array; unlike ``array[index]`` it does not ask whether the index counts from the end."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, sig.args[0], *args))

    return types.float32(array, types.intp), generate


@intrinsic
def write(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write one number into a flat array; see :func:`read`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the lanes into a flat array from ``index`` on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], *args[:2])
        builder.store(args[2], builder.bitcast(pointer, sig.args[2].llvm.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


def _call(name: str, operands: int) -> Any:
    """One of LLVM's functions of vectors."""

    def function(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0].llvm
        full = f"llvm.{name}.v{sig.args[0].count}f32"
        callee = cgutils.get_or_insert_function(builder.module, ir.FunctionType(lanes, [lanes] * operands), full)
        return builder.call(callee, args, fastmath=_FLAGS)

    return function


@intrinsic
def minimum(typing: Any, a: Any, b: Any) -> Any:
    """The smaller one, lane by lane."""
    return a(a, b), _call("minnum", 2)


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger one, lane by lane."""
    return a(a, b), _call("maxnum", 2)


@intrinsic
def square_root(typing: Any, a: Any) -> Any:
    """The square root, lane by lane."""
    return a(a), _call("sqrt", 1)


@intrinsic
def rounded_down(typing: Any, a: Any) -> Any:
    """The whole number below, lane by lane."""
    return a(a), _call("floor", 1)


@intrinsic
def where_above(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """``yes`` in the lanes where ``a > b``, ``no`` in the others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return yes(a, b, yes, no), generate


@intrinsic
def shifted_in(typing: Any, before: Any, here: Any) -> Any:
    """Each lane's left neighbour: the last of ``before``, then all of ``here`` but its last."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = sig.args[0].count
        mask = ir.Constant(ir.VectorType(_INT, count), list(range(count - 1, 2 * count - 1)))
        return builder.shuffle_vector(args[0], args[1], mask)

    return here(before, here), generate


@intrinsic
def in_fours(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Sixteen lanes: four times ``a``, then four times each of the others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _vector(builder, [value for value in args for _ in range(4)])

    return Lanes(16)(*[types.float32] * 4), generate


@intrinsic
def store_in_fours(typing: Any, array: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Write lane by lane: the first of ``a``, ``b``, ``c`` and ``d``, then their second ones, and so on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = sig.args[2].count

        def interleaved(x: Any, y: Any, width: int) -> Any:
            mask = [k for i in range(width) for k in (i, i + width)]
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_INT, 2 * width), mask))

        whole = interleaved(interleaved(args[2], args[4], count), interleaved(args[3], args[5], count), 2 * count)
        pointer = _pointer(context, builder, sig.args[0], *args[:2])
        builder.store(whole, builder.bitcast(pointer, whole.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, a, b, c, d), generate


@intrinsic
def sum_of_fours(typing: Any, vector: Any) -> Any:
    """Four lanes: the sum of the first four, the second four and so on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (value,), count = args, sig.args[0].count
        while count > 4:
            count //= 2
            halves = [
                builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(_INT, count), list(range(k, k + count))))
                for k in (0, count)
            ]
            value = builder.fadd(*halves, flags=_FLAGS)
        return value

    return Lanes(4)(vector), generate


@intrinsic
def lane(typing: Any, vector: Any, number: Any) -> Any:
    """One lane's number."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], builder.trunc(args[1], _INT))

    return types.float32(vector, types.intp), generate


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """The sum of the lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0]
        callee = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_FLOAT, [_FLOAT, lanes.llvm]),
            f"llvm.vector.reduce.fadd.v{lanes.count}f32",
        )
        return builder.call(callee, [ir.Constant(_FLOAT, 0.0), args[0]], fastmath=_FLAGS)

    return types.float32(vector), generate
