"""The optical density of a splat on a grid of all space, and rays that end in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distilled_splat.cpu.rays import cast_rays
from distilled_splat.splat.gaussians import Gaussians

RESOLUTION = 160
"""Cells along each axis of the contracted space, which reaches from -2 to 2."""
CELL = 4 / RESOLUTION
SAMPLES_PER_CELL, MOST_SAMPLES = 6, 256
"""Sample points of a Gaussian for each cell that it could cover, and at most. Fewer would leave holes."""


LARGEST_LOG_SCALE = 10.0


def contracted(points: Tensor) -> Tensor:
    """Map all space [..., 3] into the cube from -2 to 2. The cube from -1 to 1 stays unchanged.

    Outside of it x becomes (2 - 1 / m) x / m, with the largest coordinate m (Mip-NeRF 360, with the maximum norm).
    """
    largest = points.abs().amax(dim=-1, keepdim=True).clamp_min(1.0)
    return (2 - 1 / largest) * points / largest


def cell_of(points: Tensor) -> Tensor:
    """Return the index of the grid cell of each point [..., 3], int64 [...]."""
    place = ((contracted(points) + 2) / CELL).long().clamp(0, RESOLUTION - 1)
    return (place[..., 0] * RESOLUTION + place[..., 1]) * RESOLUTION + place[..., 2]


def place_of(cells: Tensor) -> Tensor:
    """Return the positions of cells [...] along the three axes, int64 [3, ...]."""
    return torch.stack((cells // RESOLUTION**2, cells // RESOLUTION % RESOLUTION, cells % RESOLUTION))


def cell_volumes() -> Tensor:
    """Return the volume of each cell in the uncontracted space, [RESOLUTION^3]."""
    axis = (torch.arange(RESOLUTION) + 0.5) * CELL - 2
    largest = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).abs().amax(dim=0).flatten().clamp_min(1.0)
    outer = 1 / (2 - largest)  # m of the uncontracted point
    return CELL**3 * outer**2 * (outer / largest) ** 2


@dataclass(frozen=True)
class Hits:
    """The ends of rays.

    Attributes:
        distance: distance at which half of the light is lost; infinite if the ray hits nothing, [E, D].
        fog: how gradually the light is lost: the distance between a loss of a fifth and of four fifths, as a fraction
            of `distance`, [E, D].
        cell: the cell of the end, int64 [E, D].
    """

    distance: Tensor
    fog: Tensor
    cell: Tensor

    def __getitem__(self, chosen: Tensor) -> Hits:
        """Return the rays from the eyes that an index tensor chooses."""
        return Hits(self.distance[chosen], self.fog[chosen], self.cell[chosen])

    @property
    def ends(self) -> Tensor:
        """Whether a ray hits something, [E, D]."""
        return torch.isfinite(self.distance)

    @property
    def nearest(self) -> Tensor:
        """The distance below which only a fiftieth of an eye's rays end, [E]."""
        return self.distance.quantile(0.02, dim=1, interpolation="lower")


@dataclass(frozen=True)
class Space:
    """A splat's space in its unit frame.

    Attributes:
        density: optical depth per unit of length, [RESOLUTION^3].
        count: number of Gaussians in each cell, weighted by opacity, [RESOLUTION^3].
        log_detail: mean logarithm of the Gaussians' size, [RESOLUTION^3]; 0 in empty cells.
    """

    density: Tensor
    count: Tensor
    log_detail: Tensor

    @classmethod
    def of(cls, gaussians: Gaussians, seed: int = 0) -> Space:
        """Fill the grid with Gaussians. A large Gaussian becomes several points drawn from it."""
        generator = torch.Generator().manual_seed(seed)
        means, quats = gaussians.means.cpu(), gaussians.quats.cpu()
        # a Gaussian that is much larger than space fills all of it, however large
        scales = torch.exp(gaussians.log_scales.cpu().clamp(max=LARGEST_LOG_SCALE))
        opacities = torch.sigmoid(gaussians.logit_opacities.cpu())
        section = scales.prod(dim=1) / scales.amin(dim=1).clamp_min(1e-20)
        shrunk = means.abs().amax(dim=1).clamp_min(1.0) ** 2
        samples = (SAMPLES_PER_CELL * section / (CELL * shrunk) ** 2).ceil().clamp(1, MOST_SAMPLES).nan_to_num(1).long()
        of = torch.repeat_interleave(torch.arange(len(means)), samples)
        offsets = torch.randn(len(of), 3, generator=generator) * scales[of]
        points = means[of] + turned(quats[of], offsets)
        cells, parts = cell_of(points), 1 / samples[of]
        size = RESOLUTION**3
        # a flat Gaussian shows half of its section, averaged over all directions
        blocked = torch.zeros(size).index_add(0, cells, torch.pi * (opacities * section)[of] * parts)
        weights = opacities[of] * parts
        count = torch.zeros(size).index_add(0, cells, weights)
        logs = torch.zeros(size).index_add(0, cells, weights * 0.5 * torch.log(section.clamp_min(1e-20))[of])
        return cls(blocked / cell_volumes(), count, logs / count.clamp_min(1e-12))

    def cast(self, eyes: Tensor, directions: Tensor) -> Hits:
        """Cast rays from each eye [E, 3] in all directions [D, 3] (unit vectors)."""
        distance, fog = torch.empty(2, len(eyes), len(directions))
        cell = torch.empty(len(eyes), len(directions), dtype=torch.int64)
        cast_rays(eyes, directions, self.density.view(3 * (RESOLUTION,)), distance, fog, cell)
        return Hits(distance, fog, cell)


def turned(quats: Tensor, vectors: Tensor) -> Tensor:
    """Rotate vectors [N, 3] by quaternions [N, 4] (w, x, y, z) of any length."""
    quats = torch.nn.functional.normalize(quats, dim=-1)
    w, axis = quats[:, :1], quats[:, 1:]
    twice = 2 * torch.cross(axis, vectors, dim=-1)
    return vectors + w * twice + torch.cross(axis, twice, dim=-1)


def sphere_directions(count: int) -> Tensor:
    """Return unit vectors spread evenly over the sphere, [count, 3] (Fibonacci's lattice)."""
    place = torch.arange(count) + 0.5
    height, angle = 1 - 2 * place / count, place * (torch.pi * (3 - 5**0.5))
    radius = (1 - height**2).sqrt()
    return torch.stack((radius * angle.cos(), radius * angle.sin(), height), dim=1)
