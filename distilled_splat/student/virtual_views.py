"""Virtual views: novel views between the training cameras, which have no photo and only the teachers can render."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from distilled_splat.ops.views import View

WIDEST_TURN = np.deg2rad(60.0)
"""Cameras whose directions differ by more than this see little in common."""


def views_between(
    views: Sequence[View], count: int, neighbours: int = 5, spread: float = 0.0, seed: int = 0
) -> list[View]:
    """Make `count` virtual views between training cameras and their nearest neighbours, or near that line.

    Each view lies at a random point between a camera and one of its nearest neighbours that look in a similar
    direction. The centre moves on the straight line, the rotation on the shortest arc; intrinsics and size are the
    first camera's. The first cameras are taken in turn, so that the views spread over the capture as the photos do.
    With `spread` the line extends by that fraction of its length beyond both cameras, and a random fraction (normal,
    with that standard deviation) of the way to another neighbour is added. So views between cameras that circle an
    object stay near the circle and keep facing the object.

    Args:
        views: the training views.
        count: number of views to make.
        neighbours: how many nearest cameras to choose the second from.
        spread: how far the views leave the line between two cameras, as a fraction of the distances to the neighbours.
        seed: seed of the random choices.

    Returns:
        Views on the device of `views`; an empty list if there are fewer than two cameras.
    """
    if len(views) < 2:
        return []
    generator = np.random.default_rng(seed)
    viewmats = np.stack([view.viewmat.detach().cpu().double().numpy() for view in views])
    world_from_camera = Rotation.from_matrix(viewmats[:, :3, :3].transpose(0, 2, 1))
    centres = -np.einsum("nji,nj->ni", viewmats[:, :3, :3], viewmats[:, :3, 3])
    made = []
    for place in range(count):
        first = place % len(views)
        distance = np.linalg.norm(centres - centres[first], axis=1)
        turned = world_from_camera[first].inv() * world_from_camera
        distance[turned.magnitude() > WIDEST_TURN] = np.inf
        distance[first] = np.inf
        near = np.argsort(distance)[:neighbours]
        near = near[np.isfinite(distance[near])]
        chosen = [*generator.permutation(near), first, first][:2]
        steps, arcs = centres[chosen] - centres[first], turned.as_rotvec()[chosen]
        parts = np.array((generator.uniform(-spread, 1 + spread), spread * generator.normal()))
        centre = centres[first] + parts @ steps
        rotation = (world_from_camera[first] * Rotation.from_rotvec(parts @ arcs)).as_matrix().T
        viewmat = np.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ centre
        source = views[first]
        made.append(View(torch.from_numpy(viewmat).to(source.viewmat), source.K, source.width, source.height))
    return made
