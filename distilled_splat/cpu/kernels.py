"""How the kernels are compiled, and where their machine code is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Optional

from numba import njit
from numba.core.caching import FunctionCache

from distilled_splat.cpu.simd import LANES


class WidthCache(FunctionCache):
    """Numba's cache of one function, whose entries are of one vector width each.

    Numba's own key says which processor the code is for. It does not say how many lanes our vectors have there, which
    another version of this package may have decided otherwise.
    """

    def _index_key(self, sig: Any, codegen: Any) -> tuple:
        return (*super()._index_key(sig, codegen), LANES)


def kernel(function: Optional[Callable] = None, **options: Any) -> Any:
    """Compile a function at its first call, to run without the GIL, and keep the machine code on disk.

    The cache lies beside the source file, or in the user's cache folder where that cannot be written; where neither
    can, every process compiles for itself, and says so once.

    Args:
        function: A function of a module, not a closure: Numba does not find those again in a new process.
        options: Options of Numba's; with them alone a decorator is returned.
    """
    if function is None:
        return partial(kernel, **options)
    dispatcher: Any = njit(nogil=True, **options)(function)
    try:
        dispatcher._cache = WidthCache(function)
    except RuntimeError:  # Numba found no folder for its cache
        say_that_nothing_is_kept()
    return dispatcher


@cache
def say_that_nothing_is_kept() -> None:
    """Say, once in a process, that its kernels are compiled for it alone."""
    print(
        "The compiled kernels cannot be stored, so every process compiles them again, which takes a minute: set "
        "NUMBA_CACHE_DIR to a folder that can be written.",
        file=sys.stderr,
    )
