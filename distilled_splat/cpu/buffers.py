"""Large arrays on memory that has been used before.

A fresh array of tens of megabytes costs more in page faults than the kernel that fills it. So blocks of memory are kept
here, and a block is handed out again when nothing but this module refers to it: no array, no view and no tensor on it.
Python counts those references itself; a gradient that a user keeps is never overwritten.
"""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 16
"""Bytes below which NumPy's own allocator is as good."""
_ALIGNMENT = 64
_PATIENCE = 256
"""Arrays that may be made before a block that none of them was made on is let go."""

_blocks: dict[int, np.ndarray] = {}
"""Blocks by the number of the array made on them last. Only atomic operations: no lock, and so safe to fork."""
_numbers = itertools.count()


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Make an uninitialised, cache-line aligned array.

    Args:
        shape: Its shape.
        dtype: Its element type.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _SMALLEST:
        return np.empty(shape, dtype)
    block = _take_block(size + _ALIGNMENT)
    start = -block.ctypes.data % _ALIGNMENT
    array = block[start : start + size].view(dtype).reshape(shape)  # it refers to the block, as its views will
    _blocks[next(_numbers)] = block
    return array


def empty_tensor(shape: tuple[int, ...]) -> Tensor:
    """Make an uninitialised float32 tensor; its memory is used again once the tensor and all its views are gone."""
    return torch.from_numpy(empty(shape))


def release() -> None:
    """Let go of all blocks. A block in use lives on until its arrays are gone, and is then freed."""
    _blocks.clear()


def _references_of_a_variable() -> int:
    """Return what `getrefcount` says of a block that a single variable refers to: 2, but other Pythons may differ."""
    block = np.empty(0, np.uint8)
    return sys.getrefcount(block)


_UNUSED = _references_of_a_variable()


def _take_block(size: int) -> np.ndarray:
    """Take an unused block of at least `size` bytes out of `_blocks`, or make one; no other thread can take it too."""
    oldest = next(_numbers) - _PATIENCE
    for number in list(_blocks):
        block = _blocks.pop(number, None)
        if block is None:  # another thread has it
            continue
        unused = sys.getrefcount(block) == _UNUSED
        if unused and size <= block.size <= 2 * size:
            return block
        if not unused or number >= oldest:
            _blocks[number] = block
    step = 1 << max(size.bit_length() - 3, 0)
    return np.empty(-(-size // step) * step, np.uint8)
