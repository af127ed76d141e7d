"""Pseudo labels: the mean of the frozen teachers' renders, rendered once per training view."""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor

from distilled_splat.ops.composite import over_background, resized, stored
from distilled_splat.ops.free_memory import release_memory
from distilled_splat.ops.views import View
from distilled_splat.teachers.ensemble import TeacherEnsemble, disagreement, mean_depth, mean_image

AGREEMENT = 0.05
"""Standard deviation of the teachers' depths, as a fraction of their mean, at which its weight falls to 1 / e."""


LABELS_BETWEEN_RELEASES = 32
"""Rendering a label leaves unused memory between the labels, about half of their size."""


class Label(NamedTuple):
    """The teachers' mean of one view.

    Attributes:
        image: packed by `composite.stored`, [H, W, 4].
        disagreement: how much the teachers differ, see `ensemble.disagreement`; None if there is one teacher.
        surface: their mean depth in world units and the belief in it, its weight from 0 to 1, as half floats,
            [H, W, 2]; None without depths.
    """

    image: Tensor
    disagreement: Optional[Tensor]
    surface: Optional[Tensor]

    @property
    def size(self) -> int:
        """Size of the pictures in bytes."""
        return self.image.nbytes + (0 if self.surface is None else self.surface.nbytes)


class PseudoLabels:
    """The ensemble's mean render at each training view, kept within a budget of memory."""

    def __init__(self, ensemble: TeacherEnsemble, budget: int, with_depth: bool = False) -> None:
        """Start without labels.

        Args:
            ensemble: the teachers.
            budget: bytes that labels may take on the teachers' device.
            with_depth: whether to render depths too.
        """
        self.ensemble = ensemble
        self.budget = budget
        self.with_depth = with_depth
        self.kept: dict[int, Label] = {}
        self.kept_bytes = 0

    def of(self, index: int, view: View) -> Label:
        """Return the teachers' mean of a view, rendered on first use; see `label` for the arguments."""
        label = self.kept.get(index)
        if label is None:
            label = self.rendered(view)
            if self.kept_bytes + label.size <= self.budget:
                self.kept[index] = label
                self.kept_bytes += label.size
                if len(self.kept) % LABELS_BETWEEN_RELEASES == 0:
                    release_memory()
        return label

    def forget(self) -> None:
        """Let go of all labels that are kept."""
        self.kept.clear()
        self.kept_bytes = 0

    @torch.no_grad()
    def rendered(self, view: View) -> Label:
        """Render a view with all teachers."""
        renders = self.ensemble.renders(view, depth=self.with_depth)
        color, alpha = mean_image(renders)
        surface = None
        if self.with_depth:
            depth, spread = mean_depth(renders)
            belief = alpha * torch.exp(-((spread / (AGREEMENT * depth).clamp_min(1e-12)) ** 2))
            surface = torch.cat((depth, belief), dim=-1).half()
        return Label(stored(color, alpha), disagreement(renders), surface)

    def label(self, index: int, view: View, background: Tensor, downscale: int = 1) -> Tensor:
        """Return the pseudo label of a training view over a background, at the step's resolution.

        Args:
            index: number of the training view; it must be the same view each time.
            view: the view at the photo's full resolution.
            background: colour [3] of the student's step.
            downscale: integer factor; the label is averaged down exactly as the photo is.

        Returns:
            Image in [0, 1], [H // downscale, W // downscale, 3].
        """
        return over_background(self.of(index, view).image, background, downscale)

    def surface(self, index: int, view: View, downscale: int = 1) -> tuple[Tensor, Tensor]:
        """Return the teachers' mean depth of a training view, and the belief in it; see `label`.

        The belief is the teachers' mean alpha times exp(-(s / (0.05 d))^2), where s is the standard deviation of their
        depths and d the mean. So a depth on which the teachers disagree has little weight.

        Returns:
            Depth in world units and belief in [0, 1], [H // downscale, W // downscale, 1] each.
        """
        surface = self.of(index, view).surface
        assert surface is not None
        depth, belief = resized(surface.float(), downscale).split(1, dim=-1)
        return depth, belief
