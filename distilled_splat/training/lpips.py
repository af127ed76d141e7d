"""LPIPS with network weights that are downloaded on first use; without them LPIPS is left out."""

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
    """LPIPS whose weights are downloaded on first use; it is left out if the download fails."""

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
                    f"LPIPS is left out: its network weights could not be downloaded ({words_of(error)}).", markup=False
                )
        return math.nan if self.metric is None else float(self.metric(image.clamp(0, 1), photo.clamp(0, 1)))


class NoLpips(torch.nn.Module):
    """Replaces the LPIPS that splatfacto builds, so that nothing is downloaded at construction."""

    def __init__(self, **options: Any) -> None:
        super().__init__()


@contextlib.contextmanager
def nothing_downloaded() -> Iterator[None]:
    """Make splatfacto build `NoLpips` instead of the metric, whose weights it would download."""
    from torchmetrics.image import lpip

    original, lpip.LearnedPerceptualImagePatchSimilarity = lpip.LearnedPerceptualImagePatchSimilarity, NoLpips
    try:
        yield
    finally:
        lpip.LearnedPerceptualImagePatchSimilarity = original
