"""The losses of Distilled-3DGS as pure functions: photometric (photo and pseudo label) and structural."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pytorch_msssim import ssim as pytorch_ssim
from torch import Tensor

SSIM_WINDOW = 11


def l1_and_ssim(rendered: Tensor, *targets: Tensor) -> tuple[Tensor, ...]:
    """Return the mean absolute difference and the mean SSIM of an image and each of its targets, one after the other.

    SSIM is that of 3DGS and splatfacto: an 11x11 Gaussian window of sigma 1.5, valid positions only. On the CPU both
    come from one fused kernel, elsewhere (and for images that the window does not fit into) from pytorch_msssim.

    Args:
        rendered: image that gradients flow into, [H, W, 3], in [0, 1].
        targets: images to compare with, [H, W, 3].
    """
    fits = min(rendered.shape[:2]) >= SSIM_WINDOW
    if fits and rendered.device.type == "cpu" and rendered.dtype == torch.float32:
        from distilled_splat.cpu.ssim import l1_and_ssim as fused

        return fused(rendered, *targets)
    values = []
    for target in targets:
        images = (image.permute(2, 0, 1)[None] for image in (target, rendered))
        values += [torch.abs(rendered - target).mean(), pytorch_ssim(*images, data_range=1.0, size_average=True)]
    return tuple(values)


def photometric_losses(rendered: Tensor, *targets: Tensor, ssim_weight: float = 0.2) -> list[Tensor]:
    """L_color = (1 - l) L1 + l (1 - SSIM) by each target, Distilled-3DGS section 3.1 with l = `ssim_weight`.

    Args:
        rendered: image that gradients flow into, [H, W, 3], in [0, 1].
        targets: images to compare with (photo, pseudo label), [H, W, 3].
        ssim_weight: l.
    """
    values = l1_and_ssim(rendered, *targets)
    return [(1 - ssim_weight) * l1 + ssim_weight * (1 - ssim) for l1, ssim in zip(values[::2], values[1::2])]


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid over a scene, for histograms of Gaussian centres.

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
        """Lay a grid over the bulk of some centres.

        A few floaters far outside would make each voxel as large as the scene; so the box spans the quantiles
        `outliers` and 1 - `outliers` of each coordinate, widened by `margin` of its size on both sides.

        Args:
            means: centres of the teacher's Gaussians, [N, 3].
            resolution: voxels along each axis (the paper: 128).
            outliers: fraction of the centres to leave outside at either end of an axis.
            margin: widening of the box as a fraction of its size.
        """
        ordered = means.detach().sort(dim=0).values
        last = len(ordered) - 1
        low, high = ordered[int(outliers * last)], ordered[last - int(outliers * last)]
        size = (high - low).clamp_min(1e-6)
        low, size = low - margin * size, (1 + 2 * margin) * size
        return cls(low, size / (resolution - 1), resolution)

    def histogram(self, means: Tensor) -> Tensor:
        """Count centres per voxel with trilinear weights, [resolution^3]; differentiable in `means` [N, 3].

        Each centre spreads a mass of exactly 1 over the 8 voxel centres around it; one outside the grid counts at its
        border, so that the total is N wherever the centres are.
        """
        position = ((means - self.lowest) / self.spacing).clamp(0, self.resolution - 1)
        corner = position.detach().floor().clamp(max=self.resolution - 2)
        fraction = position - corner
        stride = torch.tensor([self.resolution**2, self.resolution, 1], device=means.device)
        base = (corner.long() * stride).sum(dim=1)
        counts = means.new_zeros(self.resolution**3)
        for x in (0, 1):
            for y in (0, 1):
                for z in (0, 1):
                    near = fraction * torch.tensor([2 * x - 1, 2 * y - 1, 2 * z - 1], device=means.device)
                    weight = (near + torch.tensor([1 - x, 1 - y, 1 - z], device=means.device)).prod(dim=1)
                    counts = counts.index_add(0, base + int((stride * torch.tensor([x, y, z])).sum()), weight)
        return counts


def structural_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_hist = 1 - cos(h_tea, h_stu), Distilled-3DGS section 3.3; voxel counts of any common shape.

    The cosine divides by both norms, so counts and normalised histograms give the same value.
    """
    return 1 - torch.nn.functional.cosine_similarity(student.flatten(), teacher.flatten(), dim=0)
