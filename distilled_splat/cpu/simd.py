"""An explicit SIMD type for Numba: `LANES` floats that are added, multiplied and compared at once.

Numba vectorises only the loops that LLVM sees through. The kernels here say what is to be a vector instead: values of
the types `floats`, `integers` and `mask` are lowered to LLVM's <LANES x float>, <LANES x i32> and <LANES x i1>. The
operators + - * / and the comparisons work between vectors, and between vectors and scalars. Products and sums may be
contracted to fused multiply-adds; nothing else is relaxed, because `exp2` rounds by adding and subtracting.
"""

from __future__ import annotations

import operator
from typing import Any, Callable, Sequence

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES: int = 16 if llvm.get_host_cpu_features().get("avx512f", False) else 8
"""Floats in a vector: what one register of this processor holds, and at least 8."""

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_CONTRACT = ("contract",)


class VectorType(types.Type):
    """The Numba type of a vector."""


floats = VectorType(f"floats{LANES}")
integers = VectorType(f"integers{LANES}")
mask = VectorType(f"mask{LANES}")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        ir_type = {floats: _FLOATS, integers: _INTS, mask: _MASK}[fe_type]
        super().__init__(dmm, fe_type, ir_type)


def _splat_value(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(
        one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
    )


def _as_vector(context: Any, builder: ir.IRBuilder, value: ir.Value, kind: types.Type) -> ir.Value:
    """Give a vector back as it is, and a scalar in every lane."""
    if kind == floats or kind == integers or kind == mask:
        return value
    return _splat_value(builder, context.cast(builder, value, kind, types.float32), _FLOATS)


def _call_elementwise(builder: ir.IRBuilder, name: str, vectors: Sequence[ir.Value]) -> ir.Value:
    """Call LLVM's function `name` on every lane."""
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(vectors))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, vectors)


def _register_operator(
    op: Callable, result: VectorType, emit: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]
) -> None:
    """Teach Numba `op` between two float vectors, or a float vector and a number."""

    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> Any:
            if len(args) == 2 and floats in args:
                if all(a == floats or isinstance(a, types.Number) for a in args):
                    return signature(result, *args)
            return None

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return emit(builder, *(_as_vector(context, builder, a, t) for a, t in zip(args, sig.args)))

    for kinds in ((floats, floats), (floats, types.Number), (types.Number, floats)):
        lower_builtin(op, *kinds)(lower)


_register_operator(operator.add, floats, lambda b, x, y: b.fadd(x, y, flags=_CONTRACT))
_register_operator(operator.sub, floats, lambda b, x, y: b.fsub(x, y, flags=_CONTRACT))
_register_operator(operator.mul, floats, lambda b, x, y: b.fmul(x, y, flags=_CONTRACT))
_register_operator(operator.truediv, floats, lambda b, x, y: b.fdiv(x, y))
_register_operator(operator.lt, mask, lambda b, x, y: b.fcmp_ordered("<", x, y))
_register_operator(operator.le, mask, lambda b, x, y: b.fcmp_ordered("<=", x, y))
_register_operator(operator.gt, mask, lambda b, x, y: b.fcmp_ordered(">", x, y))
_register_operator(operator.ge, mask, lambda b, x, y: b.fcmp_ordered(">=", x, y))


@infer_global(operator.and_)
class _AndMasks(AbstractTemplate):
    def generic(self, args: tuple, kws: dict) -> Any:
        return signature(mask, mask, mask) if args == (mask, mask) else None


@lower_builtin(operator.and_, mask, mask)
def _and_masks(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
    return builder.and_(*args)


def _element_pointer(context: Any, builder: ir.IRBuilder, kind: types.Array, array: ir.Value, at: ir.Value) -> ir.Value:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [at], inbounds=True)


def _vector_pointer(context: Any, builder: ir.IRBuilder, kind: types.Array, array: ir.Value, at: ir.Value) -> ir.Value:
    vector = _INTS if kind.dtype == types.int32 else _FLOATS
    return builder.bitcast(_element_pointer(context, builder, kind, array, at), vector.as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, at: Any) -> Any:
    """Read the LANES consecutive elements of a contiguous float32 or int32 array from flat position `at`."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.load(_vector_pointer(context, builder, sig.args[0], *args), align=4)

    return (integers if array.dtype == types.int32 else floats)(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write a vector to the LANES consecutive elements of a contiguous array from flat position `at`."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        builder.store(args[2], _vector_pointer(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def gather(typingctx: Any, array: Any, first: Any, stride: Any, count: Any) -> Any:
    """Read elements `first + stride * lane` of a contiguous float32 or int32 array as floats.

    Lanes from `count` on repeat lane `count - 1`, so that a block which is not full needs no special case.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        vector = ir.Constant(_FLOATS, ir.Undefined)
        for lane, at in enumerate(_lane_positions(builder, *args[1:])):
            element = builder.load(_element_pointer(context, builder, sig.args[0], args[0], at))
            if sig.args[0].dtype == types.int32:
                element = builder.sitofp(element, _FLOAT)
            vector = builder.insert_element(vector, element, ir.Constant(_INT, lane))
        return vector

    return floats(array, types.intp, types.intp, types.intp), codegen


