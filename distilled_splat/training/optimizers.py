"""The optimizers of all methods: splatfacto's learning rates, their cooldown, and an Adam in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from nerfstudio.engine.optimizers import OptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig, Scheduler, SchedulerConfig
from torch.optim.lr_scheduler import LambdaLR

from distilled_splat.ops.adam import OnePassAdam


@dataclass
class OnePassAdamConfig(OptimizerConfig):
    """Adam in one pass over the memory, on the CPU and on CUDA."""

    _target: type = field(default_factory=lambda: OnePassAdam)
    eps: float = 1e-15
    weight_decay: float = 0
    """The weight decay to use."""


class CooldownScheduler(Scheduler):
    """Keeps the learning rate constant, then lowers it linearly to zero at the end of the run.

    Each step sees one view, so its gradient is noisy; the smaller the last steps, the less noise stays in the
    parameters.
    """

    config: CooldownSchedulerConfig

    def get_scheduler(self, optimizer: torch.optim.Optimizer, lr_init: float) -> LambdaLR:
        """Return torch's scheduler, which multiplies the optimizer's learning rate."""
        steps, fraction = self.config.max_steps, self.config.fraction
        return LambdaLR(optimizer, lambda step: min(max((steps - step) / max(fraction * steps, 1), 0.0), 1.0))


@dataclass
class CooldownSchedulerConfig(SchedulerConfig):
    """A constant learning rate that falls linearly to zero in the last part of the run."""

    _target: type = field(default_factory=lambda: CooldownScheduler)
    max_steps: int = 30000
    """Length of the run."""
    fraction: float = 0.3
    """Fraction of the run, at its end, in which the learning rate falls; 0 keeps it constant."""


def splat_optimizers(cooldown: bool = False) -> dict[str, Any]:
    """Return splatfacto's optimizers and schedulers, by parameter group; schedules are for 30000 steps.

    Args:
        cooldown: whether the learning rates that splatfacto keeps constant fall to zero at the end of the run.
    """

    def group(lr: float, lr_final: Optional[float] = None, warmup_steps: int = 0) -> dict[str, Any]:
        scheduler: Optional[SchedulerConfig] = CooldownSchedulerConfig() if cooldown else None
        if lr_final is not None:
            scheduler = ExponentialDecaySchedulerConfig(
                lr_final=lr_final, max_steps=30000, warmup_steps=warmup_steps, lr_pre_warmup=0
            )
        return {"optimizer": OnePassAdamConfig(lr=lr), "scheduler": scheduler}

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
