"""Finds the coordinate frame in which given cameras look at a splat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distilled_splat.ops.losses import psnr
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View, resized
from distilled_splat.shrink.camera_files import IMAGES
from distilled_splat.shrink.camera_frames import moved
from distilled_splat.shrink.given_cameras import GivenCameras
from distilled_splat.splat.gaussians import Gaussians

CAMERAS_TO_TRY = 12
SMALL_WIDTH = 64
GAUSSIANS_TO_FIND = 20_000
LEAST = 0.005
"""Cameras do not look at a splat if the splat covers less than this fraction of their pictures, or less than this
fraction of the splat is in their pictures, on average."""
LEAST_LIKENESS = 0.3
"""Pictures with a smaller correlation with the photos show something else. Measured: 0.83 to 0.97 in the right frame,
-0.1 to 0.2 in wrong ones, and 0.7 to 0.8 with cameras that are off by some degrees."""
GREY = 0.5
WHAT_TO_DO = "give the cameras that the splat was trained with, or leave out --cameras"


@dataclass(frozen=True)
class Look:
    """What some cameras see of a splat in one frame.

    Attributes:
        coverage: mean alpha of the pictures, in [0, 1].
        share: mean fraction of the Gaussians' opacity with its centres in a picture, in [0, 1].
        detail: mean difference of neighbouring pixels, colours in [0, 1].
        psnr: mean PSNR against the photos in dB; None with too few photos.
        likeness: mean correlation with the photos where the splat covers them, in [-1, 1]; None with too few photos.
    """

    coverage: float
    share: float
    detail: float
    psnr: Optional[float]
    likeness: Optional[float]

    def is_one(self) -> bool:
        """Return whether the cameras see anything of the splat."""
        return self.coverage >= LEAST and self.share >= LEAST

    def merit(self) -> float:
        """Return how well the cameras fit: by the photos, or without photos by what they see.

        From afar a splat covers little, from within little of it is in the picture, and in fog there is no detail. The
        product of coverage, share and detail is large only in the frame in which the splat was trained.
        """
        found = self.coverage * self.share * self.detail if self.psnr is None else self.psnr
        return found if math.isfinite(found) else -math.inf


def choose_reading(given: GivenCameras, gaussians: Gaussians, device: torch.device | str) -> tuple[str, list[View]]:
    """Find the frame in which given cameras fit a splat, from small pictures at a dozen of the cameras.

    The cameras' photos decide if there are enough of them; otherwise see `Look.merit`. The splat may have any size:
    splat and cameras are scaled to size 1 for the comparison.

    Args:
        given: the cameras, in the splat's units.
        gaussians: the splat.
        device: the device to render on.

    Returns:
        The name of the frame, and the cameras in this frame, unscaled.

    Raises:
        ValueError: if the cameras see nothing of the splat in any frame, or something else than their photos show.
    """
    looks = looks_of(given, gaussians, device)
    able = [name for name, look in looks.items() if look.is_one()]
    if not able:
        raise ValueError(
            f"The cameras of the {given.kind} do not see the splat in any of the frames tried ({', '.join(looks)}): "
            f"{WHAT_TO_DO}."
        )
    best = max(able, key=lambda name: looks[name].merit())
    likeness = looks[best].likeness
    if likeness is not None and not likeness >= LEAST_LIKENESS:
        raise ValueError(
            f"The splat does not match the photos of the {given.kind} in any of the frames tried ({', '.join(looks)}; "
            f"the best correlation is {likeness:.2f}): {WHAT_TO_DO}."
        )
    return best, given.readings[best]


@torch.no_grad()
def looks_of(given: GivenCameras, gaussians: Gaussians, device: torch.device | str) -> dict[str, Look]:
    """Return what the cameras see of the splat in each frame; the arguments are those of `choose_reading`."""
    middle = gaussians.means.median(dim=0).values
    size = float((gaussians.means - middle).norm(dim=1).median())
    unit = size if size > 0 and math.isfinite(size) else 1.0
    here = gaussians.centred(middle, unit).to(device)
    count = len(given.photos)
    chosen = sorted({round(place) for place in np.linspace(0, count - 1, CAMERAS_TO_TRY)})
    first, *_ = given.readings.values()
    photos = [photo_like(given.photos[place], small(first[place])) for place in chosen]
    if 2 * sum(photo is not None for photo in photos) < len(photos):
        photos = [None] * len(photos)
    looks = {}
    for name, views in given.readings.items():
        tried = [small(view) for view in moved([views[place] for place in chosen], 1 / unit, middle)]
        looks[name] = look_at(here, tried, photos)
    return looks


def look_at(gaussians: Gaussians, views: Sequence[View], photos: Sequence[Optional[Tensor]]) -> Look:
    """Render small views and measure them. Photos are [H, W, 4], in [0, 1]; None for a view without a photo."""
    device = gaussians.means.device
    background = torch.full((3,), GREY, device=device)
    some = gaussians[torch.arange(0, len(gaussians), max(len(gaussians) // GAUSSIANS_TO_FIND, 1), device=device)]
    measured, agreements = [], []
    for view, photo in zip(views, photos):
        there = View(view.viewmat.to(device), view.K.to(device), view.width, view.height)
        rendered = render(gaussians, there)
        image = rendered.over(background)
        rows, columns = (image.diff(dim=axis).abs().mean() if image.shape[axis] > 1 else 0.0 for axis in (0, 1))
        measured.append((float(rendered.alpha.mean()), share_in(some, there), float(rows + columns)))
        if photo is not None:
            colors, alpha = photo.to(device).split((3, 1), dim=-1)
            shown = psnr(image, colors * alpha + background * (1 - alpha))
            agreements.append((shown, correlation(image, colors, rendered.alpha * alpha)))
    coverage, share, detail = (float(value) for value in np.mean(measured, axis=0))
    shown, likeness = (float(value) for value in np.mean(agreements, axis=0)) if agreements else (None, None)
    return Look(coverage, share, detail, shown, likeness)


def share_in(gaussians: Gaussians, view: View) -> float:
    """Return the fraction of the Gaussians' opacity that has its centre in a picture."""
    x, y, z = ((gaussians.means @ view.viewmat[:3, :3].T + view.viewmat[:3, 3]) @ view.K.T).unbind(dim=1)
    inside = (z > 0) & (x > 0) & (x < z * view.width) & (y > 0) & (y < z * view.height)
    opacities = torch.sigmoid(gaussians.logit_opacities)
    return float((opacities * inside).sum() / opacities.sum().clamp_min(1e-12))