@intrinsic
def scatter(typingctx: Any, array: Any, first: Any, stride: Any, count: Any, vector: Any) -> Any:
    """Write the lanes below `count` to elements `first + stride * lane` of a contiguous float32 or int32 array.

    The lanes from `count` on must hold what lane `count - 1` holds: they are written to its place.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        for lane, at in enumerate(_lane_positions(builder, *args[1:4])):
            element = builder.extract_element(args[4], ir.Constant(_INT, lane))
            if sig.args[0].dtype == types.int32:
                element = builder.fptosi(element, _INT)
            builder.store(element, _element_pointer(context, builder, sig.args[0], args[0], at))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, vector), codegen


def _lane_positions(builder: ir.IRBuilder, first: ir.Value, stride: ir.Value, count: ir.Value) -> list[ir.Value]:
    last = builder.sub(count, ir.Constant(count.type, 1))
    positions = []
    for lane in range(LANES):
        index = ir.Constant(count.type, lane)
        index = builder.select(builder.icmp_signed("<", index, last), index, last)
        positions.append(builder.add(first, builder.mul(index, stride)))
    return positions


@intrinsic
def splat(typingctx: Any, scalar: Any) -> Any:
    """Put one number into every lane of a float vector."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return _as_vector(context, builder, args[0], sig.args[0])

    return floats(scalar), codegen


@intrinsic
def splat_integer(typingctx: Any, scalar: Any) -> Any:
    """Put one integer into every lane of an integer vector."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return _splat_value(builder, context.cast(builder, args[0], sig.args[0], types.int32), _INTS)

    return integers(scalar), codegen


@intrinsic
def lane_numbers(typingctx: Any) -> Any:
    """Give the vector 0, 1, 2, ... as floats."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return ir.Constant(_FLOATS, [float(i) for i in range(LANES)])

    return floats(), codegen


@intrinsic
def select(typingctx: Any, where: Any, yes: Any, no: Any) -> Any:
    """Take `yes` in the lanes of the mask and `no` in the others; either may be a scalar, vectors are of one type."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        yes, no = (_as_vector(context, builder, a, t) for a, t in zip(args[1:], sig.args[1:]))
        return builder.select(args[0], yes, no)

    return (integers if integers in (yes, no) else floats)(where, yes, no), codegen


@intrinsic
def any_lane(typingctx: Any, where: Any) -> Any:
    """Tell whether the mask has any lane set."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(where), codegen


@intrinsic
def count_lanes(typingctx: Any, where: Any) -> Any:
    """Count the lanes that a mask has set."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(where), codegen


@intrinsic
def greater_integers(typingctx: Any, a: Any, b: Any) -> Any:
    """Compare two integer vectors: a > b."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.icmp_signed(">", *args)

    return mask(a, b), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Multiply and add with one rounding: a * b + c, the same bits wherever it stands; scalars are allowed."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        vectors = [_as_vector(context, builder, x, t) for x, t in zip(args, sig.args)]
        return _call_elementwise(builder, "fma", vectors)

    return floats(a, b, c), codegen


