"""The one table of optimizers: splatfacto's learning rates, their cooldown, and an Adam that steps in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from nerfstudio.engine.optimizers import OptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig, Scheduler, SchedulerConfig
from torch.optim.lr_scheduler import LambdaLR


class OnePassAdam(torch.optim.Adam):
    """Adam in one pass over the memory: torch's fused kernel on CUDA, our own on the CPU.

    On the CPU torch's would do as well, but for its OpenMP threads, which spin after every step and take the cores
    from the rasterizer unless the environment forbids it before Python starts. State and checkpoints are torch's.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        on_cuda = all(parameter.is_cuda for parameter in list(params))
        super().__init__(params, fused=True if on_cuda else None, **options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one step on every parameter that has a gradient."""
        first = self.param_groups[0]
        plain = not (first["amsgrad"] or first["maximize"] or first["weight_decay"]) and closure is None
        for p in first["params"]:
            plain = plain and p.dtype == torch.float32 and p.device.type == "cpu" and p.is_contiguous()
        if not plain:
            return super().step(closure)
        from distilled_splat.cpu.adam import adam_step

        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] += 1
                moments = state["exp_avg"], state["exp_avg_sq"]
                step, options = int(state["step"]), (float(group["lr"]), group["betas"], group["eps"])
                adam_step(parameter, parameter.grad, *moments, step, *options)
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        if not set_to_none:
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


@dataclass
class OnePassAdamConfig(OptimizerConfig):
    """Adam in one pass over the memory, on the CPU and on CUDA."""

    _target: type = field(default_factory=lambda: OnePassAdam)
    eps: float = 1e-15
    weight_decay: float = 0
    """The weight decay to use."""


class CooldownScheduler(Scheduler):
    """Keeps the learning rate, and at the end of the run brings it down to nothing in a straight line.

    A step looks at one view, and what is left of its gradient when all views agree is noise; the smaller the last
    steps, the less of it stays in the parameters.
    """

    config: CooldownSchedulerConfig

    def get_scheduler(self, optimizer: torch.optim.Optimizer, lr_init: float) -> LambdaLR:
        """Return torch's scheduler, which multiplies the optimizer's learning rate."""
        steps, part = self.config.max_steps, self.config.part
        return LambdaLR(optimizer, lambda step: min(max((steps - step) / max(part * steps, 1), 0.0), 1.0))


@dataclass
class CooldownSchedulerConfig(SchedulerConfig):
    """A learning rate that stays until the last part of the run, where it falls to nothing."""

    _target: type = field(default_factory=lambda: CooldownScheduler)
    max_steps: int = 30000
    """Length of the run."""
    part: float = 0.3
    """Part of the run, at its end, in which the learning rate falls; 0 keeps it to the end."""


def splat_optimizers(cooldown: bool = False) -> dict[str, Any]:
    """Return splatfacto's optimizers and schedulers, by parameter group; schedules are for 30000 steps.

    Args:
        cooldown: whether the learning rates that splatfacto leaves alone fall to nothing at the end of the run.
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
