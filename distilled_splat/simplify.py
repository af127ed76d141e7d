"""Bring a splat to an exact number of Gaussians: importance, and a schedule of gradual cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from gsplat.strategy.ops import remove, split
from torch import Tensor

from distilled_splat.gaussians import Gaussians
from distilled_splat.render import View, blending_weights, removal_effects

Measure = Literal["removal", "weight"]


def importance(
    gaussians: Gaussians,
    views: Iterable[View],
    background: Callable[[], Tensor],
    measure: Measure = "removal",
    antialiased: bool = False,
) -> Tensor:
    """Sum up over views how much each Gaussian matters, [N].

    Args:
        gaussians: the splat.
        views: the training views.
        background: returns the colour [3] behind everything, asked for each view anew, for it may be a random one.
        measure: "removal", the squared change of the pictures if it was left out; or "weight", the accumulated
            blending weight (Mini-Splatting, the paper).
        antialiased: see `render.render`.
    """
    total = torch.zeros(len(gaussians), device=gaussians.means.device)
    for view in views:
        if measure == "weight":
            total += blending_weights(gaussians, view, antialiased)
        else:
            signs = 2.0 * torch.randint(2, (view.height, view.width, 3), device=total.device) - 1
            total += removal_effects(gaussians, view, signs, background(), antialiased)
    return total


def cut_steps(cuts: int, first: int, last: int) -> list[int]:
    """Spread cuts evenly from step `first` to step `last`, both included; a single cut comes at `last`.

    Where there are fewer steps than cuts, there is one cut a step.
    """
    if cuts <= 1:
        return [last]
    return sorted({round(first + (last - first) * cut / (cuts - 1)) for cut in range(cuts)})


def count_after_cut(count: int, target: int, cuts_left: int) -> int:
    """Return the number of Gaussians to keep now, so that equal ratios reach `target` in `cuts_left` cuts.

    Args:
        count: Gaussians now.
        target: Gaussians after the last cut.
        cuts_left: cuts still to come, this one included.
    """
    return target if cuts_left <= 1 else round(count * (target / count) ** (1 / cuts_left))


def choose(weights: Tensor, count: int, sampled: bool) -> Tensor:
    """Return a mask [N] of `count` Gaussians to keep.

    Args:
        weights: importance, [N].
        count: how many to keep, at most N.
        sampled: draw them without replacement with probability proportional to importance (Mini-Splatting, the paper)
            instead of taking the most important.
    """
    if sampled:
        # Gumbel's trick: the largest log weight + noise are a weighted draw without replacement, for any N
        noise = -torch.log(torch.empty_like(weights).exponential_())
        weights = torch.log(weights.clamp_min(torch.finfo(weights.dtype).tiny)) + noise
    mask = torch.zeros(len(weights), dtype=torch.bool, device=weights.device)
    mask[weights.topk(count).indices] = True
    return mask


def resize(
    parameters: Any,
    optimizers: dict[str, Any],
    state: dict[str, Any],
    weights: Tensor,
    count: int,
    sampled: bool,
) -> None:
    """Bring a splat in training to exactly `count` Gaussians.

    Too many: the less important go. Too few: the most important are split in two, again and again if need be.

    Args:
        parameters: nerfstudio's `gauss_params`.
        optimizers: optimizer of each parameter, by the same names.
        state: the densification strategy's running state, kept in step.
        weights: importance, [N].
        count: Gaussians to have in the end.
        sampled: see `choose`.

    Raises:
        ValueError: if `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"A splat cannot be brought to {count} Gaussians: ask for at least one.")
    here = {name: optimizers[name] for name in parameters}
    if len(weights) > count:
        remove(parameters, here, state, ~choose(weights, count, sampled))
    while len(weights) < count:
        chosen = choose(weights, min(count - len(weights), len(weights)), sampled=False)
        split(parameters, here, state, chosen)
        halves = weights[chosen] / 2
        weights = torch.cat((weights[~chosen], halves, halves))
