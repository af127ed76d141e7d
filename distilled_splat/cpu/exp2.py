"""Powers of two, LANES at once: several times as fast as the C library's exponential."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit

from distilled_splat.cpu.simd import FLOATS, INTS, LANES, floats, intrinsic
from distilled_splat.cpu.simd_memory import load


@intrinsic
def _scale_by_rounded(typingctx: Any, vector: Any, shifted: Any) -> Any:
    """Add the integer in the low bits of `shifted` to the exponent of `vector`."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        bits, exponent = (builder.bitcast(a, INTS) for a in args)
        exponent = builder.shl(exponent, ir.Constant(INTS, [23] * LANES))
        return builder.bitcast(builder.add(bits, exponent), FLOATS)

    return floats(vector, shifted), codegen


_EXP2 = (1.5 * 2**23, 1.0, 0.6931469776, 0.2402224209, 0.0555073374, 0.0096715126, 0.0013264727)
"""A number whose last bit is worth 1, so that adding it rounds and leaves the integer in the low bits; then the
polynomial for 2**x on [-0.5, 0.5], fitted for the smallest relative error (9e-8)."""


def splat_table(*numbers: float) -> np.ndarray:
    """Spread numbers over whole vectors, for `load` to read as constants.

    A constant in a kernel's code takes two instructions at every use; one in memory is part of the instruction that
    uses it, provided that the compiler does not know its value.
    """
    return np.repeat(np.array(numbers, np.float32), LANES)


EXP2_TABLE = splat_table(*_EXP2)
"""What `exp2` reads; kernels get it as an argument."""


@njit(nogil=True)
def exp2(x: Any, table: Any) -> Any:
    """Raise 2 to a vector between -126 and 127, to 2e-7 relative; lanes outside that range hold nothing of use.

    Args:
        x: Exponents.
        table: An array that begins with EXP2_TABLE.
    """
    rounding = load(table, 0)
    shifted = x + rounding
    f = x - (shifted - rounding)
    tail = load(table, 5 * LANES) + f * load(table, 6 * LANES)
    tail = load(table, 3 * LANES) + f * (load(table, 4 * LANES) + f * tail)
    return _scale_by_rounded(load(table, LANES) + f * (load(table, 2 * LANES) + f * tail), shifted)
