"""Random Gaussians for the tests, in two regimes.

A dense scene has everything a photo has: Gaussians of all sizes, thin and round, opaque and faint, some outside the
image and some behind the camera. A smooth scene keeps away from every cutoff, so that its render is differentiable as
it stands and finite differences mean something.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians


@dataclass(frozen=True)
class Scene:
    """Gaussians and cameras, as `rasterization` takes them, in float32."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int

    def tensors(self) -> dict[str, Tensor]:
        """Give the differentiable arguments by name."""
        names = ("means", "quats", "scales", "opacities", "colors", "viewmats")
        return {name: getattr(self, name) for name in names}

    def leaves(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Give fresh copies of the differentiable arguments that require gradients."""
        return {name: tensor.to(dtype).clone().requires_grad_() for name, tensor in self.tensors().items()}

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Give all arguments by name, with changes."""
        return {**self.tensors(), "Ks": self.Ks, "width": self.width, "height": self.height, **changes}

    def with_(self, **changes: Any) -> Scene:
        """Give the scene with some fields changed."""
        return replace(self, **changes)


def _cameras(count: int, width: int, height: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cameras near the origin that look along +z, no two alike."""
    viewmats = torch.eye(4).repeat(count, 1, 1)
    for c in range(1, count):
        axis = 0.15 * torch.randn(3, generator=generator)
        skew = torch.tensor([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        viewmats[c, :3, :3] = torch.matrix_exp(skew)
        viewmats[c, :3, 3] = 0.2 * torch.randn(3, generator=generator)
    Ks = torch.tensor([[0.9 * width, 0, 0.52 * width], [0, 0.95 * width, 0.47 * height], [0, 0, 1]]).repeat(count, 1, 1)
    return viewmats, Ks


def dense_scene(
    seed: int = 0, count: int = 300, width: int = 70, height: int = 45, cameras: int = 1, degree: int = 3
) -> Scene:
    """Make a scene with about 20 Gaussians over every pixel; some are behind the camera or beside the image."""
    generator = torch.Generator().manual_seed(seed)
    depth = 1 + 4 * torch.rand(count, generator=generator)
    depth[: count // 20] = -1.0
    slope = 1.3 * (torch.rand(count, 2, generator=generator) - 0.5)
    means = torch.cat([slope * depth[:, None], depth[:, None]], -1)
    sizes = 0.08 * torch.exp(0.8 * torch.randn(count, 3, generator=generator))
    viewmats, Ks = _cameras(cameras, width, height, generator)
    return Scene(
        means=means,
        quats=torch.randn(count, 4, generator=generator),
        scales=sizes,
        opacities=torch.rand(count, generator=generator) ** 2,
        colors=0.3 * torch.randn(count, (degree + 1) ** 2, 3, generator=generator),
        viewmats=viewmats,
        Ks=Ks,
        width=width,
        height=height,
    )


def radii_of(info: dict[str, Any]) -> Tensor:
    """Return the radii [C, N]; beside gsplat 1.5 and later there are two of each, for its strategies, [C, N, 2]."""
    radii = info["radii"]
    if radii.dim() == 2:
        return radii
    assert torch.equal(radii[..., 0], radii[..., 1])
    return radii[..., 0]


def smooth_scene(seed: int = 0, count: int = 6, width: int = 13, height: int = 9) -> Scene:
    """Make a scene in which every Gaussian covers every pixel, well above 1/255 and far from opaque."""
    generator = torch.Generator().manual_seed(seed)
    viewmats, Ks = _cameras(2, width, height, generator)
    depth = 2 + torch.arange(count) * 0.5
    means = torch.cat([0.3 * torch.randn(count, 2, generator=generator), depth[:, None]], -1)
    return Scene(
        means=means,
        quats=torch.randn(count, 4, generator=generator),
        scales=2 + torch.rand(count, 3, generator=generator),
        opacities=0.1 + 0.2 * torch.rand(count, generator=generator),
        colors=0.1 * torch.randn(count, 16, 3, generator=generator),
        viewmats=viewmats,
        Ks=Ks,
        width=width,
        height=height,
    )


def splat_and_view(seed: int = 0) -> tuple[Gaussians, View]:
    """A dense scene as our own render takes it."""
    scene = dense_scene(seed)
    gaussians = Gaussians(
        means=scene.means,
        quats=scene.quats,
        log_scales=torch.log(scene.scales),
        logit_opacities=torch.logit(scene.opacities.clamp(1e-4, 0.999)),
        sh_dc=scene.colors[:, 0],
        sh_rest=scene.colors[:, 1:],
    )
    return gaussians, View(scene.viewmats[0], scene.Ks[0], scene.width, scene.height)
