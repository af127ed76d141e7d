"""A regular grid of voxels over the bulk of a splat."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from distilled_splat.splat.gaussians import Gaussians


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid over a scene.

    Attributes:
        lowest: centre of the first voxel in world units, [3].
        spacing: distance between voxel centres along each axis, [3].
        resolution: voxels along each axis.
    """

    lowest: Tensor
    spacing: Tensor
    resolution: int

    @classmethod
    def around(cls, means: Tensor, resolution: int = 128, outliers: float = 0.01, margin: float = 0.1) -> VoxelGrid:
        """Return a grid over the bulk of some centres.

        The box spans the quantiles `outliers` and 1 - `outliers` of each coordinate, and is widened by `margin` of its
        size on both sides. Otherwise a few floaters far outside would make each voxel as large as the scene.

        Args:
            means: centres of the teacher's Gaussians, [N, 3].
            resolution: voxels along each axis (the paper: 128).
            outliers: fraction of the centres to leave out at each end of an axis.
            margin: widening of the box as a fraction of its size.
        """
        ordered = means.detach().sort(dim=0).values
        last = len(ordered) - 1
        low, high = ordered[int(outliers * last)], ordered[last - int(outliers * last)]
        size = (high - low).clamp_min(1e-6)
        low, size = low - margin * size, (1 + 2 * margin) * size
        return cls(low, size / (resolution - 1), resolution)

    def histogram(self, means: Tensor, masses: Optional[Tensor] = None) -> Tensor:
        """Count centres in each voxel with trilinear weights, [resolution^3]; differentiable in both arguments.

        Each centre spreads its mass over the 8 voxel centres around it. A centre outside the grid counts at the border,
        so the total does not depend on where the centres are.

        Args:
            means: centres, [N, 3].
            masses: weight of each centre, [N]; None: 1.
        """
        resolution = self.resolution
        position = ((means - self.lowest) / self.spacing).clamp(0, resolution - 1)
        corner = position.detach().floor().clamp(max=resolution - 2)
        above = (position - corner).unbind(dim=1)
        below = [1 - fraction for fraction in above]
        first_x, first_y, first_z = corner.long().unbind(dim=1)
        first = (first_x * resolution + first_y) * resolution + first_z
        counts = means.new_zeros(resolution**3)
        for x, y, z in itertools.product((0, 1), repeat=3):
            weight = (below, above)[x][0] * (below, above)[y][1] * (below, above)[z][2]
            weight = weight if masses is None else weight * masses
            counts = counts.index_add(0, first + (x * resolution + y) * resolution + z, weight)
        return counts

    def cells(self, means: Tensor) -> Tensor:
        """Return the voxel of each centre [N, 3], as positions along the three axes, int64 [N, 3].

        The grid continues beyond its border here, so positions may be negative or beyond the resolution.
        """
        return ((means - self.lowest) / self.spacing).round().long()


def mass(gaussians: Gaussians) -> Tensor:
    """Return each Gaussian's opacity times the area of its largest section, in world units², [N]."""
    log_scales = gaussians.log_scales
    two_longest = log_scales.sum(dim=1) - log_scales.amin(dim=1)
    return torch.sigmoid(gaussians.logit_opacities) * torch.exp(two_longest)


def squared_effects(gaussians: Gaussians) -> Tensor:
    """Return each Gaussian's squared opacity times the area of its largest section, in world units², [N].

    A view that shows the Gaussian alone changes by a sum of squares in proportion to this if the Gaussian is removed.
    """
    return torch.sigmoid(gaussians.logit_opacities) * mass(gaussians)
