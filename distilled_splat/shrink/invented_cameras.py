"""Invents cameras for a splat without photos, at free places from which much of the splat is visible.

A splat has its Gaussians where photos had detail, and they are as small as the photos could resolve. So a good view
shows many Gaussians, each at a size of about a pixel or more, sharply, with nothing close to the camera. Where nobody
took photos, there are few, large Gaussians, and fog.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Optional

import torch
from torch import Tensor

from distilled_splat.ops.render import render
from distilled_splat.ops.space import CELL, RESOLUTION, Hits, Space, cell_of, place_of, sphere_directions
from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import SH_DEGREE_0, Gaussians

FIELD_OF_VIEW = math.radians(65)
"""Field of view along the longer side of an invented picture."""
ASPECT = 4 / 3
INSIDE, AROUND = 2400, 800
"""Numbers of candidate places: in the bulk and a little beyond it, and on spheres around the bulk."""
RADII = (1.4, 1.8, 2.4, 3.2)
FEW_DIRECTIONS, DIRECTIONS = 256, 1024
"""Number of rays from each candidate: first from all, then from those worth a closer look."""
AXES = 64
"""Number of viewing directions at each place."""
MOST_EYES = 700
"""Largest number of candidates in the closer look."""
THICKEST = 0.02
"""Largest fraction of the light that may be lost over a cell's length at an eye."""
CLEARANCE = 0.08
"""Free distance in front of nearly all rays of an eye, in half sides of the bulk."""
LEAST_WORTH = 0.25
"""Places are skipped if their best view shows less than this fraction of what the best view of all shows."""
ROOM = 0.4
"""In a room, at least this fraction of an eye's rays ends on something, with some space around the eye. It is smaller
around objects."""
FILLED = 0.4
"""Smallest covered fraction of the pictures from which the scale of detail is estimated."""
WITHIN = 0.35
"""Fraction of the views that are taken from within a room."""
KNOWN, MOSTLY = 0.05, 0.6
"""A side of a block is known if views from within show more than the first fraction of the block's Gaussians. A view
from elsewhere may be taken if at least the second fraction of what it shows is known."""
BEST_VIEWS = 50
"""Number of views from which the scale of detail is estimated."""
BLOCK = 4
"""Cells along each axis of a block; the views' coverage is counted by blocks."""
SIDES = 14
"""Number of sides from which each block should be visible."""
LEAST_COVERED = 0.05
"""Smallest fraction of a picture that must show something."""
BLURRED = 2.0
"""Gaussians in a picture are fog if they are larger than usual by this, in the logarithm."""


@dataclass(frozen=True)
class Invented:
    """The chosen views, in the order in which they were chosen.

    Attributes:
        eyes: camera centres, [V, 3].
        looks: unit vectors along the views' axes, [V, 3].
        scale: logarithm of distance over size of the Gaussians in the views.
    """

    eyes: Tensor
    looks: Tensor
    scale: float


