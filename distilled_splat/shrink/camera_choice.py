"""Find out in which world the given cameras look at a splat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
"""Cameras whose pictures the splat covers less than this, or that have less than this of the splat in their pictures,
do not look at it: on average, as a share of 1."""
LEAST_LIKENESS = 0.3
"""Pictures that correlate less with the photos show something else. Measured: 0.83 to 0.97 in the right world, -0.1 to
0.2 in wrong ones, and 0.7 to 0.8 where cameras are off by some degrees."""
GREY = 0.5
WHAT_TO_DO = "give the cameras of the recording that the splat was trained on, or leave --cameras out"


@dataclass(frozen=True)
class Look:
    """What some cameras see of a splat in one world.

    Attributes:
        coverage: how much of the pictures the splat covers, mean alpha in [0, 1].
        share: how much of the Gaussians' opacity has its centre in a picture, mean over the pictures, in [0, 1].
        detail: mean difference of neighbouring pixels, colours in [0, 1].
        psnr: mean agreement with the photos in dB; None where there are too few.
        likeness: mean correlation with the photos where the splat covers them, in [-1, 1]; None likewise.
    """

    coverage: float
    share: float
    detail: float
    psnr: Optional[float]
    likeness: Optional[float]

    def is_one(self) -> bool:
        """Tell whether the cameras see anything of the splat."""
        return self.coverage >= LEAST and self.share >= LEAST

    def merit(self) -> float:
        """Return how well the cameras fit: by the photos, or else by what makes a picture.

        From afar a splat covers little, from within little of it is in the picture, and in fog there is no detail. The
        product of the three is large only where the splat was trained.
        """
        found = self.coverage * self.share * self.detail if self.psnr is None else self.psnr
        return found if math.isfinite(found) else -math.inf


def choose_reading(given: GivenCameras, gaussians: Gaussians, device: torch.device | str) -> tuple[str, list[View]]:
    """Find out which reading of given cameras belongs to a splat, from small pictures by a dozen of them.

    Photos decide, where the cameras have them; see `Look.merit` for where they have none. The splat may be of any size:
    it is brought to size 1 for this, with the cameras.

    Args:
        given: the cameras, in the splat's units.
        gaussians: the splat.
        device: where to render.

    Returns:
        The reading's name, and its cameras as they were given.

    Raises:
        ValueError: if the cameras see nothing of the splat in any reading, or not what their photos show.
    """
    looks = looks_of(given, gaussians, device)
    able = [name for name, look in looks.items() if look.is_one()]
    if not able:
        raise ValueError(
            f"The cameras of the {given.kind} see nothing of the splat, in whichever world they are taken "
            f"({', '.join(looks)}): {WHAT_TO_DO}."
        )
    best = max(able, key=lambda name: looks[name].merit())
    likeness = looks[best].likeness
    if likeness is not None and not likeness >= LEAST_LIKENESS:
        raise ValueError(
            f"The splat does not look like the photos of the {given.kind}, in whichever world its cameras are taken "
            f"({', '.join(looks)}; the best correlation is {likeness:.2f}): {WHAT_TO_DO}."
        )
    return best, given.readings[best]


@torch.no_grad()
def looks_of(given: GivenCameras, gaussians: Gaussians, device: torch.device | str) -> dict[str, Look]:
    """Return what the cameras see of the splat in each reading; the arguments are those of `choose_reading`."""
    middle = gaussians.means.median(dim=0).values
    size = float((gaussians.means - middle).norm(dim=1).median())
    scale = 1 / size if size > 0 and math.isfinite(size) else 1.0
    here = replace(
        gaussians, means=(gaussians.means - middle) * scale, log_scales=gaussians.log_scales + math.log(scale)
    ).to(device)
    count = len(given.photos)
    chosen = sorted({round(place) for place in np.linspace(0, count - 1, CAMERAS_TO_TRY)})
    first, *_ = given.readings.values()
    photos = [photo_like(given.photos[place], small(first[place])) for place in chosen]
    if 2 * sum(photo is not None for photo in photos) < len(photos):
        photos = [None] * len(photos)
    looks = {}
    for name, views in given.readings.items():
        tried = [small(view) for view in moved([views[place] for place in chosen], scale, middle)]
        looks[name] = look_at(here, tried, photos)
    return looks


def look_at(gaussians: Gaussians, views: Sequence[View], photos: Sequence[Optional[Tensor]]) -> Look:
    """Render small views and measure them; photos are [H, W, 4], in [0, 1], None where there is none."""
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
    """Return how much of the opacity of some Gaussians has its centre in a picture, as a share of 1."""
    x, y, z = ((gaussians.means @ view.viewmat[:3, :3].T + view.viewmat[:3, 3]) @ view.K.T).unbind(dim=1)
    inside = (z > 0) & (x > 0) & (x < z * view.width) & (y > 0) & (y < z * view.height)
    opacities = torch.sigmoid(gaussians.logit_opacities)
    return float((opacities * inside).sum() / opacities.sum().clamp_min(1e-12))


def correlation(image: Tensor, other: Tensor, weights: Tensor) -> float:
    """Return the correlation of two pictures [H, W, 3] under weights [H, W, 1]; 0 where one of them is even."""
    weights = weights / weights.sum().clamp_min(1e-12)
    image, other = (each - (weights * each).sum(dim=(0, 1)) for each in (image, other))
    variances = (weights * image**2).sum() * (weights * other**2).sum()
    return float((weights * image * other).sum() / variances.sqrt().clamp_min(1e-9))


def small(view: View) -> View:
    """Return a view of the same field, `SMALL_WIDTH` pixels wide, its height rounded, or as it is if it is smaller."""
    width = min(SMALL_WIDTH, view.width)
    height = min(max(round(view.height * width / view.width), 1), 4 * SMALL_WIDTH)
    return resized(view, width, height)


def photo_like(path: Optional[Path], view: View) -> Optional[Tensor]:
    """Return a photo at a view's size, colours and alpha in [0, 1], [H, W, 4]; None where it cannot be read."""
    if path is None:
        return None
    try:
        with Image.open(path, formats=IMAGES) as image:
            image.draft("RGB", (4 * view.width, 4 * view.height))  # a large JPEG need not be decoded whole
            fitted = image.convert("RGBA").resize((view.width, view.height), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return torch.from_numpy(np.asarray(fitted, np.float32) / 255)
