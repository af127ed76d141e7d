"""An explicit SIMD type for Numba: `LANES` floats that are added, multiplied and compared at once.

Numba vectorises only the loops that LLVM sees through. The kernels here say what is to be a vector instead: values of
the types `floats`, `integers` and `mask` are lowered to LLVM's <LANES x float>, <LANES x i32> and a mask. The
operators + - * / and the comparisons work between vectors, and between vectors and scalars. Products and sums may be
contracted to fused multiply-adds; nothing else is relaxed, because `exp2` rounds by adding and subtracting.
"""

# pyright: reportOptionalCall=false
from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.core.typing.templates import AbstractTemplate, infer_global, signature


def _compiles_for_avx512() -> bool:
    """Tell whether Numba compiles for AVX-512.

    NUMBA_CPU_FEATURES decides, or NUMBA_CPU_NAME=generic, which has no features, or else this processor.
    """
    configured = config.CPU_FEATURES  # type: ignore[attr-defined]
    features = get_host_cpu_features() if configured is None else configured
    return "+avx512f" in features.split(",")


LANES: int = 16 if _compiles_for_avx512() else 8
"""Floats in a vector: what one register holds of the processor that Numba compiles for, and at least 8."""

FLOAT = ir.FloatType()
INT = ir.IntType(32)
FLOATS = ir.VectorType(FLOAT, LANES)
INTS = ir.VectorType(INT, LANES)
MASK = ir.VectorType(ir.IntType(1 if LANES == 16 else 32), LANES)
"""Bits where the processor has mask registers; elsewhere whole words of ones or zeros, as its comparisons give them."""
_BITS = ir.VectorType(ir.IntType(1), LANES)
_CONTRACT = ("contract",)


def intrinsic(function: Callable) -> Any:
    """Apply Numba's decorator; what it makes is called without the typing context that it is defined with."""
    return extending.intrinsic(function)


class VectorType(types.Type):
    """The Numba type of a vector."""


floats = VectorType(f"floats{LANES}")
integers = VectorType(f"integers{LANES}")
mask = VectorType(f"mask{LANES}")


@extending.register_model(VectorType)
class _VectorModel(extending.models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        ir_type = {floats: FLOATS, integers: INTS, mask: MASK}[fe_type]
        super().__init__(dmm, fe_type, ir_type)


def _splat_value(builder: Any, scalar: Any, vector: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(INT, 0))
    return builder.shuffle_vector(
        one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(INT, LANES), [0] * LANES)
    )


def _as_vector(context: Any, builder: Any, value: Any, kind: types.Type) -> Any:
    """Give a vector back as it is, and a scalar in every lane."""
    if kind in (floats, integers, mask):
        return value
    return _splat_value(builder, context.cast(builder, value, kind, types.float32), FLOATS)


def _to_mask(builder: Any, bits: Any) -> Any:
    return bits if MASK == _BITS else builder.sext(bits, MASK)


def _to_bits(builder: Any, where: Any) -> Any:
    return where if MASK == _BITS else builder.icmp_signed("<", where, ir.Constant(MASK, [0] * LANES))


def _call_elementwise(builder: Any, name: str, vectors: Sequence[Any]) -> Any:
    """Call LLVM's function `name` on every lane."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(vectors))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, vectors)


def _register_operator(op: Callable, result: VectorType, emit: Callable[[Any, Any, Any], Any]) -> None:
    """Teach Numba `op` between two float vectors, or a float vector and a number."""

    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> Any:
            ours = floats in args and all(a == floats or isinstance(a, types.Number) for a in args)
            return signature(result, *args) if ours and len(args) == 2 else None

    def lower(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return emit(builder, *(_as_vector(context, builder, a, t) for a, t in zip(args, sig.args)))

    for kinds in ((floats, floats), (floats, types.Number), (types.Number, floats)):
        extending.lower_builtin(op, *kinds)(lower)


_register_operator(operator.add, floats, lambda b, x, y: b.fadd(x, y, flags=_CONTRACT))
_register_operator(operator.sub, floats, lambda b, x, y: b.fsub(x, y, flags=_CONTRACT))
_register_operator(operator.mul, floats, lambda b, x, y: b.fmul(x, y, flags=_CONTRACT))
_register_operator(operator.truediv, floats, lambda b, x, y: b.fdiv(x, y))
_register_operator(operator.lt, mask, lambda b, x, y: _to_mask(b, b.fcmp_ordered("<", x, y)))
_register_operator(operator.le, mask, lambda b, x, y: _to_mask(b, b.fcmp_ordered("<=", x, y)))
_register_operator(operator.gt, mask, lambda b, x, y: _to_mask(b, b.fcmp_ordered(">", x, y)))
_register_operator(operator.ge, mask, lambda b, x, y: _to_mask(b, b.fcmp_ordered(">=", x, y)))


@infer_global(operator.and_)
class _AndMasks(AbstractTemplate):
    def generic(self, args: tuple, kws: dict) -> Any:
        return signature(mask, mask, mask) if args == (mask, mask) else None


@extending.lower_builtin(operator.and_, mask, mask)
def _and_masks(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
    return builder.and_(*args)


@intrinsic
def splat(typingctx: Any, scalar: Any) -> Any:
    """Put one number into every lane of a float vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return _as_vector(context, builder, args[0], sig.args[0])

    return floats(scalar), codegen


