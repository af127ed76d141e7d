"""How much pseudo labels count: only while the teachers are better than the student, and while it overfits."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

MEMORY = 0.9
"""Weight of the past in the running average of errors at the photos."""
LONG_MEMORY = 0.97
"""The same for the averages at photos and virtual views, which vary more."""


class LabelTrust:
    """Compares student and teachers during the training, and decides how much pseudo labels count.

    A teacher that trained for too few steps, or on fewer photos, can be worse than a late student; then its renders
    hold the student back. A student too small to overfit renders virtual views as well as the photos' views; then
    labels at virtual views gain nothing and take steps from the photos, which are more accurate than any teacher. In
    the paper labels always count fully.

    Attributes:
        value: weight of all labels, from 0 (the student fits the photos about as well as the ensemble) to 1.
        overfit: additional weight of labels at virtual views, from 0 (the student is not further from the ensemble
            there than at the photos) to 1.
    """

    def __init__(self, min_advantage: float, full_gap: float = 0.0) -> None:
        """Let labels count fully until something is measured.

        Args:
            min_advantage: the fraction by which the student's squared error must exceed the ensemble's for labels to
                count at all; from twice this fraction they count fully. 0: always fully.
            full_gap: the fraction by which the student's squared difference from the ensemble must be larger at virtual
                views than at the photos for labels to count fully there; in proportion below. 0: always fully.
        """
        self.min_advantage, self.full_gap = min_advantage, full_gap
        self.value = self.overfit = 1.0
        self.errors: Optional[Tensor] = None
        self.differences: Optional[Tensor] = None

    @torch.no_grad()
    def see(self, rendered: Tensor, label: Tensor, photo: Tensor, mask: Optional[Tensor] = None) -> None:
        """Compare the student and its teachers with a photo.

        Args:
            rendered: the student's render, [H, W, 3].
            label: the teachers' mean, [H, W, 3].
            photo: the truth, [H, W, 3].
            mask: where the photo counts, [H, W, 1].
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
        """Compare the student with its teachers' mean at a photo and at a virtual view.

        Args:
            at_photo: the student's render minus the label, [H, W, 3].
            between: the same at a virtual view nearby.
        """
        self.differences = averaged(self.differences, (at_photo, between), LONG_MEMORY)
        here, there = self.differences.tolist()
        if self.full_gap > 0:
            self.overfit = min(max((there - here) / max(self.full_gap * here, 1e-12), 0.0), 1.0)


def averaged(average: Optional[Tensor], differences: tuple[Tensor, Tensor], memory: float) -> Tensor:
    """Update the running averages [2] with the mean squares of two pictures, [H, W, 3]."""
    squares = torch.stack([difference.square().mean() for difference in differences])
    return squares if average is None else torch.lerp(squares, average, memory)
