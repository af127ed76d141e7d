"""The frame that a splat is shrunk in: its bulk about the origin, at the size 1, whatever its own units are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distilled_splat.splat.gaussians import Gaussians

OUTSIDE = 0.02
"""Part of the Gaussians at either end of an axis that do not belong to the bulk: floaters, sky, far surroundings."""
FAINTEST = 1 / 255
"""Opacity below which nothing is ever drawn."""


@dataclass(frozen=True)
class UnitFrame:
    """A change of units: x -> (x - centre) / size.

    Attributes:
        centre: middle of the bulk in the splat's own units, float64 [3].
        size: half of the bulk's longest side in those units.
    """

    centre: Tensor
    size: float

    @classmethod
    def of(cls, splats: Sequence[Gaussians]) -> UnitFrame:
        """Find the frame of some splats of one scene, by their Gaussians that can be seen.

        Raises:
            ValueError: if there is nothing to be seen.
        """
        seen = [splat[torch.sigmoid(splat.logit_opacities) > FAINTEST].to("cpu") for splat in splats]
        means = torch.cat([splat.means for splat in seen]).double()
        if len(means) == 0:
            raise ValueError("This splat shows nothing: all its Gaussians are fainter than 1/255.")
        ordered = means.sort(dim=0).values
        last = len(ordered) - 1
        low, high = ordered[round(OUTSIDE * last)], ordered[last - round(OUTSIDE * last)]
        longest = torch.cat([splat.log_scales.amax(dim=1) for splat in seen]).double()
        # a single Gaussian, or many in one place, are as large as they look
        size = max(float((high - low).max()) / 2, 3 * math.exp(float(longest.median())))
        return cls((low + high) / 2, size)

    def into(self, gaussians: Gaussians) -> Gaussians:
        """Bring Gaussians into this frame."""
        means = (gaussians.means.double() - self.centre.to(gaussians.means.device)) / self.size
        log_scales = gaussians.log_scales.double() - math.log(self.size)
        return replace(gaussians, means=means.float(), log_scales=log_scales.float())

    def out_of(self, gaussians: Gaussians) -> Gaussians:
        """Bring Gaussians back into their own units."""
        means = gaussians.means.double() * self.size + self.centre.to(gaussians.means.device)
        log_scales = gaussians.log_scales.double() + math.log(self.size)
        return replace(gaussians, means=means.float(), log_scales=log_scales.float())
