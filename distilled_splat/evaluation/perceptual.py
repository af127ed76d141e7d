"""Measures of how different two images look: LPIPS (VGG), and FLIP if flip-evaluator is installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from distilled_splat.evaluation.lpips import lpips_on


class Measure(Protocol):
    """A measure of how different images look from a photo."""

    def distances(self, photo: Tensor, images: Sequence[Tensor]) -> list[float]:
        """Return the distance of each image from a photo; all [H, W, 3], in [0, 1]."""
        ...


class Flip:
    """Mean FLIP (Andersson et al. 2020) of images shown at 67 pixels per degree of view; needs flip-evaluator."""

    def distances(self, photo: Tensor, images: Sequence[Tensor]) -> list[float]:
        """Return the distance of each image from a photo; all [H, W, 3], in [0, 1]."""
        from flip_evaluator import evaluate  # type: ignore[import-not-found]

        reference = photo.cpu().numpy()
        return [float(evaluate(reference, image.cpu().numpy(), "LDR", applyMagma=False)[1]) for image in images]


def perceptual_measures(device: torch.device) -> tuple[dict[str, Measure], list[str]]:
    """Return the available measures by name, and a sentence if LPIPS is not available.

    Args:
        device: the device of the images.
    """
    found: dict[str, Measure] = {}
    notes = []
    try:
        found["lpips_vgg"] = lpips_on(device)
    except ValueError as error:
        notes.append(str(error))
    if find_spec("flip_evaluator") is not None:
        found["flip"] = Flip()
    return found, notes
