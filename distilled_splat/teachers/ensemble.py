"""Frozen teachers on one device, and the mean of their renders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

import torch
from torch import Tensor

from distilled_splat.ops.render import Rendered, render
from distilled_splat.ops.views import View
from distilled_splat.teachers.reading import Teacher


class TeacherEnsemble:
    """Frozen teachers on one device."""

    def __init__(self, teachers: Sequence[Teacher], device: torch.device | str) -> None:
        self.teachers = tuple(replace(teacher, gaussians=teacher.gaussians.to(device)) for teacher in teachers)
        self.members = tuple(teacher.gaussians for teacher in self.teachers)

    @torch.no_grad()
    def renders(self, view: View, depth: bool = False) -> list[Rendered]:
        """Render each teacher with its own settings."""
        return [
            render(member, view, antialiased=teacher.antialiased, depth=depth)
            for member, teacher in zip(self.members, self.teachers)
        ]


def mean_image(renders: Sequence[Rendered]) -> tuple[Tensor, Tensor]:
    """Return the mean of several renders' premultiplied colours [H, W, 3] and of their alphas [H, W, 1].

    Over a background b the mean of the composites C_i + (1 - a_i) b is mean(C_i) + (1 - mean(a_i)) b; so these two
    images serve every background. Each render's colour is first clamped to [0, 1].
    """
    colors = torch.stack([rendered.color.clamp(0, 1) for rendered in renders]).mean(dim=0)
    return colors, mean_alpha(renders)


def mean_alpha(renders: Sequence[Rendered]) -> Tensor:
    """Return the mean of several renders' alphas, [H, W, 1]."""
    return torch.stack([rendered.alpha for rendered in renders]).mean(dim=0)


def disagreement(renders: Sequence[Rendered]) -> Optional[Tensor]:
    """Return how much renders differ: the mean variance (n - 1) of their colours over grey; None for one render.

    Half of the mean squared difference between two teachers. Teachers that overfit agree at the photos' cameras, which
    they have all learnt, and differ at other views.
    """
    if len(renders) < 2:
        return None
    images = torch.stack([rendered.color.clamp(0, 1) + 0.5 * (1 - rendered.alpha) for rendered in renders])
    return images.var(dim=0).mean()


def mean_depth(renders: Sequence[Rendered]) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of several renders' expected depths, weighted by their alphas.

    Both are in world units, [H, W, 1], and 0 where the alphas are 0.
    """
    alphas = torch.stack([rendered.alpha for rendered in renders])
    depths = torch.stack([rendered.depth for rendered in renders if rendered.depth is not None])
    total = alphas.sum(dim=0).clamp_min(1e-12)
    mean = (alphas * depths).sum(dim=0) / total
    return mean, ((alphas * (depths - mean) ** 2).sum(dim=0) / total).sqrt()


def unique_names(teachers: Sequence[Teacher]) -> list[str]:
    """Name teachers by their kind, with a number if a kind occurs more than once."""
    kinds = [teacher.variant for teacher in teachers]
    return [
        f"{kind} teacher" + (f" {kinds[: place + 1].count(kind)}" if kinds.count(kind) > 1 else "")
        for place, kind in enumerate(kinds)
    ]


def standard_of(teachers: Sequence[Teacher]) -> Teacher:
    """Return the teacher that sets the student's size and structure: the first standard one, otherwise the first."""
    return next((teacher for teacher in teachers if teacher.variant == "standard"), teachers[0])
