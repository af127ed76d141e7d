"""How the kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable) -> Any:
    """Compile a function at its first call, to run without the GIL, and keep the machine code on disk.

    The cache lies beside the source file, or in the user's cache folder where that cannot be written; where neither
    can, every process compiles for itself.

    Args:
        function: A function of a module, not a closure: Numba does not find those again in a new process.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # Numba found no folder for its cache
        return njit(nogil=True)(function)
