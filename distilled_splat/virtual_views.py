"""Views between the training cameras, where there is no photo and only teachers can say what is to be seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from distilled_splat.render import View

WIDEST_TURN = np.deg2rad(60.0)
"""Cameras that look further apart than this have little in common between them."""


def views_between(views: Sequence[View], count: int, neighbours: int = 5, seed: int = 0) -> list[View]:
    """Interpolate `count` views between training cameras and their nearest neighbours.

    Each view lies at a random point of the way from one camera to one of those nearest to it that look the same way:
    the centre moves on a straight line and the rotation on the shortest arc; intrinsics and size are the
    first camera's. The first cameras are taken in turn, so that the views spread over the capture as the photos do.

    Args:
        views: the training views.
        count: number of views to make.
        neighbours: how many nearest cameras to choose the second from.
        seed: of the random choices.

    Returns:
        Views on the device of `views`; none if there are fewer than two cameras.
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
        turn = (world_from_camera[first].inv() * world_from_camera).magnitude()
        distance[turn > WIDEST_TURN] = np.inf
        distance[first] = np.inf
        near = np.argsort(distance)[:neighbours]
        near = near[np.isfinite(distance[near])]
        second = int(generator.choice(near)) if len(near) else first
        way = generator.uniform()
        ends = Rotation.from_matrix(viewmats[[first, second], :3, :3].transpose(0, 2, 1))
        rotation = Slerp([0.0, 1.0], ends)(way).as_matrix().T
        centre = (1 - way) * centres[first] + way * centres[second]
        viewmat = np.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ centre
        source = views[first]
        made.append(View(torch.from_numpy(viewmat).to(source.viewmat), source.K, source.width, source.height))
    return made
