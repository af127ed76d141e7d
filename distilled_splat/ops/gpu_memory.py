"""Return GPU memory that this process no longer uses, so that another process can have it."""

from __future__ import annotations

import gc

import torch


def release_gpu_memory() -> None:
    """Return unused GPU memory to the driver. Call it before a child process trains; without a GPU it does nothing.

    torch keeps the memory of deleted tensors for later ones.
    """
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
