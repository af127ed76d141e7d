"""Where a visitor begins: at a photo that a run held out, or else at a view that is found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
"""Views that are found, to begin at one of them."""
STEPS_BACK = (0.0, 0.5, 1.0, 2.0)
"""How far one may step back from them to see more, as parts of the distance to what is in the middle."""
STEEP = math.sin(math.radians(45))
"""Views that look further up or down are taken only if there are no others."""
NEAR_AN_AXIS = math.cos(math.radians(15))
"""Worlds mostly have one of their axes up: one that is nearer than this to the guess is taken."""
FROM_OUTSIDE = 3.0
"""Distance, in half sides of the bulk, of the view of a splat that gives no picture from anywhere."""
GLANCE = 64
"""Pixels across the small renders by which views are judged."""
SEEN = 0.1
"""Alpha above which a pixel shows something."""


@dataclass(frozen=True)
class Start:
    """The first camera, in the unit frame.

    Attributes:
        view: the camera.
        up: unit vector, [3], on the CPU.
        distance: to what is in the middle of the picture.
        words: how it was found.
    """

    view: View
    up: Tensor
    distance: float
    words: str


def find_start(paths: Sequence[Path], splats: Sequence[Teacher], shown: Sequence[Shown], frame: UnitFrame) -> Start:
    """Return the first camera: of the first run whose data are there, or else a view of the first splat.

    Args:
        paths: as they were given.
        splats: what they hold, in their own units.
        shown: the same in the unit frame.
        frame: that frame.
    """
    for path, splat, here in zip(paths, splats, shown):
        try:
            return start_in_run(path, splat, here, frame)
        except ValueError:
            continue  # no run, or its data are gone
    return invented_start(shown[0])


def start_in_run(path: Path, splat: Teacher, here: Shown, frame: UnitFrame) -> Start:
    """Return the camera of the first photo that a run held out, or of its first photo if that is not known.

    Raises:
        ValueError: if the path is not a run's, or its cameras cannot be read.
    """
    if run_at(path.expanduser()) is None:
        raise ValueError(f"{path} is not a run.")
    given = read_cameras(path).moved(1 / frame.size, frame.centre)
    views = given.readings["nerfstudio"]  # the world of a run's checkpoint
    names = [photo.name if photo is not None else "" for photo in given.photos]
    held_out = [place for place, name in enumerate(names) if splat.photos and name and name not in splat.photos]
    place = held_out[0] if held_out else 0
    ups = torch.stack([-view.viewmat[1, :3] for view in views]).mean(dim=0)
    up = on_an_axis(ups / ups.norm()) if float(ups.norm()) > 1e-3 else upright(here.gaussians)
    kind = "a held-out photo" if held_out else "the first photo"
    return Start(views[place], up, distance_in(here, views[place]), f"at {kind}, {names[place]}".rstrip(", "))


def invented_start(here: Shown) -> Start:
    """Return a view that shows much of a splat; of one that gives no picture, a view from outside."""
    try:
        found = invented_views(here.gaussians, INVENTED, 0)
    except ValueError:
        up = on_an_axis(upright(here.gaussians))
        side = torch.linalg.cross(up, torch.eye(3)[int(up.abs().argmin())])
        eye = FROM_OUTSIDE * side / side.norm()
        return Start(looking(eye, -eye, up, 640, 480, 480.0), up, FROM_OUTSIDE, "outside")
    up = on_an_axis(found.up)
    views = [view for view in found.train if abs(float(view.viewmat[2, :3].cpu() @ up)) < STEEP] or found.train
    candidates = [candidate for view in views for candidate in stepping_back(view, up, distance_in(here, view))]
    view = max(candidates, key=lambda view: look_at(here.gaussians, [small(view)], [None]).merit())
    return Start(view, up, distance_in(here, view), "where much of it is to be seen")


def stepping_back(view: View, up: Tensor, distance: float) -> list[View]:
    """Return a view, upright, and others from further back; `distance` is to what is in its middle."""
    viewmat = view.viewmat.cpu()
    eye, look = -viewmat[:3, :3].T @ viewmat[:3, 3], viewmat[2, :3]
    focal, device = float(view.K[0, 0]), view.viewmat.device
    return [
        looking(eye - part * distance * look, look, up, view.width, view.height, focal, device) for part in STEPS_BACK
    ]


def on_an_axis(up: Tensor) -> Tensor:
    """Return the coordinate axis that is close to a unit vector [3], with its sign, or the vector if none is."""
    axis = int(up.abs().argmax())
    if float(up[axis].abs()) < NEAR_AN_AXIS:
        return up
    return torch.eye(3)[axis] * up[axis].sign()


@torch.no_grad()
def distance_in(here: Shown, view: View) -> float:
    """Return how far away it is what is in the middle of a view; 1 where there is nothing."""
    device = here.gaussians.means.device
    height = max(round(GLANCE * view.height / view.width), 1)
    small = resized(View(view.viewmat.to(device), view.K.to(device), view.width, view.height), GLANCE, height)
    rendered = render(here.gaussians, small, depth=True, antialiased=here.antialiased)
    assert rendered.depth is not None
    rows, columns = slice(height // 4, height - height // 4), slice(GLANCE // 4, GLANCE - GLANCE // 4)
    there = rendered.depth[rows, columns][rendered.alpha[rows, columns] > SEEN]
    return float(there.median()) if len(there) else 1.0
