"""Large arrays on memory that has been used before.

A fresh array of tens of megabytes costs more in page faults than the kernel that fills it. Memory handed out here is
handed out again only when nobody holds it any more: not an array, not a view, not a tensor made from one. So gradients
that a user keeps are never overwritten.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 16
"""Bytes below which NumPy's own allocator is as good."""
_ALIGNMENT = 64
_PATIENCE = 256
"""Requests for which memory is kept that nobody asks for."""


class _Buffers:
    """Blocks of memory, and when each was last handed out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: list[tuple[np.ndarray, list[int]]] = []
        self._requests = 0

    def take(self, size: int) -> np.ndarray:
        """Give a block of at least `size` bytes that nobody holds."""
        with self._lock:
            self._requests += 1
            for block, last_use in self._blocks:
                if size <= block.size <= 2 * size and _is_free(block):
                    last_use[0] = self._requests
                    return block
            oldest = self._requests - _PATIENCE
            self._blocks = [(b, last) for b, last in self._blocks if last[0] > oldest or not _is_free(b)]
            step = 1 << max(size.bit_length() - 3, 0)
            block = np.empty(-(-size // step) * step, np.uint8)
            self._blocks.append((block, [self._requests]))
            return block


def _is_free(block: np.ndarray) -> bool:
    """Tell whether only the list of blocks, the loop over it, this call and getrefcount itself refer to a block."""
    return sys.getrefcount(block) == _FREE_REFERENCES


def _count_free_references() -> int:
    blocks = [(np.empty(1, np.uint8), [0])]
    for block, _ in blocks:
        return (lambda b: sys.getrefcount(b))(block)
    return 0


_FREE_REFERENCES = _count_free_references()
_buffers = _Buffers()


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Make an uninitialised, cache-line aligned array.

    Args:
        shape: Its shape.
        dtype: Its element type.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _SMALLEST:
        return np.empty(shape, dtype)
    block = _buffers.take(size + _ALIGNMENT)
    offset = -block.ctypes.data % _ALIGNMENT
    return block[offset : offset + size].view(dtype).reshape(shape)


def empty_tensor(shape: tuple[int, ...]) -> Tensor:
    """Make an uninitialised float32 tensor; its memory is used again once the tensor and all its views are gone."""
    return torch.from_numpy(empty(shape))
