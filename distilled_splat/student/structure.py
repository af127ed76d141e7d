"""The structural loss: how alike the spatial distributions of student and teacher are (Distilled-3DGS, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Optional

import torch
from torch import Tensor

from distilled_splat.ops.voxels import VoxelGrid, mass
from distilled_splat.splat.gaussians import Gaussians


def structural_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_hist = 1 - cos(h_tea, h_stu), Distilled-3DGS section 3.3; voxel counts of any common shape.

    The cosine divides by both norms, so counts and normalised histograms give the same value.
    """
    return 1 - torch.nn.functional.cosine_similarity(student.flatten(), teacher.flatten(), dim=0)


def depth_loss(depth: Tensor, true: Tensor, belief: Tensor) -> Tensor:
    """Return the mean over all pixels of b |d - d*| / d*.

    Args:
        depth: expected depth d that gradients flow into, [H, W, 1].
        true: the teachers' mean depth d*, [H, W, 1].
        belief: b, the weight of that depth, [H, W, 1].
    """
    return ((depth - true).abs() * (belief / true.clamp_min(1e-6))).mean()


class Structure:
    """The structural loss of a student against its teacher's Gaussians, applied every few steps.

    The histogram counts centres, as in the paper, or mass: opacity times area, which does not depend on the number of
    Gaussians. With several resolutions the loss is the mean over them.
    """

    def __init__(
        self, teacher: Gaussians, weight: float, every: int, resolutions: Sequence[int], of: Literal["mass", "centres"]
    ) -> None:
        """Make the grids, and fill them with the teacher's Gaussians.

        Args:
            teacher: the standard teacher's Gaussians.
            weight: factor of the loss.
            every: steps between two applications.
            resolutions: voxels of each grid along each axis.
            of: what the histograms count.
        """
        self.weight, self.every, self.of = weight, every, of
        grids = [VoxelGrid.around(teacher.means, resolution) for resolution in resolutions]
        self.grids = [(grid, grid.histogram(teacher.means, self.masses(teacher))) for grid in grids]

    def masses(self, gaussians: Gaussians) -> Optional[Tensor]:
        """Return what each Gaussian counts, [N]; None if each counts 1."""
        return mass(gaussians) if self.of == "mass" else None

    def is_due(self, step: int) -> bool:
        """Return whether a step has the loss."""
        return step % self.every == 0

    def loss(self, student: Gaussians) -> Tensor:
        """Return the weighted loss of a student's Gaussians."""
        masses = self.masses(student)
        losses = [structural_loss(grid.histogram(student.means, masses), counts) for grid, counts in self.grids]
        return self.weight * torch.stack(losses).mean()
