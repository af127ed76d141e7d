"""Check the capture's point cloud and coordinates: broken or too few points, cameras far from the origin."""

from __future__ import annotations

import math

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from distilled_splat.splat.frames import inverse

LEAST_POINTS = 4
"""The initial size of a Gaussian is the distance to its three nearest neighbours."""
LEAST_LOG_SCALE = math.log(1e-7) / 2
"""3DGS clamps the mean squared distance to the neighbours at 1e-7; duplicate points would have size 0."""
LARGEST_STEP = 1e-4
"""Largest step between 32-bit floats at the cameras, as a fraction of the capture's size: about 0.1 pixel."""


def clean_points(scene: DataparserOutputs) -> list[str]:
    """Remove points that are NaN or infinite from a parsed scene.

    If fewer than four points are left, all are removed, and the splat starts from random points.

    Args:
        scene: its metadata are changed.

    Returns:
        A sentence for each change.
    """
    points, colors = (scene.metadata.get(f"points3D_{kind}") for kind in ("xyz", "rgb"))
    if points is None or colors is None:
        return []
    told = []
    finite = torch.isfinite(points).all(dim=1)
    if not bool(finite.all()):
        told.append(f"{int((~finite).sum())} of {len(points)} points are NaN or infinite and are left out.")
        colors = colors[finite] if len(colors) == len(points) else colors
        points = points[finite]
    scene.metadata.update(points3D_xyz=points, points3D_rgb=colors)
    if len(points) < LEAST_POINTS:
        told.append(
            f"The capture has {len(points)} usable points, fewer than {LEAST_POINTS}: the training starts from random "
            "points instead."
        )
        del scene.metadata["points3D_xyz"], scene.metadata["points3D_rgb"]
    return told


def check_coordinates(scene: DataparserOutputs) -> None:
    """Refuse a capture so far from the origin that nerfstudio's 32-bit floats are too coarse for it.

    Raises:
        ValueError: with the offset to subtract.
    """
    back, scale = inverse(scene.dataparser_transform[:3].double(), float(scene.dataparser_scale))
    centers = scale * (scene.cameras.camera_to_worlds[:, :3, 3].double() @ back[:, :3].T + back[:, 3])
    middle = centers.mean(dim=0)
    size = float((centers - middle).abs().max())
    step = float(np.spacing(np.float32(middle.abs().max())))
    if size > 0 and step > LARGEST_STEP * size:
        digits = -math.floor(math.log10(size))
        offset = ", ".join(f"{round(value, digits) + 0.0:.{max(digits, 0)}f}" for value in middle.tolist())
        raise ValueError(
            f"its cameras lie within {size:.2g} of ({offset}), where 32-bit floats are {step:.2g} apart: subtract "
            f"({offset}) from the positions of all cameras and points (as they are before the applied_transform, if "
            "transforms.json has one), and add it again to what you export with --frame capture"
        )
