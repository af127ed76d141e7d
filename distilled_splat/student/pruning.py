"""Prune a splat to an exact number of Gaussians, gradually and by importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from distilled_splat.ops.densify import remove, split
from distilled_splat.ops.views import View

LEAST_EFFECT = 1 / 255**2
"""Sum of all squared changes without a Gaussian below which no view shows it: one step of one colour of one pixel."""


@dataclass(frozen=True)
class PruningSchedule:
    """When a splat is pruned, and to how many Gaussians.

    Attributes:
        steps: training steps after which it is pruned, in order.
        target: Gaussians after the last pruning.
        last_step: the last step of the run.
    """

    steps: tuple[int, ...]
    target: int
    last_step: int

    def count_at(self, step: int, count: int) -> Optional[int]:
        """Return how many of `count` Gaussians to keep after a step; None if the step does not prune."""
        if step not in self.steps:
            return None
        return count_after_pruning(count, self.target, sum(due >= step for due in self.steps))


def prune_steps(times: int, start: int, stop: int) -> tuple[int, ...]:
    """Spread prunings evenly from step `start` to step `stop`, both included; a single one is at `stop`.

    If there are fewer steps than prunings, each step has one.
    """
    if times <= 1:
        return (stop,)
    return tuple(sorted({round(start + (stop - start) * place / (times - 1)) for place in range(times)}))


def count_after_pruning(count: int, target: int, times_left: int) -> int:
    """Return the number of Gaussians to keep now, so that equal ratios reach `target` in `times_left` prunings.

    Args:
        count: Gaussians now.
        target: Gaussians after the last pruning.
        times_left: prunings still to come, this one included.
    """
    return target if times_left <= 1 else round(count * (target / count) ** (1 / times_left))


def in_turn(views: Sequence[View], most: Optional[int], turn: int) -> list[View]:
    """Return the views on which a pruning measures importance: at most `most`, spread evenly, others in each turn.

    Args:
        views: all views, neighbours beside each other.
        most: how many views to return at most; None for all.
        turn: number of the pruning, from 0.
    """
    if most is None or len(views) <= most:
        return list(views)
    return [views[(place * len(views) // most + turn) % len(views)] for place in range(most)]


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


def with_unseen(weights: Tensor, effects: Tensor) -> Tensor:
    """Return weights in which what no view shows counts as much as what is shown and has the same effect, [N].

    Importance says nothing of a Gaussian that no view shows. So its weight is its effect, times the median ratio of
    weight to effect of those that are shown.

    Args:
        weights: importance by removal, [N]; see `ops.importance`.
        effects: squared opacity times area, [N]: the sum of squared changes if each Gaussian is seen alone.
    """
    shown = weights >= LEAST_EFFECT
    if not bool(shown.any()):
        return effects
    ratio = (weights[shown] / effects[shown].clamp_min(torch.finfo(effects.dtype).tiny)).median()
    return torch.where(shown, weights, effects * ratio)


def resize(
    parameters: Any,
    optimizers: dict[str, Any],
    state: dict[str, Any],
    weights: Tensor,
    count: int,
    sampled: bool,
) -> None:
    """Bring a splat in training to exactly `count` Gaussians.

    Too many: the least important are removed. Too few: the most important are split in two, repeatedly if necessary.

    Args:
        parameters: nerfstudio's `gauss_params`.
        optimizers: optimizer of each parameter, by the same names.
        state: the densification strategy's running state, changed in the same way.
        weights: importance, [N].
        count: number of Gaussians afterwards.
        sampled: see `choose`.

    Raises:
        ValueError: if `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"A splat cannot have {count} Gaussians: set at least one.")
    here = {name: optimizers[name] for name in parameters}
    if len(weights) > count:
        remove(parameters, here, state, ~choose(weights, count, sampled))
    while len(weights) < count:
        chosen = choose(weights, min(count - len(weights), len(weights)), sampled=False)
        split(parameters, here, state, chosen)
        halves = weights[chosen] / 2
        weights = torch.cat((weights[~chosen], halves, halves))
