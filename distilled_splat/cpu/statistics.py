"""What densification wants to know of every step, gathered in one pass over the Gaussians."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from torch import Tensor

from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.threads import parallel_ranges

_NOTHING = np.zeros(0, np.float32)


@kernel
def _gather_kernel(
    start: int,
    stop: int,
    radii: Any,
    gradients: Any,
    by_x: Any,
    by_y: Any,
    by_radius: Any,
    sums: Any,
    counts: Any,
    largest: Any,
) -> None:
    for c in range(radii.shape[0]):
        for g in range(start, stop):
            if radii[c, g] > 0:
                x, y = by_x * gradients[c, g, 0], by_y * gradients[c, g, 1]
                sums[g] += np.sqrt(x * x + y * y)
                counts[g] += np.float32(1)
                if len(largest) > 0:
                    largest[g] = max(largest[g], by_radius * np.float32(radii[c, g]))


def gather_statistics(
    radii: Tensor,
    gradients: Tensor,
    width: int,
    height: int,
    sums: Tensor,
    counts: Tensor,
    largest: Optional[Tensor],
) -> None:
    """Add a step to the running statistics of gsplat's DefaultStrategy, in place.

    Args:
        radii: image-plane radii in pixels, 0 where a Gaussian is not visible, [C, N], int32.
        gradients: of the image-plane centres, by pixels, [C, N, 2].
        width, height: image size in pixels; gradients are brought to a screen of -1 to 1, times the number of cameras.
        sums: norms of the gradients, summed over the steps, [N].
        counts: steps in which a Gaussian was visible, [N].
        largest: largest radius so far, as a part of the image's longer side, [N], or None.
    """
    by_x, by_y = np.float32(width / 2 * len(radii)), np.float32(height / 2 * len(radii))
    by_radius = np.float32(1 / max(width, height))
    arrays = [x.detach().contiguous().numpy() for x in (radii, gradients)]
    outputs = [_NOTHING if x is None else x.numpy() for x in (sums, counts, largest)]
    parallel_ranges(_gather_kernel, radii.shape[1], *arrays, by_x, by_y, by_radius, *outputs)