def candidate_eyes(space: Space, generator: torch.Generator) -> Tensor:
    """Return free places in and around a splat's bulk, in random order, [E, 3]."""
    inside = 1.2 * (2 * torch.rand(INSIDE, 3, generator=generator) - 1)
    outside = torch.nn.functional.normalize(torch.randn(AROUND, 3, generator=generator), dim=1)
    outside = outside * torch.tensor(RADII).repeat(AROUND // len(RADII))[:, None]
    eyes = torch.cat((inside, outside))[torch.randperm(INSIDE + AROUND, generator=generator)]
    return eyes[space.density[cell_of(eyes)] * CELL < THICKEST]


def worth_of(space: Space, hits: Hits, cone: Tensor) -> tuple[Tensor, float]:
    """Return how many Gaussians each ray stands for, and the scale of detail of good views.

    The scale is the logarithm of a Gaussian's distance over its size. Training makes Gaussians of about two pixels, so
    this logarithm is nearly uniform over a photo, and smaller where nobody took photos. The best views reveal it.

    Args:
        space: the occupied space of the splat.
        hits: the ends of the rays, [E, D].
        cone: which rays a view along each axis shows, 0 or 1, [A, D].

    Returns:
        For each ray the number of Gaussians that are resolved and sharp, [E, D], and the scale.
    """
    distance = torch.where(hits.ends, hits.distance, 0.0)
    log_ratio = distance.clamp_min(1e-6).log() - space.log_detail[hits.cell]
    ends = hits.ends.float() @ cone.T
    means = torch.where(hits.ends, log_ratio, 0.0) @ cone.T / ends.clamp_min(1)
    means = torch.where(ends > FILLED * cone.sum(dim=1), means, -torch.inf)
    scale = float(means.flatten().topk(min(BEST_VIEWS, means.numel())).values.mean())
    stretched = outer_scale(hits.cell) ** 2
    shown = distance**2 * space.count[hits.cell] / (CELL * stretched) ** 2 * (4 * math.pi / distance.shape[1])
    resolved = torch.sigmoid((scale + 0.5 - log_ratio) / 0.3)
    sharp = torch.exp(-((hits.fog.clamp_max(10) / 0.4) ** 2))
    clear = torch.sigmoid((hits.nearest - CLEARANCE) / 0.02)
    return torch.where(hits.ends, shown * resolved * sharp * clear[:, None], 0.0), scale


def outer_scale(cells: Tensor) -> Tensor:
    """Return m of the points that were contracted into cells; m squared is how much longer they are in space."""
    return 1 / (2 - ((place_of(cells) + 0.5) * CELL - 2).abs().amax(dim=0).clamp_min(1.0))


def invent(space: Space, count: int, shows: Callable[[Tensor, Tensor, float], bool], seed: int = 0) -> Invented:
    """Choose views of a splat: of an object from all around, of a room from within.

    Places are within a room if many of their rays end on something. Views from outside a room would show the backs of
    its walls, which nobody photographed. So all further views may only show what views from within show from that side.

    Args:
        space: the occupied space of the splat, in its unit frame.
        count: largest number of views.
        shows: renders the view from a place [3] along an axis [3] at a scale of detail, and returns whether it is a
            good picture. After a bad picture its place is not used any more.
        seed: seed of the candidate places.

    Raises:
        ValueError: if nothing is visible from anywhere.
    """
    eyes = candidate_eyes(space, torch.Generator().manual_seed(seed))
    if len(eyes) == 0:
        raise ValueError("No free camera position was found in or around this splat: give --cameras.")
    axes, is_object = sphere_directions(AXES), False
    for number in (FEW_DIRECTIONS, DIRECTIONS):
        directions = sphere_directions(number)
        cone = (axes @ directions.T > math.cos(FIELD_OF_VIEW / 2)).float()
        hits = space.cast(eyes, directions)
        worth, scale = worth_of(space, hits, cone)
        if number == FEW_DIRECTIONS:
            is_object = most_enclosed(hits) < ROOM
        within = worth * enclosure(hits)[:, None]
        kept = torch.cat([worthwhile(each @ cone.T)[:MOST_EYES] for each in (within, worth)]).unique()
        eyes, hits, worth, within = eyes[kept], hits[kept], worth[kept], within[kept]

    column, weights = columns(space, hits.cell, directions)

    def is_picture(eye: int, axis: int) -> bool:
        return shows(eyes[eye], axes[axis], scale)

    if is_object:
        chosen, _ = choose(worth, column, weights, cone, count, is_picture)
    else:
        chosen, seen = choose(within, column, weights, cone, round(WITHIN * count), is_picture)
        known = (seen > KNOWN * weights)[column]
        shown = (worth * known) @ cone.T >= MOSTLY * (worth @ cone.T)
        chosen += choose(worth * known, column, weights, cone, count - len(chosen), is_picture, shown)[0]
    if not chosen:
        raise ValueError("No free camera position sees this splat: give --cameras.")
    picked = torch.tensor(chosen)
    return Invented(eyes[picked[:, 0]], axes[picked[:, 1]], scale)


def choose(
    worth: Tensor,
    column: Tensor,
    weights: Tensor,
    cone: Tensor,
    count: int,
    is_picture: Callable[[int, int], bool],
    allowed: Optional[Tensor] = None,
) -> tuple[list[tuple[int, int]], Tensor]:
    """Choose views one by one; each is the view that adds most to the views before it.

    A view adds the Gaussians that it shows. A block counts less, the more often other views show it from the same side.

    Args:
        worth: number of Gaussians that each ray shows, [E, D].
        column: block and side that each ray sees, [E, D].
        weights: number of Gaussians in each block, by block and side, [columns].
        cone: which rays a view along each axis shows, [A, D].
        count: largest number of views.
        is_picture: returns whether the view of a place along an axis is a good picture. After a bad picture its place
            is not used any more.
        allowed: which views may be chosen, [E, A]; None: all.

    Returns:
        The views, as indices of place and axis; and the number of Gaussians that they show, by block and side.
    """
    gain = worth @ cone.T  # [E, A], an upper bound: some entries are older than the last chosen views
    gain[gain.amax(dim=1) < LEAST_WORTH * gain.max()] = 0
    if allowed is not None:
        gain = gain * allowed
    seen = torch.zeros(len(weights))
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count and float(gain.max()) > 0:
        eye, axis = divmod(int(gain.argmax()), len(cone))
        now = (worth[eye] / (1 + seen[column[eye]] / weights[column[eye]])) @ cone.T
        gain[eye] = torch.minimum(gain[eye], now)
        if float(gain[eye, axis]) < float(gain.max()):
            continue  # gains only fall, so an upper bound suffices for the other places
        if not is_picture(eye, axis):
            gain[eye] = 0
            continue
        chosen.append((eye, axis))
        shown = cone[axis] > 0
        seen.index_add_(0, column[eye, shown], worth[eye, shown])
    return chosen, seen


def enclosure(hits: Hits) -> Tensor:
    """Return the fraction of each eye's rays that ends on something, [E]."""
    return hits.ends.float().mean(dim=1)


def most_enclosed(hits: Hits) -> float:
    """Return the largest enclosure of an eye that has space around it and no fog."""
    fog = torch.where(hits.ends, hits.fog, torch.nan).nanmedian(dim=1).values
    found = enclosure(hits)[(hits.nearest > 0.2) & (fog < 0.6)]
    return float(found.topk(min(10, len(found))).values[-1]) if len(found) else 0.0


def worthwhile(gain: Tensor) -> Tensor:
    """Return the indices of the places whose best view, by gain [E, A], is not much worse than the best view of all."""
    best = gain.amax(dim=1)
    return (best >= LEAST_WORTH * best.max()).nonzero()[:, 0]


def columns(space: Space, cells: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Number the pairs of a block of space and a side from which rays see it.

    Args:
        space: the occupied space of the splat.
        cells: the cells in which the rays end, [E, D].
        directions: of the rays, [D, 3].

    Returns:
        For each ray the number of its block and side, [E, D]; for each number the Gaussians in the block, [columns].
    """
    side = (directions @ sphere_directions(SIDES).T).argmax(dim=1)
    blocks = RESOLUTION // BLOCK
    place = place_of(cells) // BLOCK
    block = (place[0] * blocks + place[1]) * blocks + place[2]
    grid = space.count.view(blocks, BLOCK, blocks, BLOCK, blocks, BLOCK).sum(dim=(1, 3, 5)).flatten()
    names, column = torch.unique(block * SIDES + side, return_inverse=True)
    return column, grid[names // SIDES].clamp_min(1e-3)


def looking(
    eye: Tensor, look: Tensor, up: Tensor, width: int, height: int, focal: float, device: torch.device | str = "cpu"
) -> View:
    """Return the view from a place along an axis, with `up` as far up in the picture as possible."""
    forward, up = look.double() / look.double().norm(), up.double()
    right = torch.linalg.cross(forward, up)
    if float(right.norm()) < 1e-3:  # straight up or down
        right = torch.linalg.cross(forward, up.roll(1))
    right = right / right.norm()
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = torch.stack((right, torch.linalg.cross(forward, right), forward))
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye.double()
    K = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return View(viewmat.float().to(device), K.to(device), width, height)


def sharpness(gaussians: Gaussians, view: View, scale: float) -> float:
    """Return the fraction of the covered pixels that shows detail of the splat, not fog or the inside of something.

    Args:
        gaussians: the splat.
        view: a small view.
        scale: logarithm of distance over size of the Gaussians in photos.
    """
    lowest, highest = -16.0, 2.0
    sizes = gaussians.log_scales.sum(dim=1) - gaussians.log_scales.amin(dim=1)
    level = ((sizes / 2).clamp(lowest, highest) - lowest) / (highest - lowest)
    grey = replace(
        gaussians, sh_dc=((level - 0.5) / SH_DEGREE_0)[:, None].expand(-1, 3), sh_rest=gaussians.sh_rest[:, :0]
    )
    with torch.no_grad():
        rendered = render(grey, view, depth=True)
    assert rendered.depth is not None
    covered = rendered.alpha[..., 0] > 0.5
    if float(covered.float().mean()) < LEAST_COVERED:
        return 0.0
    log_size = lowest + (highest - lowest) * rendered.color[..., 0] / rendered.alpha[..., 0].clamp_min(1e-6)
    log_ratio = rendered.depth[..., 0].clamp_min(1e-6).log() - log_size
    return float((log_ratio[covered] > scale - BLURRED).float().mean())