def correlation(image: Tensor, other: Tensor, weights: Tensor) -> float:
    """Return the correlation of two pictures [H, W, 3] with weights [H, W, 1]; 0 if a picture is uniform."""
    weights = weights / weights.sum().clamp_min(1e-12)
    image, other = (each - (weights * each).sum(dim=(0, 1)) for each in (image, other))
    variances = (weights * image**2).sum() * (weights * other**2).sum()
    return float((weights * image * other).sum() / variances.sqrt().clamp_min(1e-9))


def small(view: View) -> View:
    """Return a view of the same field with a width of at most `SMALL_WIDTH` pixels; the height is rounded."""
    width = min(SMALL_WIDTH, view.width)
    height = min(max(round(view.height * width / view.width), 1), 4 * SMALL_WIDTH)
    return resized(view, width, height)


def photo_like(path: Optional[Path], view: View) -> Optional[Tensor]:
    """Return a photo at a view's size, colours and alpha in [0, 1], [H, W, 4]; None if it cannot be read."""
    if path is None:
        return None
    try:
        with Image.open(path, formats=IMAGES) as image:
            image.draft("RGB", (4 * view.width, 4 * view.height))  # a large JPEG need not be decoded whole
            fitted = image.convert("RGBA").resize((view.width, view.height), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return torch.from_numpy(np.asarray(fitted, np.float32) / 255)
