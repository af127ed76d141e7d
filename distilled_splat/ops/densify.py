"""gsplat's densification with a limit on the number of Gaussians, and faster on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.ops import remove, split

__all__ = ["CappedStrategy", "remove", "split"]


@dataclass
class CappedStrategy(DefaultStrategy):
    """gsplat's DefaultStrategy with at most `max_gaussians` after each step; None: no limit."""

    max_gaussians: Optional[int] = None
    reset_at_start: bool = True
    """Whether gsplat resets the opacities after the first step, too: step 0 is a multiple of `reset_every`."""

    def step_post_backward(
        self, params: Any, optimizers: Any, state: dict[str, Any], step: int, info: dict[str, Any], packed: bool = False
    ) -> None:
        """Densify, prune and reset as gsplat does."""
        if step > 0 or self.reset_at_start:
            super().step_post_backward(params, optimizers, state, step, info, packed)

    def _update_state(self, params: Any, state: dict[str, Any], info: dict[str, Any], packed: bool = False) -> None:
        means2d = info[self.key_for_gradient]
        if packed or means2d.device.type != "cpu":
            return super()._update_state(params, state, info, packed)
        from distilled_splat.cpu.statistics import gather_statistics

        for name, wanted in (("grad2d", True), ("count", True), ("radii", self.refine_scale2d_stop_iter > 0)):
            if wanted and state.get(name) is None:
                state[name] = means2d.new_zeros(means2d.shape[1])
        radii = info["radii"]
        gather_statistics(
            radii[..., 0] if radii.dim() == 3 else radii,  # gsplat 1.5 and later has one for each axis
            means2d.absgrad if self.absgrad else means2d.grad,
            info["width"],
            info["height"],
            state["grad2d"],
            state["count"],
            state["radii"] if self.refine_scale2d_stop_iter > 0 else None,
        )

    @torch.no_grad()
    def _grow_gs(self, params: Any, optimizers: Any, state: dict[str, Any], step: int) -> tuple[int, int]:
        if self.max_gaussians is None:
            return super()._grow_gs(params, optimizers, state, step)
        room = self.max_gaussians - len(params["means"])
        if room <= 0:
            return 0, 0
        gradient = state["grad2d"] / state["count"].clamp_min(1)
        threshold = self.grow_grad2d
        if int((gradient > threshold).sum()) > room:
            # only the largest gradients that there is room for
            self.grow_grad2d = float(gradient.topk(room + 1).values[-1])
        try:
            grown = super()._grow_gs(params, optimizers, state, step)
        finally:
            self.grow_grad2d = threshold
        excess = len(params["means"]) - self.max_gaussians
        if excess > 0:  # Gaussians that are large on the screen are split in addition
            faintest = params["opacities"].flatten().topk(excess, largest=False).indices
            mask = torch.zeros(len(params["means"]), dtype=torch.bool, device=faintest.device)
            mask[faintest] = True
            remove(params=params, optimizers=optimizers, state=state, mask=mask)
        return grown
