"""LPIPS that no training waits for: its network weights are fetched when it is first measured, or it is left out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from distilled_splat.runs.words import words_of


class LazyLpips:
    """LPIPS whose weights are fetched when it is first used, and which is left out when they cannot be had."""

    def __init__(self) -> None:
        self.metric: Any = None
        self.failed = False

    def __call__(self, image: Tensor, photo: Tensor) -> float:
        """Return the LPIPS (AlexNet) of two images in [0, 1], [1, 3, H, W], or NaN without weights."""
        if self.metric is None and not self.failed:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            try:
                self.metric = LearnedPerceptualImagePatchSimilarity(normalize=True).to(image.device)
            except Exception as error:
                self.failed = True
                CONSOLE.print(
                    f"LPIPS is left out: its network weights could not be fetched ({words_of(error)}).", markup=False
                )
        return math.nan if self.metric is None else float(self.metric(image.clamp(0, 1), photo.clamp(0, 1)))


class NoLpips(torch.nn.Module):
    """Stands in for the LPIPS that splatfacto builds, so that nothing is downloaded at construction."""

    def __init__(self, **options: Any) -> None:
        super().__init__()


@contextlib.contextmanager
def nothing_downloaded() -> Iterator[None]:
    """Let splatfacto build `NoLpips` where it would build the metric and fetch its weights."""
    from torchmetrics.image import lpip

    original, lpip.LearnedPerceptualImagePatchSimilarity = lpip.LearnedPerceptualImagePatchSimilarity, NoLpips
    try:
        yield
    finally:
        lpip.LearnedPerceptualImagePatchSimilarity = original
