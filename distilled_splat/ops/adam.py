"""Adam in one pass over the memory."""

from __future__ import annotations

from typing import Any

import torch


class OnePassAdam(torch.optim.Adam):
    """Adam in one pass over the memory: torch's fused kernel on CUDA, our own on the CPU.

    On the CPU torch's kernel is as fast, but its OpenMP threads spin after every step. They take the cores from the
    rasterizer unless the environment forbids it before Python starts. State and checkpoints are torch's.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        on_cuda = all(parameter.is_cuda for parameter in list(params))
        super().__init__(params, fused=True if on_cuda else None, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a checkpoint from any device, and keep this device's kernel."""
        groups = [
            {**loaded, "fused": own["fused"]} for loaded, own in zip(state_dict["param_groups"], self.param_groups)
        ]
        super().load_state_dict({**state_dict, "param_groups": groups})

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
        """Remove the gradients."""
        if not set_to_none:
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
