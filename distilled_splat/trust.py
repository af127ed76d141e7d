"""How far pseudo labels are trusted: as far as the teachers still fit the photos better than the student does."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

MEMORY = 0.9
"""What is left of an average when the next measurement comes in."""


class LabelTrust:
    """Compares student and teachers on the photos that the student is trained on.

    A teacher that is short of steps, or was trained on less, can know less than the student of a later hour; then its
    renders hold the student back, at views between the cameras most of all. The paper trusts labels always.

    Attributes:
        value: the part by which labels count, from 0 (the student fits the photos about as well as the ensemble) to 1.
    """

    def __init__(self, margin: float) -> None:
        """Trust fully until something is known.

        Args:
            margin: by what part the student's squared error must exceed the ensemble's for labels to count at all; at
                twice that they count fully. 0 trusts always.
        """
        self.margin = margin
        self.value = 1.0
        self.errors: Optional[Tensor] = None

    @torch.no_grad()
    def see(self, rendered: Tensor, label: Tensor, photo: Tensor, mask: Optional[Tensor] = None) -> None:
        """Take in what the student and its teachers make of a photo.

        Args:
            rendered: the student's render, [H, W, 3].
            label: the teachers' mean, [H, W, 3].
            photo: the truth, [H, W, 3].
            mask: where it counts, [H, W, 1].
        """
        differences = torch.stack((rendered - photo, label - photo))
        if mask is not None:
            differences = differences * mask
        errors = differences.square().mean(dim=(1, 2, 3))
        self.errors = errors if self.errors is None else torch.lerp(errors, self.errors, MEMORY)
        student, ensemble = self.errors.tolist()
        if self.margin > 0:
            least = self.margin * ensemble
            self.value = min(max((student - ensemble - least) / max(least, 1e-12), 0.0), 1.0)
