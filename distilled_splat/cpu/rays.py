"""Rays through a grid of all space, contracted into a cube: where each has lost half of its light."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.threads import parallel_ranges

FAR = 60.0
"""Rays end here, in half sides of the cube that is not contracted."""


@kernel
def _cast_kernel(
    start: int, stop: int, eyes: Any, directions: Any, density: Any, distances: Any, fogs: Any, cells: Any
) -> None:
    resolution, count = density.shape[0], len(directions)
    spacing = 4.0 / resolution
    for ray in range(start, stop):
        eye, way = eyes[ray // count], directions[ray % count]
        time, lost, fifth, half, cell = 0.0, 0.0, -1.0, -1.0, 0
        while time < FAR:
            x, y, z = eye[0] + time * way[0], eye[1] + time * way[1], eye[2] + time * way[2]
            largest = max(abs(x), abs(y), abs(z), 1.0)
            factor = (2.0 - 1.0 / largest) / largest
            i = min(max(int((factor * x + 2.0) / spacing), 0), resolution - 1)
            j = min(max(int((factor * y + 2.0) / spacing), 0), resolution - 1)
            k = min(max(int((factor * z + 2.0) / spacing), 0), resolution - 1)
            step = 0.8 * spacing * largest * largest
            lost += step * density[i, j, k]
            time += step
            if fifth < 0 and lost > 0.223:
                fifth = time
            if half < 0 and lost > 0.693:
                half, cell = time, (i * resolution + j) * resolution + k
            if lost > 1.609:
                break
        distances[ray] = np.inf if half < 0 else half
        fogs[ray] = np.inf if half < 0 else (time - fifth) / half
        cells[ray] = cell


def cast_rays(
    eyes: Tensor, directions: Tensor, density: Tensor, distances: Tensor, fogs: Tensor, cells: Tensor
) -> None:
    """Follow rays from each eye in all directions, and write what each ends on.

    The grid covers the cube from -2 to 2 of contracted space: with m the largest coordinate of x, but at least 1, x
    lies at (2 - 1 / m) x / m there (Mip-NeRF 360, with the maximum norm).

    Args:
        eyes: where rays begin, float32 [E, 3].
        directions: unit vectors, float32 [D, 3].
        density: what a ray loses of its light in a unit of its way, as an exponent, float32 [R, R, R].
        distances: gets the way to where half of the light is gone, infinite where a ray ends on nothing, [E, D].
        fogs: gets the way between a fifth and four fifths gone, as a part of that distance, [E, D].
        cells: gets the number of the grid's cell where it ends, int64 [E, D].
    """
    inputs = [value.contiguous().numpy() for value in (eyes, directions, density)]
    outputs = [value.view(-1).numpy() for value in (distances, fogs, cells)]
    parallel_ranges(_cast_kernel, len(eyes) * len(directions), *inputs, *outputs)
