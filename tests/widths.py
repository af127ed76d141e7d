"""A kernel whose result shows how many lanes its machine code has, and a program for fresh processes round it."""

from __future__ import annotations

from typing import Any

import numpy as np

from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import LANES
from distilled_splat.cpu.simd_memory import load, store

PROGRAM = """
import sys, llvmlite.binding as llvm
found = llvm.get_host_cpu_features()
found["avx512f"] = sys.argv[1] == "wide"
llvm.get_host_cpu_features = lambda: found
import widths
widths.tell(sys.argv[2:] == ["same-key"])
"""
"""Takes this machine for one with AVX-512 (`wide`) or without (`narrow`), and tells of the kernel there."""


@kernel
def twice(numbers: Any, doubled: Any) -> None:
    """Write as many numbers, doubled, as a vector holds."""
    store(doubled, 0, load(numbers, 0) + load(numbers, 0))


def tell(same_key: bool) -> None:
    """Print the lanes that Python counts with, the lanes that the kernel wrote, and what was read from the cache.

    Args:
        same_key: whether to let Numba tell no processors apart in its cache; the kernel is not called then.
    """
    ones, doubled = np.ones(64, np.float32), np.zeros(64, np.float32)
    if same_key:
        from numba.core.codegen import CPUCodegen

        CPUCodegen.magic_tuple = lambda self: ("any processor",)  # type: ignore[method-assign]
        twice.compile("void(float32[::1], float32[::1])")
    else:
        twice(ones, doubled)
    print(LANES, int((doubled == 2).sum()), sum(twice.stats.cache_hits.values()))
