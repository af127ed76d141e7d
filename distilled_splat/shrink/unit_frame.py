"""The unit frame, in which a splat is shrunk: the bulk of the splat is around the origin and has size 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distilled_splat.splat.gaussians import Gaussians

OUTSIDE = 0.02
"""Fraction of the Gaussians at either end of an axis outside the bulk: floaters, sky, far surroundings."""
FAINTEST = 1 / 255
"""Gaussians of a smaller opacity are never drawn."""


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
        """Return the frame of splats of one scene, from their visible Gaussians.

        Raises:
            ValueError: if no Gaussian is visible.
        """
        seen = [torch.sigmoid(splat.logit_opacities) > FAINTEST for splat in splats]
        means = torch.cat([splat.means[mask].cpu() for splat, mask in zip(splats, seen)]).double()
        if len(means) == 0:
            raise ValueError("This splat is invisible: the opacities of all its Gaussians are below 1/255.")
        ordered = means.sort(dim=0).values
        last = len(ordered) - 1
        low, high = ordered[round(OUTSIDE * last)], ordered[last - round(OUTSIDE * last)]
        longest = torch.cat([splat.log_scales[mask].amax(dim=1).cpu() for splat, mask in zip(splats, seen)]).double()
        # the size of the Gaussians matters for a single Gaussian, or for many in one place
        size = max(float((high - low).max()) / 2, 3 * math.exp(float(longest.median())))
        return cls((low + high) / 2, size)

    def into(self, gaussians: Gaussians) -> Gaussians:
        """Move Gaussians into this frame."""
        return gaussians.centred(self.centre, self.size)

    def out_of(self, gaussians: Gaussians) -> Gaussians:
        """Move Gaussians from this frame back to the splat's own units."""
        means = gaussians.means.double() * self.size + self.centre.to(gaussians.means.device)
        log_scales = gaussians.log_scales.double() + math.log(self.size)
        return replace(gaussians, means=means.float(), log_scales=log_scales.float())
