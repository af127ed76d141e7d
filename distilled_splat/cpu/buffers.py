"""Large arrays on memory that has been used before.

A fresh array of tens of megabytes costs more in page faults than the kernel that fills it. Memory handed out here is
handed out again only when nobody holds it any more: no array, no view, no tensor made from one. So a gradient that
a user keeps is never overwritten.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 16
"""Bytes below which NumPy's own allocator is as good."""
_ALIGNMENT = 64
_PATIENCE = 256
"""Arrays that may come and go before memory that nobody asks for is let go."""

_free: dict[int, np.ndarray] = {}
"""Blocks that nobody holds, by when they were given back. Only atomic operations: no lock, and so safe to fork."""
_clock = itertools.count()


class _Lease:
    """Holds a block while an array lives; every view and tensor of that array refers to this object."""

    def __init__(self, block: np.ndarray, size: int) -> None:
        self._block = block
        address = block.ctypes.data
        address += -address % _ALIGNMENT
        self.__array_interface__ = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}

    def __del__(self, free: dict = _free, clock: Iterator[int] = _clock) -> None:
        free[next(clock)] = self._block


def _take_block(size: int) -> np.ndarray:
    """Give a block of at least `size` bytes that nobody holds, an old one where one fits."""
    blocks = list(_free.items())
    for given_back, block in blocks:
        if size <= block.size <= 2 * size and _free.pop(given_back, None) is not None:
            return block
    oldest = next(_clock) - _PATIENCE
    for given_back, _ in blocks:
        if given_back < oldest:
            _free.pop(given_back, None)
    step = 1 << max(size.bit_length() - 3, 0)
    return np.empty(-(-size // step) * step, np.uint8)


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Make an uninitialised, cache-line aligned array.

    Args:
        shape: Its shape.
        dtype: Its element type.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _SMALLEST:
        return np.empty(shape, dtype)
    return np.asarray(_Lease(_take_block(size + _ALIGNMENT), size)).view(dtype).reshape(shape)


def empty_tensor(shape: tuple[int, ...]) -> Tensor:
    """Make an uninitialised float32 tensor; its memory is used again once the tensor and all its views are gone."""
    return torch.from_numpy(empty(shape))
