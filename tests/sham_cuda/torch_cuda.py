"""The sham device put in the place of torch's CUDA, for the rest of the process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sham_cuda.device import Operations, SavedAsCuda
from sham_cuda.functions import Functions

MEMORY = 8 << 30
"""Bytes that the device says it has, all of them free."""
PINNED: dict[int, Tensor] = {}
"""Tensors in pinned memory, by the address of their storage; they live as long as the process."""

ANSWERS: dict[str, Any] = {
    "_lazy_init": None,
    "is_available": True,
    "is_initialized": True,
    "is_current_stream_capturing": False,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": "sham",
    "get_device_capability": (9, 0),
    "mem_get_info": (MEMORY, MEMORY),
    "max_memory_allocated": 0,
    "memory_allocated": 0,
    "reset_peak_memory_stats": None,
    "empty_cache": None,
    "synchronize": None,
    "manual_seed": None,
    "manual_seed_all": None,
}
"""What the functions of torch.cuda answer, whatever they are asked."""


def pin_memory(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
    """Return a copy in memory that passes for pinned."""
    copy = tensor.clone()
    PINNED[copy.untyped_storage().data_ptr()] = copy
    return copy


def is_pinned(tensor: Tensor, *args: Any, **options: Any) -> bool:
    """Tell whether a tensor lies in memory that passes for pinned."""
    return tensor.untyped_storage().data_ptr() in PINNED


def install() -> None:
    """Let torch have the sham device for CUDA from now on."""
    for name, answer in ANSWERS.items():
        assert hasattr(torch.cuda, name), name
        setattr(torch.cuda, name, lambda *args, answer=answer, **options: answer)
    torch.cuda.get_rng_state = lambda *args, **options: torch.get_rng_state()  # its numbers are the host's
    torch.cuda.set_rng_state = lambda state, *args, **options: torch.set_rng_state(state)
    torch.Tensor.pin_memory = pin_memory  # type: ignore[method-assign, assignment]
    torch.Tensor.is_pinned = is_pinned  # type: ignore[method-assign, assignment]
    for check in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(torch.optim.Optimizer, check):  # they ask C++ for the state of the GPU
            setattr(torch.optim.Optimizer, check, lambda optimizer: None)
    torch.serialization.register_package(0, SavedAsCuda.tag, SavedAsCuda.restore)
    Functions().__enter__()
    Operations().__enter__()
