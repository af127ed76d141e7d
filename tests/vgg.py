"""What tests of LPIPS share: weights of the right shapes, and pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distilled_splat.evaluation.lpips_weights import STAGES, VggWeights


def random_weights(seed: int) -> VggWeights:
    """Return weights that keep the size of what goes through them, about."""
    generator = torch.Generator().manual_seed(seed)
    kernels, channels = [], 3
    for count in (count for stage in STAGES for count in stage):
        kernels.append(torch.randn(count, channels, 3, 3, generator=generator) * math.sqrt(2 / (9 * channels)))
        channels = count
    biases = [0.1 * torch.randn(len(kernel), generator=generator) for kernel in kernels]
    return VggWeights(kernels, biases, [torch.rand(stage[-1], generator=generator) for stage in STAGES])


def random_images(height: int, width: int, count: int, seed: int = 0) -> list[Tensor]:
    """Return images [H, W, 3] in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(height, width, 3, generator=generator) for _ in range(count)]
