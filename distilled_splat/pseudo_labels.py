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


LEVELS = 65535
"""Steps of a stored value: 16 bits are far finer than what the mean of three renders is off from the photo."""


def stored(color: Tensor, alpha: Tensor) -> Tensor:
    """Pack premultiplied colours [H, W, 3] and the light that passes, 1 - alpha [H, W, 1], into uint16, [H, W, 4]."""
    image = torch.cat((color, 1 - alpha), dim=-1).clamp(0, 1)
    return (image * LEVELS + 0.5).to(torch.uint16)


def over_background(image: Tensor, background: Tensor, downscale: int = 1) -> Tensor:
    """Lay a packed picture over a background colour [3], averaged down by an integer factor; [H, W, 3] in [0, 1]."""
    if downscale == 1 and image.device.type == "cpu":
        from distilled_splat.cpu.labels import composite

        return composite(image, background)
    floats = image.float() / LEVELS
    if downscale > 1:
        floats = resize_image(floats, downscale)
    return torch.addcmul(floats[..., :3], floats[..., 3:], background).clamp_(0.0, 1.0)


class PseudoLabels:
    """The ensemble's mean render at each training view, kept within a budget of memory."""

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
            image = stored(*self.ensemble.mean_render(view))
            size = image.numel() * image.element_size()
            if self.kept_bytes + size <= self.budget:
                self.kept[index] = image
                self.kept_bytes += size
        return over_background(image, background, downscale)