def _define_unary(name: str, doc: str) -> Any:
    """Make the intrinsic for LLVM's elementwise float function `llvm.<name>`."""

    def function(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
            return _call_elementwise(builder, name, args)

        return floats(vector), codegen

    function.__doc__ = doc
    return intrinsic(function)


square_root = _define_unary("sqrt", "Take the square root of every lane.")
absolute = _define_unary("fabs", "Drop the sign of every lane.")
log2 = _define_unary("log2", "Take the logarithm in base 2 of every lane.")
round_up = _define_unary("ceil", "Round every lane up to an integer.")


def _define_extreme(comparison: str, doc: str) -> Any:
    """Make a minimum or maximum: the first argument where the comparison holds, so that NaN gives the second."""

    def function(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
            a, b = (_as_vector(context, builder, x, t) for x, t in zip(args, sig.args))
            return builder.select(builder.fcmp_ordered(comparison, a, b), a, b)

        return floats(a, b), codegen

    function.__doc__ = doc
    return intrinsic(function)


minimum = _define_extreme("<", "Take the smaller in every lane, and b where either is NaN; either may be a scalar.")
maximum = _define_extreme(">", "Take the larger in every lane, and b where either is NaN; either may be a scalar.")


@intrinsic
def _scale_by_rounded(typingctx: Any, vector: Any, shifted: Any) -> Any:
    """Add the integer in the low bits of `shifted` to the exponent of `vector`."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        bits, exponent = (builder.bitcast(a, _INTS) for a in args)
        exponent = builder.shl(exponent, ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(bits, exponent), _FLOATS)

    return floats(vector, shifted), codegen


_ROUNDING = np.float32(1.5 * 2**23)
"""A float whose last bit is worth 1: adding it rounds to an integer and leaves that integer in the low bits."""

# 2**x on [-0.5, 0.5], fitted for the smallest relative error (9e-8).
_E1, _E2, _E3, _E4, _E5 = (
    np.float32(c) for c in (0.6931469776, 0.2402224209, 0.0555073374, 0.0096715126, 0.0013264727)
)


@njit(nogil=True)
def exp2(x: Any) -> Any:
    """Raise 2 to a vector between -126 and 127, to 2e-7 relative; lanes outside that range hold nothing of use."""
    shifted = x + _ROUNDING
    f = x - (shifted - _ROUNDING)
    polynomial = np.float32(1.0) + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * _E5))))
    return _scale_by_rounded(polynomial, shifted)


def _halves(width: int) -> tuple[list[int], list[int]]:
    """Masks that pair even with odd neighbours of two vectors, within each quarter of four lanes."""
    even, odd = [], []
    for quarter in range(0, width, 4):
        for vector in (0, width):
            even += [vector + quarter, vector + quarter + 2]
            odd += [vector + quarter + 1, vector + quarter + 3]
    return even, odd


def _quarters(width: int) -> tuple[list[int], list[int]]:
    """Masks that pair even with odd quarters of two vectors."""
    even, odd = [], []
    for vector in (0, width):
        for quarter in range(0, width, 8):
            even += [vector + quarter + i for i in range(4)]
            odd += [vector + quarter + 4 + i for i in range(4)]
    return even, odd


@intrinsic
def store_sums(typingctx: Any, array: Any, at: Any, vectors: Any) -> Any:
    """Store the horizontal sums of twelve vectors at twelve consecutive places of a float32 array.

    Pairs of vectors are added after shuffling, so that each level of the tree halves their number; up to four places
    after the twelfth are overwritten with nothing of use.
    """
    if len(vectors) != 12:
        raise TypeError(f"store_sums takes twelve vectors, not {len(vectors)}")

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        level = list(cgutils.unpack_tuple(builder, args[2])) + [undefined] * 4
        merges = [_halves(LANES), _halves(LANES)] + [_quarters(LANES)] * (LANES.bit_length() - 3)
        for even, odd in merges:
            even, odd = (ir.Constant(ir.VectorType(_INT, LANES), m) for m in (even, odd))
            level = [
                undefined
                if a is undefined
                else builder.fadd(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd))
                for a, b in zip(level[::2], level[1::2])
            ]
        for i, sums in enumerate(level):
            at = builder.add(args[1], ir.Constant(args[1].type, i * LANES))
            builder.store(sums, _vector_pointer(context, builder, sig.args[0], args[0], at), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors), codegen


@intrinsic
def sum_lanes(typingctx: Any, vector: Any) -> Any:
    """Add the lanes of a vector in a fixed order."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        total, width = args[0], LANES
        while width > 1:
            width //= 2
            swapped = ir.Constant(_INTS, [(i + width) % LANES for i in range(LANES)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, swapped))
        return builder.extract_element(total, ir.Constant(_INT, 0))

    return types.float32(vector), codegen


@intrinsic
def prefetch(typingctx: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of an array's element; any position is safe."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer] + [ir.Constant(_INT, i) for i in (0, 3, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def float_bits(typingctx: Any, number: Any) -> Any:
    """Read the bits of a float32 as an unsigned integer."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.bitcast(args[0], _INT)

    return types.uint32(types.float32), codegen


@intrinsic
def take_next(typingctx: Any, counter: Any) -> Any:
    """Count up the first element of an int64 array atomically, and give what it was before."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        zero = ir.Constant(ir.IntType(64), 0)
        pointer = _element_pointer(context, builder, sig.args[0], args[0], zero)
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), codegen
