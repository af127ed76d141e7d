"""Splats whose shape is known: a sphere seen from outside, a room seen from inside."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from distilled_splat.ops.space import sphere_directions
from distilled_splat.splat.gaussians import Gaussians


def flat(means: torch.Tensor, normals: torch.Tensor, size: float, seed: int = 0) -> Gaussians:
    """Return opaque flat Gaussians of random colours at places [N, 3], across unit normals [N, 3]."""
    generator = torch.Generator().manual_seed(seed)
    count = len(means)
    axis = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]).expand(count, 3), normals)
    quats = torch.nn.functional.normalize(torch.cat((1 + normals[:, 2:], axis), dim=1) + 1e-6, dim=1)
    return Gaussians(
        means=means.float(),
        quats=quats.float(),
        log_scales=torch.tensor([size, size, 0.1 * size]).log().repeat(count, 1),
        logit_opacities=torch.full((count,), 4.0),
        sh_dc=0.5 * torch.randn(count, 3, generator=generator),
        sh_rest=0.1 * torch.randn(count, 3, 3, generator=generator),
    )


def sphere(count: int = 1500, radius: float = 1.0) -> Gaussians:
    """Return a sphere about the origin."""
    normals = sphere_directions(count)
    return flat(radius * normals, normals, 1.2 * radius * math.sqrt(4 * math.pi / count) / 2)


def solid(count: int = 6000, radius: float = 0.8) -> Gaussians:
    """Return a ball about the origin, in which there is no room."""
    return joined(*(sphere(round(count * part**2), part * radius) for part in (1.0, 0.8, 0.6, 0.4, 0.2)))


def room(count: int = 8000, height: float = 0.6) -> Gaussians:
    """Return the six walls of a room of 2 x 2 x 2 `height` about the origin."""
    generator = torch.Generator().manual_seed(1)
    places = 2 * torch.rand(count, 3, generator=generator) - 1
    wall, side = torch.arange(count) % 3, 2.0 * (torch.arange(count) // 3 % 2) - 1
    normals = torch.nn.functional.one_hot(wall, 3).float()
    places = torch.where(normals > 0, side[:, None], places) * torch.tensor([1.0, 1.0, height])
    return flat(places, normals, 0.05)


def moved_to(gaussians: Gaussians, scale: float, shift: float) -> Gaussians:
    """Return a splat in other units, and elsewhere."""
    return replace(
        gaussians,
        means=(gaussians.means.double() * scale + shift).float(),
        log_scales=gaussians.log_scales + math.log(scale),
    )


def joined(*splats: Gaussians) -> Gaussians:
    """Return several splats as one."""
    return Gaussians(*(torch.cat(parts) for parts in zip(*(vars(splat).values() for splat in splats))))
