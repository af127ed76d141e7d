"""Return memory that this process no longer uses, so that another process, or a later stage, can have it."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

from distilled_splat.cpu import buffers


def release_memory() -> None:
    """Return unused memory to the system, and unused GPU memory to the driver.

    torch keeps the memory of deleted tensors on a GPU for later ones, the CPU backend keeps unused blocks, and the C
    library keeps what lies between blocks that are in use. Call this before a child process trains, and when a splat in
    training has become much smaller. It takes about a tenth of a second.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    buffers.release()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
        if trim is not None:
            trim(0)
