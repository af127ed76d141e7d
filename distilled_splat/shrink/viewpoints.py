"""The views of a splat in its unit frame, given or invented: those to train on, and those to measure at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from distilled_splat.ops.render import render
from distilled_splat.ops.space import Space
from distilled_splat.ops.views import View, resized
from distilled_splat.shrink.camera_choice import SMALL_WIDTH, choose_reading, small
from distilled_splat.shrink.given_cameras import read_cameras
from distilled_splat.shrink.invented_cameras import ASPECT, FIELD_OF_VIEW, invent, looking, sharpness
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.virtual_views import views_between

PIXELS_PER_GAUSSIAN = 1.5
"""Size of a typical Gaussian in an invented picture: about its size in the photos, and not larger."""
NARROWEST, WIDEST = 256, 800
"""Limits for the width of a picture, in pixels."""
SHARP = 0.7
"""Smallest fraction of a view that must show detail."""
TEST_VIEWS = 24
VISIBLE = 0.02
"""The least alpha that somebody sees."""
HELD_OUT_EVERY = 8


@dataclass(frozen=True)
class Views:
    """The views of a splat, in its unit frame.

    Attributes:
        train: training views.
        test: views to measure at.
        up: unit vector, used only for pictures of the views, [3].
        words: where the views come from, for people.
    """

    train: list[View]
    test: list[View]
    up: Tensor
    words: str

    def fewer(self, count: int) -> Views:
        """Return the views with this many training views, spread evenly over all of them."""
        places = [place * len(self.train) // count for place in range(count)]
        return replace(self, train=[self.train[place] for place in places])


def invented_views(gaussians: Gaussians, count: int, seed: int) -> Views:
    """Invent views of a splat in its unit frame; see `invented_cameras`.

    Raises:
        ValueError: if nothing is visible from any free place.
    """
    device = gaussians.means.device
    up = upright(gaussians)

    def shows(eye: Tensor, look: Tensor, scale: float) -> bool:
        focal = SMALL_WIDTH / 2 / math.tan(FIELD_OF_VIEW / 2)
        view = looking(eye, look, up, SMALL_WIDTH, round(SMALL_WIDTH / ASPECT), focal, device)
        return sharpness(gaussians, view, scale) >= SHARP

    found = invent(Space.of(gaussians), count, shows, seed)
    lens = PIXELS_PER_GAUSSIAN * math.exp(found.scale)
    width = round(min(max(2 * lens * math.tan(FIELD_OF_VIEW / 2), NARROWEST), WIDEST))
    focal = width / 2 / math.tan(FIELD_OF_VIEW / 2)
    if float((found.eyes @ up).median()) < float((gaussians.means.cpu() @ up).median()):
        up = -up  # people look down more often than up
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
    """Hold out every eighth view, or the last of a few views. A single view serves for training and for measuring."""
    test = views[::HELD_OUT_EVERY] if len(views) >= HELD_OUT_EVERY else views[-1:]
    train = [view for view in views if not any(view is other for other in test)]
    return train or views, test


def given_views(path: Path, gaussians: Gaussians, frame: UnitFrame) -> Views:
    """Read the given cameras, and move them into the unit frame.

    Args:
        path: see `given_cameras.read_cameras`.
        gaussians: the splat in its unit frame.
        frame: the unit frame.

    Raises:
        ValueError: if the cameras cannot be read, or see nothing of the splat.
    """
    device = gaussians.means.device
    given = read_cameras(path).moved(1 / frame.size, frame.centre)
    name, views = choose_reading(given, gaussians, device)
    here = [within(View(view.viewmat.to(device), view.K.to(device), view.width, view.height)) for view in views]
    seeing = [view for view in here if sees(gaussians, view)]
    blind = f"; {len(here) - len(seeing)} that see nothing are left out" if len(seeing) < len(here) else ""
    here = seeing or here
    ups = torch.stack([-view.viewmat[1, :3] for view in here]).mean(dim=0).cpu()
    up = ups / ups.norm() if float(ups.norm()) > 1e-3 else upright(gaussians)
    train, test = held_out(here)
    return Views(train, test, up, f"{len(here)} cameras of {given.kind}, read in the {name} frame{blind}")


@torch.no_grad()
def sees(gaussians: Gaussians, view: View) -> bool:
    """Return whether a view shows anything. Equal pictures of nothing would count as perfect in every comparison."""
    return float(render(gaussians, small(view)).alpha.max()) > VISIBLE


def within(view: View) -> View:
    """Return a view that is no wider and no higher than an invented view may be."""
    factor = min(WIDEST / max(view.width, view.height), 1.0)
    return rescaled(view, factor)


def rescaled(view: View, factor: float) -> View:
    """Return a view at another resolution."""
    return resized(view, max(round(view.width * factor), 1), max(round(view.height * factor), 1))


def upright(gaussians: Gaussians) -> Tensor:
    """Guess the up axis, [3]: the direction in which the splat is flattest. The sign is arbitrary."""
    means = gaussians.means.cpu().double()
    inner = means[means.abs().amax(dim=1) < 1]
    inner = inner if len(inner) > 3 else means
    spread = (inner - inner.mean(dim=0)).T @ (inner - inner.mean(dim=0))
    return torch.linalg.eigh(spread).eigenvectors[:, 0].float()
