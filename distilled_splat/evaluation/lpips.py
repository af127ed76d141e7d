"""LPIPS (VGG): how different two images look, from a network's features (Zhang et al. 2018, version 0.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.backends import cudnn
from torch.nn.functional import conv2d, max_pool2d, relu_

from distilled_splat.evaluation.lpips_weights import STAGES, VggWeights, read_weights

COARSEST = 2 ** (len(STAGES) - 1)
"""Side of a cell of the last stage, in pixels."""
MARGIN = 112
"""Rows beyond a strip that influence its features: 105, rounded up to whole cells of the last stage."""
PIXELS_AT_ONCE = 1 << 20
"""Pixels of a strip without its margins. An image of two million pixels needs one and a half gigabytes."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""By channel, for images in [-1, 1]: the network's input is (image - shift) / scale."""


@cache
def lpips_on(device: torch.device) -> Lpips:
    """Return the metric with its weights on a device. A process reads the weights once.

    Raises:
        ValueError: if the weights are missing; the message says what to do.
    """
    return Lpips(read_weights(), device)


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep cuDNN from rounding to TF32, its default on a GPU, which changes the distances by about a thousandth."""
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


class Lpips:
    """The metric, on one device."""

    def __init__(self, weights: VggWeights, device: torch.device) -> None:
        convolutions = iter(
            [(kernel.to(device), bias.to(device)) for kernel, bias in zip(weights.kernels, weights.biases)]
        )
        self.stages = [[next(convolutions) for _ in stage] for stage in STAGES]
        self.heads = [head.view(-1, 1, 1).to(device) for head in weights.heads]
        self.shift, self.scale = (torch.tensor(each, device=device).view(3, 1, 1) for each in (SHIFT, SCALE))

    @torch.no_grad()
    @full_precision()
    def distances(self, photo: Tensor, images: Sequence[Tensor]) -> list[float]:
        """Return the distance of each image from a photo; NaN for images that are too small for the network.

        Large images are processed in strips. The strips overlap by the margin that influences their features, so the
        result equals that of the whole image.

        Args:
            photo: [H, W, 3], in [0, 1].
            images: images like the photo.
        """
        height, width = photo.shape[:2]
        if min(height, width) < COARSEST:
            return [math.nan] * len(images)
        totals = torch.zeros(len(images), dtype=torch.float64)
        for first, last in strips(height, width):
            low, high = max(first - MARGIN, 0), min(last + MARGIN, height)
            wanted = list(self.features(photo[low:high]))
            for place, image in enumerate(images):
                for stage, features in enumerate(self.features(image[low:high])):
                    rows = slice((first - low) >> stage, (last - low) >> stage)
                    difference = (features[:, rows] - wanted[stage][:, rows]) ** 2
                    seen = (height >> stage) * (width >> stage)
                    totals[place] += float((difference * self.heads[stage]).sum()) / seen
        return totals.tolist()

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """Yield each stage's output [C, h, w] for an image [H, W, 3] in [0, 1], of length 1 at each pixel."""
        layer = (2 * image.permute(2, 0, 1) - 1 - self.shift) / self.scale
        for stage, convolutions in enumerate(self.stages):
            if stage > 0:
                layer = max_pool2d(layer, 2)
            for kernel, bias in convolutions:
                layer = relu_(conv2d(layer, kernel, bias, padding=1))
            yield layer / (layer.norm(dim=0, keepdim=True) + 1e-10)


def strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of each strip. All strips but the last consist of whole cells."""
    count = math.ceil(height * width / PIXELS_AT_ONCE)
    rows = math.ceil(height / count / COARSEST) * COARSEST
    for first in range(0, height, rows):
        yield first, min(first + rows, height)
