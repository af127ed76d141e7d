"""Lay a stored picture over a background colour in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from distilled_splat.cpu import buffers
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.threads import parallel_ranges

_STEP = np.float32(1 / 65535)


@kernel
def _composite_kernel(start: int, stop: int, stored: Any, background: Any, image: Any) -> None:
    red, green, blue = _STEP * background[0], _STEP * background[1], _STEP * background[2]
    one = np.float32(1)
    for i in range(start, stop):
        light = np.float32(stored[i, 3])
        image[i, 0] = min(_STEP * np.float32(stored[i, 0]) + light * red, one)
        image[i, 1] = min(_STEP * np.float32(stored[i, 1]) + light * green, one)
        image[i, 2] = min(_STEP * np.float32(stored[i, 2]) + light * blue, one)


def composite(stored: Tensor, background: Tensor) -> Tensor:
    """Return a picture over a background, [H, W, 3], at most 1.

    Args:
        stored: premultiplied colour and the light that passes, as parts of 65535, uint16 on the CPU, [H, W, 4].
        background: colour, not negative, [3].
    """
    image = buffers.empty_tensor((*stored.shape[:2], 3))
    pixels = stored.shape[0] * stored.shape[1]
    arrays = (stored.view(pixels, 4).numpy(), background.detach().contiguous().numpy(), image.view(pixels, 3).numpy())
    parallel_ranges(_composite_kernel, pixels, *arrays)
    return image
