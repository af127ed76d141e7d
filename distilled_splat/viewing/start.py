"""The first camera of a visitor: at a run's held-out photo, or else at an invented view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import torch
from torch import Tensor

from distilled_splat.ops.render import render
from distilled_splat.ops.views import View, resized
from distilled_splat.shrink.camera_choice import look_at, small
from distilled_splat.shrink.given_cameras import read_cameras, run_at
from distilled_splat.shrink.invented_cameras import looking
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.shrink.viewpoints import invented_views, upright
from distilled_splat.teachers.reading import Teacher
from distilled_splat.viewing.splats import Shown

INVENTED = 8
"""Number of views to invent; the best one becomes the first camera."""
STEPS_BACK = (0.0, 0.5, 1.0, 2.0)
"""Steps back from an invented view, to show more: fractions of the distance to the middle of its picture."""
STEEP = math.sin(math.radians(45))
"""Views that look up or down by more than 45 degrees are used only if there are no others."""
UPS = {"y-down": (0.0, -1.0, 0.0), "y-up": (0.0, 1.0, 0.0), "z-up": (0.0, 0.0, 1.0)}
"""Up directions by their names."""
NEAR_AN_AXIS = math.cos(math.radians(15))
"""Most scenes have a coordinate axis as up. An axis within 15 degrees of the guess is used instead of the guess."""
FROM_OUTSIDE = 3.0
"""Distance of the view of a splat for which no view can be invented, in half sides of the splat's bulk."""
GLANCE = 64
"""Width in pixels of the small renders that rate views."""
SEEN = 0.1
"""A pixel shows something if its alpha is larger than this."""


@dataclass(frozen=True)
class Start:
    """The first camera, in the unit frame.

    Attributes:
        view: the camera.
        up: unit vector, [3], on the CPU.
        distance: to what the middle of the picture shows.
        words: where the camera is, for people.
    """

    view: View
    up: Tensor
    distance: float
    words: str


def find_start(
    paths: Sequence[Path],
    splats: Sequence[Teacher],
    shown: Sequence[Shown],
    frame: UnitFrame,
    given_up: Optional[Tensor] = None,
) -> Start:
    """Return the first camera: in the first run that still has its data, or else an invented view of the first splat.

    Args:
        paths: the paths of the splats, as given.
        splats: the splats in their own units.
        shown: the splats in the unit frame.
        frame: the unit frame.
        given_up: the up direction, [3]; None: it is taken from the photos, or guessed.
    """
    for path, splat, here in zip(paths, splats, shown):
        try:
            start = start_in_run(path, splat, here, frame)
        except ValueError:
            continue  # not a run, or the run's data are missing
        return start if given_up is None else replace(start, up=given_up)
    return invented_start(shown[0], given_up)


def start_in_run(path: Path, splat: Teacher, here: Shown, frame: UnitFrame) -> Start:
    """Return the camera of a run's first held-out photo, or of its first photo if no held-out photo is known.

    Raises:
        ValueError: if the path is not a run, or the run's cameras cannot be read.
    """
    if run_at(path.expanduser()) is None:
        raise ValueError(f"{path} is not a run.")
    given = read_cameras(path).moved(1 / frame.size, frame.centre)
    views = given.readings["nerfstudio"]  # the frame of a run's checkpoint
    names = [photo.name if photo is not None else "" for photo in given.photos]
    held_out = [place for place, name in enumerate(names) if splat.photos and name and name not in splat.photos]
    place = held_out[0] if held_out else 0
    ups = torch.stack([-view.viewmat[1, :3] for view in views]).mean(dim=0)
    up = on_an_axis(ups / ups.norm()) if float(ups.norm()) > 1e-3 else upright(here.gaussians)
    kind = "a held-out photo" if held_out else "the first photo"
    return Start(views[place], up, distance_in(here, views[place]), f"at {kind}, {names[place]}".rstrip(", "))


def invented_start(here: Shown, given_up: Optional[Tensor] = None) -> Start:
    """Return an invented view that shows much of a splat, or a view from outside if no view can be invented.

    The up direction is `given_up`, or else guessed.
    """
    try:
        found = invented_views(here.gaussians, INVENTED, 0)
    except ValueError:
        up = on_an_axis(upright(here.gaussians)) if given_up is None else given_up
        side = torch.linalg.cross(up, torch.eye(3)[int(up.abs().argmin())])
        eye = FROM_OUTSIDE * side / side.norm()
        return Start(looking(eye, -eye, up, 640, 480, 480.0), up, FROM_OUTSIDE, "outside the splat")
    up = on_an_axis(found.up) if given_up is None else given_up
    views = [view for view in found.train if abs(float(view.viewmat[2, :3].cpu() @ up)) < STEEP] or found.train
    candidates = [candidate for view in views for candidate in stepping_back(view, up, distance_in(here, view))]
    view = max(candidates, key=lambda view: look_at(here.gaussians, [small(view)], [None]).merit())
    return Start(view, up, distance_in(here, view), "at an invented view of much of the splat")


def stepping_back(view: View, up: Tensor, distance: float) -> list[View]:
    """Return a view, turned upright, and views from further back. `distance` is to the middle of the view."""
    viewmat = view.viewmat.cpu()
    eye, look = -viewmat[:3, :3].T @ viewmat[:3, 3], viewmat[2, :3]
    focal, device = float(view.K[0, 0]), view.viewmat.device
    return [
        looking(eye - part * distance * look, look, up, view.width, view.height, focal, device) for part in STEPS_BACK
    ]


def on_an_axis(up: Tensor) -> Tensor:
    """Return the signed coordinate axis that is close to a unit vector [3], or the vector itself if none is close."""
    axis = int(up.abs().argmax())
    if float(up[axis].abs()) < NEAR_AN_AXIS:
        return up
    return torch.eye(3)[axis] * up[axis].sign()


@torch.no_grad()
def distance_in(here: Shown, view: View) -> float:
    """Return the median distance to what the middle of a view shows; 1 if the middle shows nothing."""
    device = here.gaussians.means.device
    height = max(round(GLANCE * view.height / view.width), 1)
    small = resized(View(view.viewmat.to(device), view.K.to(device), view.width, view.height), GLANCE, height)
    rendered = render(here.gaussians, small, depth=True, antialiased=here.antialiased)
    assert rendered.depth is not None
    rows, columns = slice(height // 4, height - height // 4), slice(GLANCE // 4, GLANCE - GLANCE // 4)
    there = rendered.depth[rows, columns][rendered.alpha[rows, columns] > SEEN]
    return float(there.median()) if len(there) else 1.0
