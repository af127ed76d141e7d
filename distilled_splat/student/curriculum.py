"""Which view each step of a student renders: a photo's, or a virtual view that only the teachers can render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import torch

from distilled_splat.ops.views import View


@dataclass(frozen=True)
class Lesson:
    """The view of one step.

    Attributes:
        index: number of the view, the key of its pseudo label.
        view: the view at the photos' full resolution.
        has_photo: whether there is a photo of it; otherwise the only target is the pseudo label.
    """

    index: int
    view: View
    has_photo: bool


class Curriculum:
    """The training views, which have photos, and the virtual views between them."""

    def __init__(self, photographed: Sequence[View], virtual: Sequence[View], virtual_fraction: float) -> None:
        """Collect all views.

        Args:
            photographed: the training views.
            virtual: views between them, made from the training views in turn (`virtual_views.views_between`).
            virtual_fraction: fraction of the steps at virtual views while labels count fully.
        """
        self.photographed = tuple(photographed)
        self.views = (*photographed, *virtual)
        self.num_virtual = len(virtual)
        self.virtual_fraction = virtual_fraction

    def of(self, index: int) -> Lesson:
        """Return the lesson at the view of this number: the training views come first."""
        return Lesson(index, self.views[index], index < len(self.photographed))

    def choose(self, photo: int, trust: float, photos_only: bool) -> Lesson:
        """Choose the view of a step.

        Args:
            photo: number of the training view whose turn it is.
            trust: weight of the labels of virtual views, 0 to 1.
            photos_only: whether this step must render the photo's view.
        """
        part = self.virtual_fraction * trust
        if self.num_virtual and not photos_only and float(torch.rand(())) < part:
            return self.of(len(self.photographed) + int(torch.randint(self.num_virtual, ())))
        return self.of(photo)

    def near(self, photo: int) -> Optional[Lesson]:
        """Return a lesson at one of the virtual views that were made from a training view, None if there is none."""
        near = range(len(self.photographed) + photo, len(self.views), len(self.photographed))
        return self.of(near[int(torch.randint(len(near), ()))]) if near else None