@intrinsic
def splat_integer(typingctx: Any, scalar: Any) -> Any:
    """Put one integer into every lane of an integer vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return _splat_value(builder, context.cast(builder, args[0], sig.args[0], types.int32), INTS)

    return integers(scalar), codegen


@intrinsic
def lane_numbers(typingctx: Any) -> Any:
    """Give the vector 0, 1, 2, ... as floats."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return ir.Constant(FLOATS, [float(i) for i in range(LANES)])

    return floats(), codegen


@intrinsic
def select(typingctx: Any, where: Any, yes: Any, no: Any) -> Any:
    """Take `yes` in the lanes of the mask and `no` in the others; either may be a scalar, vectors are of one type."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        yes, no = (_as_vector(context, builder, a, t) for a, t in zip(args[1:], sig.args[1:]))
        return builder.select(_to_bits(builder, args[0]), yes, no)

    return (integers if integers in (yes, no) else floats)(where, yes, no), codegen


@intrinsic
def any_lane(typingctx: Any, where: Any) -> Any:
    """Tell whether the mask has any lane set."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        bits = builder.bitcast(_to_bits(builder, args[0]), ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(where), codegen


@intrinsic
def count_lanes(typingctx: Any, where: Any) -> Any:
    """Count the lanes that a mask has set."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        bits = builder.bitcast(_to_bits(builder, args[0]), ir.IntType(LANES))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(where), codegen


@intrinsic
def greater_integers(typingctx: Any, a: Any, b: Any) -> Any:
    """Compare two integer vectors: a > b."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return _to_mask(builder, builder.icmp_signed(">", *args))

    return mask(a, b), codegen


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Give a * b + c, the same bits wherever it stands in a program; scalars are allowed.

    It is rounded once where the processor has an instruction for it, and twice elsewhere: a fused one would be a call
    of the C library for every lane there.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        vectors = [_as_vector(context, builder, x, t) for x, t in zip(args, sig.args)]
        return _call_elementwise(builder, "fmuladd", vectors)

    return floats(a, b, c), codegen


def _define_unary(name: str, doc: str) -> Any:
    """Make the intrinsic for LLVM's elementwise float function `llvm.<name>`."""

    def function(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
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
        def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
            a, b = (_as_vector(context, builder, x, t) for x, t in zip(args, sig.args))
            return builder.select(builder.fcmp_ordered(comparison, a, b), a, b)

        return floats(a, b), codegen

    function.__doc__ = doc
    return intrinsic(function)


minimum = _define_extreme("<", "Take the smaller in every lane, and b where either is NaN; either may be a scalar.")
maximum = _define_extreme(">", "Take the larger in every lane, and b where either is NaN; either may be a scalar.")


@intrinsic
def sum_lanes(typingctx: Any, vector: Any) -> Any:
    """Add the lanes of a vector in a fixed order."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        total, width = args[0], LANES
        while width > 1:
            width //= 2
            swapped = ir.Constant(INTS, [(i + width) % LANES for i in range(LANES)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, swapped))
        return builder.extract_element(total, ir.Constant(INT, 0))

    return types.float32(vector), codegen


@intrinsic
def float_bits(typingctx: Any, number: Any) -> Any:
    """Read the bits of a float32 as an unsigned integer."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return builder.bitcast(args[0], INT)

    return types.uint32(types.float32), codegen
