"""How much pseudo labels count: only while the teachers are better than the student, and while it overfits."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

MEMORY = 0.9
"""Weight of the past in the running average of errors at the photos."""
LONG_MEMORY = 0.97
"""The same for the averages at photos and virtual views, which vary more."""


REMEMBERED = ("value", "overfit", "certain", "student_error", "ensemble_error", "errors", "differences")
"""What a resumed training takes over."""


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
        certain: additional weight of labels at virtual views, from 0 (the teachers differ there from each other much
            more than from the photos: they overfit) to 1.
    """

    def __init__(self, min_advantage: float, full_gap: float = 0.0, max_disagreement: float = 0.0) -> None:
        """Let labels count fully until something is measured.

        Args:
            min_advantage: the fraction by which the student's squared error must exceed the ensemble's for labels to
                count at all; from twice this fraction they count fully. 0: always fully.
            full_gap: the fraction by which the student's squared difference from the ensemble must be larger at virtual
                views than at the photos for labels to count fully there; in proportion below. 0: always fully.
            max_disagreement: the largest variance of the teachers at virtual views at which labels count fully there,
                as a fraction of the squared error of the teachers' mean at the photos. From twice this fraction they do
                not count. 0: always fully.
        """
        self.min_advantage, self.full_gap, self.max_disagreement = min_advantage, full_gap, max_disagreement
        self.value = self.overfit = self.certain = 1.0
        self.student_error: Optional[float] = None
        self.ensemble_error: Optional[float] = None
        self.errors: Optional[Tensor] = None
        self.differences: Optional[Tensor] = None

    def state(self) -> dict[str, Any]:
        """Return the weights and the averages, as numbers and lists."""
        found = {name: getattr(self, name) for name in REMEMBERED}
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in found.items()}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over what `state` returned; averages are kept on `device`."""
        for name in REMEMBERED:
            value = state[name]
            setattr(self, name, torch.tensor(value, device=device) if isinstance(value, list) else value)

    @property
    def between(self) -> float:
        """The weight of labels at virtual views, from 0 to 1."""
        return self.value * self.overfit * self.certain

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
        self.errors = averaged(self.errors, [difference.square().mean() for difference in differences], MEMORY)
        student, ensemble = self.errors.tolist()
        self.student_error, self.ensemble_error = student, ensemble
        if self.min_advantage > 0:
            least = self.min_advantage * ensemble
            self.value = min(max((student - ensemble - least) / max(least, 1e-12), 0.0), 1.0)

    @torch.no_grad()
    def see_between(self, at_photo: Tensor, between: Tensor, disagreement: Optional[Tensor] = None) -> None:
        """Compare the student with its teachers' mean at a photo and at a virtual view.

        Args:
            at_photo: the student's render minus the label, [H, W, 3].
            between: the same at a virtual view nearby.
            disagreement: the variance of the teachers at the virtual view; None with one teacher. Then it is that of
                student and teacher, half of their squared difference, and is compared with the student's error.
        """
        squares = [at_photo.square().mean(), between.square().mean()]
        squares.append(squares[1] / 2 if disagreement is None else disagreement)
        self.differences = averaged(self.differences, squares, LONG_MEMORY)
        here, there, variance = self.differences.tolist()
        error = self.student_error if disagreement is None else self.ensemble_error
        if error is not None and self.max_disagreement > 0:
            most = self.max_disagreement * error
            self.certain = min(max(2 - variance / max(most, 1e-12), 0.0), 1.0)
        if self.full_gap > 0:
            self.overfit = min(max((there - here) / max(self.full_gap * here, 1e-12), 0.0), 1.0)


def averaged(average: Optional[Tensor], values: list[Tensor], memory: float) -> Tensor:
    """Update the running averages [N] with N scalars."""
    now = torch.stack(values)
    return now if average is None else torch.lerp(now, average, memory)
