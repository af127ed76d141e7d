"""The one table of optimizers: splatfacto's learning rates with torch's fused Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch
from nerfstudio.engine.optimizers import OptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig


@dataclass
class FusedAdamConfig(OptimizerConfig):
    """Adam in one pass over the memory, on the CPU and on CUDA."""

    _target: type = torch.optim.Adam
    eps: float = 1e-15
    weight_decay: float = 0
    """The weight decay to use."""
    fused: bool = True
    """Use torch's fused implementation."""


def splat_optimizers() -> dict[str, Any]:
    """Return splatfacto's optimizers and schedulers, by parameter group; schedules are for 30000 steps."""

    def group(lr: float, lr_final: Optional[float] = None, warmup_steps: int = 0) -> dict[str, Any]:
        scheduler = None
        if lr_final is not None:
            scheduler = ExponentialDecaySchedulerConfig(
                lr_final=lr_final, max_steps=30000, warmup_steps=warmup_steps, lr_pre_warmup=0
            )
        return {"optimizer": FusedAdamConfig(lr=lr), "scheduler": scheduler}

    return {
        "means": group(1.6e-4, lr_final=1.6e-6),
        "features_dc": group(0.0025),
        "features_rest": group(0.0025 / 20),
        "opacities": group(0.05),
        "scales": group(0.005),
        "quats": group(0.001),
        "camera_opt": group(1e-4, lr_final=5e-7, warmup_steps=1000),
        "bilateral_grid": group(2e-3, lr_final=1e-4, warmup_steps=1000),
    }
