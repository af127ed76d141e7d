"""What a splat is looked at from: the views that are given, or found, in its unit frame; and those to measure at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from distilled_splat.ops.space import Space
from distilled_splat.ops.views import View, resized
from distilled_splat.shrink.camera_choice import choose_reading
from distilled_splat.shrink.given_cameras import read_cameras
from distilled_splat.shrink.invented_cameras import ASPECT, FIELD_OF_VIEW, invent, looking, sharpness
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.virtual_views import views_between

PIXELS_PER_GAUSSIAN = 1.5
"""Size of a usual Gaussian in an invented picture: about what it was in the photos, and no larger."""
NARROWEST, WIDEST = 256, 800
"""Pixels across a picture."""
GLANCE = 64
"""Pixels across the small renders by which views are judged."""
SHARP = 0.7
"""Part of a view that must be detail."""
TEST_VIEWS = 24
HELD_OUT_EVERY = 8


@dataclass(frozen=True)
class Views:
    """What a splat is looked at from, in its unit frame.

    Attributes:
        train: views to learn from.
        test: views to measure at.
        up: unit vector, for pictures of them only, [3].
        words: how they were found.
    """

    train: list[View]
    test: list[View]
    up: Tensor
    words: str

    def fewer(self, count: int) -> Views:
        """Return so many of the views to learn from, spread over all of them."""
        places = [place * len(self.train) // count for place in range(count)]
        return replace(self, train=[self.train[place] for place in places])


def invented_views(gaussians: Gaussians, count: int, seed: int) -> Views:
    """Find views of a splat in its unit frame; see `invented_cameras`.

    Raises:
        ValueError: if there is no place to look at it from.
    """
    device = gaussians.means.device
    up = upright(gaussians)

    def shows(eye: Tensor, look: Tensor, scale: float) -> bool:
        focal = GLANCE / 2 / math.tan(FIELD_OF_VIEW / 2)
        view = looking(eye, look, up, GLANCE, round(GLANCE / ASPECT), focal, device)
        return sharpness(gaussians, view, scale) >= SHARP

    found = invent(Space.of(gaussians), count, shows, seed)
    lens = PIXELS_PER_GAUSSIAN * math.exp(found.scale)
    width = round(min(max(2 * lens * math.tan(FIELD_OF_VIEW / 2), NARROWEST), WIDEST))
    focal = width / 2 / math.tan(FIELD_OF_VIEW / 2)
    if float((found.eyes @ up).median()) < float((gaussians.means.cpu() @ up).median()):
        up = -up  # people look down more than up
    views = [
        looking(eye, look, up, width, round(width / ASPECT), focal, device)
        for eye, look in zip(found.eyes, found.looks)
    ]
    test = [view for view in views_between(views, 3 * TEST_VIEWS, seed=seed + 1)
            if sharpness(gaussians, small(view), found.scale) >= SHARP][:TEST_VIEWS]  # fmt: skip
    if not test:
        views, test = held_out(views)
    return Views(views, test, up, f"{len(views)} invented views of {width}x{round(width / ASPECT)}")


def held_out(views: list[View]) -> tuple[list[View], list[View]]:
    """Set every eighth view apart, and of few views the last; a single one serves for both."""
    test = views[::HELD_OUT_EVERY] if len(views) >= HELD_OUT_EVERY else views[-1:]
    train = [view for view in views if not any(view is other for other in test)]
    return train or views, test


def given_views(path: Path, gaussians: Gaussians, frame: UnitFrame) -> Views:
    """Read the views that are given, and bring them into the unit frame.

    Args:
        path: see `given_cameras.read_cameras`.
        gaussians: the splat in its unit frame.
        frame: that frame.

    Raises:
        ValueError: if they cannot be read, or see nothing of the splat.
    """
    device = gaussians.means.device
    given = read_cameras(path).moved(1 / frame.size, frame.centre)
    name, views = choose_reading(given, gaussians, device)
    here = [within(View(view.viewmat.to(device), view.K.to(device), view.width, view.height)) for view in views]
    ups = torch.stack([-view.viewmat[1, :3] for view in here]).mean(dim=0).cpu()
    up = ups / ups.norm() if float(ups.norm()) > 1e-3 else upright(gaussians)
    train, test = held_out(here)
    return Views(train, test, up, f"{len(here)} cameras of {given.kind}, read in the {name} frame")


def within(view: View) -> View:
    """Return a view no wider and no higher than invented ones may be."""
    factor = min(WIDEST / max(view.width, view.height), 1.0)
    return rescaled(view, factor)


def small(view: View) -> View:
    """Return a view at the size of a glance."""
    return rescaled(view, GLANCE / view.width)


def rescaled(view: View, factor: float) -> View:
    """Return a view at another resolution."""
    return resized(view, max(round(view.width * factor), 1), max(round(view.height * factor), 1))


def upright(gaussians: Gaussians) -> Tensor:
    """Guess which way is up, by the axis along which a splat is flattest; the sign is open, [3]."""
    means = gaussians.means.cpu().double()
    inner = means[means.abs().amax(dim=1) < 1]
    inner = inner if len(inner) > 3 else means
    spread = (inner - inner.mean(dim=0)).T @ (inner - inner.mean(dim=0))
    return torch.linalg.eigh(spread).eigenvectors[:, 0].float()
