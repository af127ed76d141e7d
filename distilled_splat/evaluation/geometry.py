"""How true a splat's geometry is: where its surfaces are, what it covers, and what floats elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from distilled_splat.ops.importance import blending_weights
from distilled_splat.ops.render import Rendered
from distilled_splat.ops.views import View
from distilled_splat.ops.voxels import VoxelGrid
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.teachers.ensemble import mean_alpha, mean_depth

FLOATER_RESOLUTION = 64
LEAST_ALPHA = 1 / 255
"""Below it a pixel shows nothing."""
LEAST_SHARED_ALPHA = 0.5
"""Below it the teachers' mean depth of a pixel is not taken for true."""


@dataclass(frozen=True)
class Surfaces:
    """What is true of a view, or taken for true.

    Attributes:
        depth: along the camera's axis, world units, [H, W, 1]; 0 where it is not known or there is nothing.
        alpha: what is covered, [H, W, 1], or None where that is not known.
    """

    depth: Tensor
    alpha: Optional[Tensor]


def depth_error(depth: Tensor, alpha: Tensor, true: Tensor) -> float:
    """Return the mean of |d - d*| / d* over the pixels whose true depth d* is known.

    A pixel counts 1 at the most, and 1 where nothing is rendered. NaN if no pixel's depth is known.

    Args:
        depth: expected depth d, [H, W, 1].
        alpha: what is covered, [H, W, 1].
        true: d*, in the same units as d, [H, W, 1]; 0 where it is not known.
    """
    known = true > 0
    relative = ((depth - true).abs() / true.clamp_min(1e-12)).clamp_max(1)
    relative = torch.where(alpha < LEAST_ALPHA, torch.ones_like(relative), relative)
    return float(relative[known].mean()) if bool(known.any()) else math.nan


def alpha_error(alpha: Tensor, true: Tensor) -> float:
    """Return the mean of |a - a*| over all pixels; alphas [H, W, 1] in [0, 1]."""
    return float((alpha - true).abs().mean())


def mean_surfaces(renders: Sequence[Rendered]) -> Surfaces:
    """Return the mean of several renders' surfaces: alphas on average, depths weighted by them."""
    alpha = mean_alpha(renders)
    depth, _ = mean_depth(renders)
    return Surfaces(torch.where(alpha >= LEAST_SHARED_ALPHA, depth, torch.zeros_like(depth)), alpha)


@torch.no_grad()
def is_afloat(gaussians: Gaussians, references: Sequence[Gaussians]) -> Tensor:
    """Tell which Gaussians lie where the references have none, boolean [N].

    A place is a voxel of a grid of 64 along each side of the first reference's bulk, with the 26 voxels around it.

    Args:
        gaussians: the splat.
        references: its teachers, in the same world.
    """
    grid = VoxelGrid.around(references[0].means, FLOATER_RESOLUTION)
    cells = torch.cat([grid.cells(reference.means) for reference in references]).unique(dim=0)
    around = torch.cartesian_prod(*[torch.arange(-1, 2, device=cells.device)] * 3)
    taken = (cells[:, None] + around).reshape(-1, 3).unique(dim=0)
    _, place = torch.cat([taken, grid.cells(gaussians.means)]).unique(dim=0, return_inverse=True)
    is_taken = torch.zeros(int(place.max()) + 1, dtype=torch.bool, device=place.device)
    is_taken[place[: len(taken)]] = True
    return ~is_taken[place[len(taken) :]]


def floaters(gaussians: Gaussians, references: Sequence[Gaussians], views: Iterable[View], antialiased: bool) -> float:
    """Return the part of what some views show of a splat that lies where the references have nothing.

    What a view shows of a Gaussian is its blending weight, summed over the pixels: a large Gaussian that is hidden or
    hardly opaque does not count for more than is seen of it.

    Args:
        gaussians: the splat.
        references: its teachers, in the same world.
        views: from where it is looked at.
        antialiased: see `render`.
    """
    shown = torch.stack([blending_weights(gaussians, view, antialiased) for view in views]).sum(dim=0)
    return float(shown[is_afloat(gaussians, references)].sum() / shown.sum().clamp_min(1e-30))


def mean_or_none(values: Iterable[float]) -> Optional[float]:
    """Return the mean of the numbers among some values, None if there is no number."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None
