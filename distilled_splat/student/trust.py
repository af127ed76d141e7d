"""How far pseudo labels are trusted: as far as the teachers know better than the student what is to be seen."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

MEMORY = 0.9
"""What is left of an average of errors at the photos when the next measurement comes in."""
LONG_MEMORY = 0.97
"""The same of the averages that are compared with those between the cameras, whose views differ more."""


class LabelTrust:
    """Compares student and teachers where the student is trained, and finds out what it can learn from them.

    A teacher that is short of steps, or was trained on less, can know less than the student of a later hour; then its
    renders hold the student back. And a student that is too small to learn the photos by heart does between the cameras
    what it does at them: there labels cure nothing, and take the place of photos, which know better than any teacher.
    The paper trusts labels always.

    Attributes:
        value: the part by which labels count, from 0 (the student fits the photos about as well as the ensemble) to 1.
        overfit: the part by which those between the cameras count besides, from 0 (the student is no further from the
            ensemble there than at the photos) to 1.
    """

    def __init__(self, min_advantage: float, full_gap: float = 0.0) -> None:
        """Trust fully until something is known.

        Args:
            min_advantage: by what part the student's squared error must exceed the ensemble's for labels to count at
                all; at twice that they count fully. 0 trusts always.
            full_gap: by what part the student's squared difference from the ensemble must be larger between the
                cameras than at the photos for labels to count fully there; in proportion below. 0 trusts always.
        """
        self.min_advantage, self.full_gap = min_advantage, full_gap
        self.value = self.overfit = 1.0
        self.errors: Optional[Tensor] = None
        self.differences: Optional[Tensor] = None

    @torch.no_grad()
    def see(self, rendered: Tensor, label: Tensor, photo: Tensor, mask: Optional[Tensor] = None) -> None:
        """Take in what the student and its teachers make of a photo.

        Args:
            rendered: the student's render, [H, W, 3].
            label: the teachers' mean, [H, W, 3].
            photo: the truth, [H, W, 3].
            mask: where it counts, [H, W, 1].
        """
        differences = (rendered - photo, label - photo)
        if mask is not None:
            differences = (differences[0] * mask, differences[1] * mask)
        self.errors = averaged(self.errors, differences, MEMORY)
        student, ensemble = self.errors.tolist()
        if self.min_advantage > 0:
            least = self.min_advantage * ensemble
            self.value = min(max((student - ensemble - least) / max(least, 1e-12), 0.0), 1.0)

    @torch.no_grad()
    def see_between(self, at_photo: Tensor, between: Tensor) -> None:
        """Take in how the student differs from its teachers' mean at a photo and at a view between the cameras.

        Args:
            at_photo: the student's render less the label, [H, W, 3].
            between: the same at a view nearby, where there is no photo.
        """
        self.differences = averaged(self.differences, (at_photo, between), LONG_MEMORY)
        here, there = self.differences.tolist()
        if self.full_gap > 0:
            self.overfit = min(max((there - here) / max(self.full_gap * here, 1e-12), 0.0), 1.0)


def averaged(average: Optional[Tensor], differences: tuple[Tensor, Tensor], memory: float) -> Tensor:
    """Bring the mean squares of two pictures, [H, W, 3], into their running averages, [2]."""
    squares = torch.stack([difference.square().mean() for difference in differences])
    return squares if average is None else torch.lerp(squares, average, memory)
