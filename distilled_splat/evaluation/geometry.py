"""How good a splat's geometry is: the error of its depth, the error of its alpha, and its floaters."""

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
"""A pixel with less alpha shows nothing."""
LEAST_SHARED_ALPHA = 0.5
"""Where the teachers' mean alpha is smaller, their mean depth is not used as reference."""


@dataclass(frozen=True)
class Surfaces:
    """The reference for the geometry of a view.

    Attributes:
        depth: along the camera's axis, in world units, [H, W, 1]; 0 where it is unknown or empty.
        alpha: [H, W, 1], or None if it is unknown.
    """

    depth: Tensor
    alpha: Optional[Tensor]


def depth_error(depth: Tensor, alpha: Tensor, true: Tensor) -> float:
    """Return the mean of |d - d*| / d* over the pixels whose true depth d* is known.

    A pixel counts at most 1, and exactly 1 if nothing is rendered there. NaN if no pixel has a known depth.

    Args:
        depth: expected depth d, [H, W, 1].
        alpha: rendered alpha, [H, W, 1].
        true: d*, in the same units as d, [H, W, 1]; 0 where it is unknown.
    """
    known = true > 0
    relative = ((depth - true).abs() / true.clamp_min(1e-12)).clamp_max(1)
    relative = torch.where(alpha < LEAST_ALPHA, torch.ones_like(relative), relative)
    return float(relative[known].mean()) if bool(known.any()) else math.nan


def alpha_error(alpha: Tensor, true: Tensor) -> float:
    """Return the mean of |a - a*| over all pixels; alphas [H, W, 1] in [0, 1]."""
    return float((alpha - true).abs().mean())


def mean_surfaces(renders: Sequence[Rendered]) -> Surfaces:
    """Return the mean surfaces of several renders: the mean alpha, and the mean depth weighted by alpha."""
    alpha = mean_alpha(renders)
    depth, _ = mean_depth(renders)
    return Surfaces(torch.where(alpha >= LEAST_SHARED_ALPHA, depth, torch.zeros_like(depth)), alpha)


@torch.no_grad()
def is_afloat(gaussians: Gaussians, references: Sequence[Gaussians]) -> Tensor:
    """Return which Gaussians lie where the references have none, boolean [N].

    A Gaussian is afloat if its voxel and the 26 voxels around it have no Gaussian of a reference. The grid has 64
    voxels along each side of the first reference's bulk.

    Args:
        gaussians: the splat.
        references: its teachers, in the same frame.
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
    """Return the visible fraction of a splat that lies where the references have nothing.

    A Gaussian counts by its blending weight, summed over the pixels of all views. So a large Gaussian that is hidden or
    nearly transparent counts little.

    Args:
        gaussians: the splat.
        references: its teachers, in the same frame.
        views: the views that count.
        antialiased: see `render`.
    """
    shown = torch.zeros(len(gaussians), device=gaussians.means.device)
    for view in views:
        shown += blending_weights(gaussians, view, antialiased)
    return float(shown[is_afloat(gaussians, references)].sum() / shown.sum().clamp_min(1e-30))


def mean_or_none(values: Iterable[float]) -> Optional[float]:
    """Return the mean of the values that are numbers; None if there are none."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None
