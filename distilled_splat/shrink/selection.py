"""The most important Gaussians of a splat, and how close they come to it without a refit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distilled_splat.ops.importance import importance
from distilled_splat.ops.views import View
from distilled_splat.ops.voxels import squared_effects
from distilled_splat.shrink.measure import closeness
from distilled_splat.splat.formats import with_degree
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.pruning import choose, with_unseen

COMPARED_VIEWS = 40
"""Number of training views at which small splats are compared with the original."""


@dataclass(frozen=True)
class Selection:
    """The most important Gaussians.

    Attributes:
        rows: a mask over the original's Gaussians, [N].
        psnr: PSNR between the selection's pictures and the original's at some training views, in dB.
    """

    rows: Tensor
    psnr: float


def select(
    original: Gaussians, views: Sequence[View], counts: Sequence[int], sh_degree: int, antialiased: bool
) -> dict[int, Selection]:
    """Choose the most important Gaussians of each size, and compare them with the original.

    Args:
        original: the splat.
        views: the training views.
        counts: the sizes.
        sh_degree: degree of the small splats' harmonics.
        antialiased: whether the splat is rendered so.
    """
    weights = with_unseen(importance_at(original, views, antialiased), squared_effects(original))
    found = {}
    for count in counts:
        rows = choose(weights, count, sampled=False)
        small = with_degree(original[rows], sh_degree)
        found[count] = Selection(rows, closeness(small, original, some(views), antialiased))
    return found


def importance_at(gaussians: Gaussians, views: Sequence[View], antialiased: bool) -> Tensor:
    """Return the importance of each Gaussian at these views over random backgrounds, [N]."""

    def background() -> Tensor:
        return torch.rand(3, device=gaussians.means.device)

    return importance(gaussians, views, background, antialiased=antialiased)


def some(views: Sequence[View]) -> list[View]:
    """Return the views at which small splats are compared with the original, spread evenly."""
    most = min(len(views), COMPARED_VIEWS)
    return [views[place * len(views) // most] for place in range(most)]
