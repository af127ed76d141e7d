"""Pseudo labels: the mean of the frozen teachers' renders, rendered once per training view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nerfstudio.models.splatfacto import resize_image
from torch import Tensor

from distilled_splat.readers import Teacher
from distilled_splat.render import Rendered, View, render


class TeacherEnsemble:
    """Frozen teachers on one device."""

    def __init__(self, teachers: Sequence[Teacher], device: torch.device | str) -> None:
        self.teachers = tuple(teachers)
        self.members = tuple(teacher.gaussians.to(device) for teacher in teachers)

    @torch.no_grad()
    def renders(self, view: View) -> list[Rendered]:
        """Render each teacher with its own settings."""
        return [
            render(member, view, antialiased=teacher.antialiased)
            for member, teacher in zip(self.members, self.teachers)
        ]

    @torch.no_grad()
    def mean_render(self, view: View) -> tuple[Tensor, Tensor]:
        """Return the mean of the teachers' premultiplied colours [H, W, 3] and of their alphas [H, W, 1].

        Over a background b the mean of the composites C_i + (1 - a_i) b is mean(C_i) + (1 - mean(a_i)) b; so these two
        images serve every background. Each teacher's colour is first brought into the range of an image.
        """
        renders = self.renders(view)
        colors = torch.stack([rendered.color.clamp(0, 1) for rendered in renders]).mean(dim=0)
        return colors, torch.stack([rendered.alpha for rendered in renders]).mean(dim=0)


class PseudoLabels:
    """The ensemble's mean render at each training view, kept as half floats within a budget of memory.

    Half floats hold a colour in [0, 1] to 0.0005, a tenth of what the mean of three renders is off from the photo.
    """

    def __init__(self, ensemble: TeacherEnsemble, budget_megabytes: float) -> None:
        self.ensemble = ensemble
        self.budget = budget_megabytes * 1e6
        self.kept: dict[int, Tensor] = {}
        self.kept_bytes = 0

    def label(self, index: int, view: View, background: Tensor, downscale: int = 1) -> Tensor:
        """Return the pseudo label of a training view over a background, at the step's resolution.

        Args:
            index: number of the training view; it must stand for the same view each time.
            view: the view at the photo's full resolution.
            background: colour [3] of the student's step.
            downscale: integer factor; the label is averaged down exactly as the photo is.

        Returns:
            Image in [0, 1], [H // downscale, W // downscale, 3].
        """
        image = self.kept.get(index)
        if image is None:
            color, alpha = self.ensemble.mean_render(view)
            image = torch.cat((color, 1 - alpha), dim=-1).half()
            size = image.numel() * image.element_size()
            if self.kept_bytes + size <= self.budget:
                self.kept[index] = image
                self.kept_bytes += size
        image = image.float()
        if downscale > 1:
            image = resize_image(image, downscale)
        return torch.addcmul(image[..., :3], image[..., 3:], background).clamp_(0.0, 1.0)
