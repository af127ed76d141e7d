"""The worlds that trainers make of one recording of cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from nerfstudio.cameras.camera_utils import auto_orient_and_center_poses
from torch import Tensor

from distilled_splat.ops.views import View
from distilled_splat.shrink.recording import Orientation, Recording
from distilled_splat.splat.frames import UPRIGHT

SAME = 1e-5
"""Poses that differ less, relative to the distances between cameras, are the same."""
ONE_PLACE = 1e-6
"""Cameras that stand closer together than this, relative to their distance from the origin, stand in one place."""


def readings_of(recording: Recording) -> dict[str, list[View]]:
    """Return the cameras in each world that a splat of this recording may be in; one that is there already is left out.

    Returns:
        By name: `capture` is the world before nerfstudio or ns-process-data has moved anything (Inria's trainer
        trains COLMAP's cameras in it), `file` the world that ns-process-data saves (Brush trains in it),
        `centred` the world whose middle and unit the cameras give (OpenSplat's), `nerfstudio` the one that nerfstudio's
        dataparser makes with its default options, `upright` what `distilled-splat export` turns that to.
    """
    saved, centres = recording.to_saved, places(recording, np.eye(4))
    worlds = {"capture": recording.to_capture, "file": saved}
    spread = float(np.abs(centres - centres.mean(axis=0)).max())
    # one place gives a world no unit
    if recording.orientation is not None and spread > ONE_PLACE * float(np.abs(centres).max()):
        worlds["centred"] = unit(centres - centres.mean(axis=0)) @ to_origin(centres.mean(axis=0))
        turned = turning(recording, recording.orientation) @ saved
        worlds["nerfstudio"] = unit(places(recording, turned)) @ turned
        worlds["upright"] = upright(worlds["nerfstudio"])
    elif recording.z_up:
        worlds["upright"] = upright(saved)
    return distinct(recording, worlds)


def upright(world: np.ndarray) -> np.ndarray:
    """Turn what a similarity [4, 4] leads to, a world of which z points up, so that y points down."""
    return np.vstack((UPRIGHT.double().numpy(), [0.0, 0.0, 0.0, 1.0])) @ world


def distinct(recording: Recording, worlds: Mapping[str, np.ndarray]) -> dict[str, list[View]]:
    """Return the cameras in the worlds that similarities [4, 4] take the file's to; no two of them are the same."""
    centres = places(recording, np.eye(4))
    found: dict[str, np.ndarray] = {}
    for name, world in worlds.items():
        if bool(np.isfinite(world).all()) and not any(alike(world, other, centres) for other in found.values()):
            found[name] = world
    return {name: views_in(recording, world) for name, world in found.items()}


def views_in(recording: Recording, world: np.ndarray) -> list[View]:
    """Return the cameras in the world that a similarity [4, 4] takes the file's world to."""
    views = []
    for shot in recording.shots:
        fx, fy, cx, cy = shot.intrinsics
        K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
        views.append(View(looking(carried(shot.pose, world)), K, shot.width, shot.height))
    return views


def carried(pose: np.ndarray, world: np.ndarray) -> np.ndarray:
    """Carry a camera-to-world [4, 4] by a similarity [4, 4]: a camera has no size."""
    found = world @ pose
    found[:3, :3] /= abs(float(np.linalg.det(world[:3, :3]))) ** (1 / 3)
    return found


def looking(pose: np.ndarray) -> Tensor:
    """Return the world-to-camera, float32 [4, 4], of a camera-to-world."""
    found = np.eye(4)
    found[:3, :3] = pose[:3, :3].T
    found[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return torch.from_numpy(found).float()


def places(recording: Recording, world: np.ndarray) -> np.ndarray:
    """Return where the cameras stand in a world, [V, 3]."""
    return np.stack([(world @ shot.pose)[:3, 3] for shot in recording.shots])


def to_origin(place: np.ndarray) -> np.ndarray:
    """Return the shift [4, 4] that takes a place [3] to the origin."""
    found = np.eye(4)
    found[:3, 3] = -place
    return found


def unit(centres: np.ndarray) -> np.ndarray:
    """Return the scaling [4, 4] after which cameras [V, 3] reach 1 on the axis where they reach furthest."""
    return np.diag([*np.full(3, 1 / np.abs(centres).max()), 1.0])


def turning(recording: Recording, method: Orientation) -> np.ndarray:
    """Return how nerfstudio's dataparser turns and centres the saved poses, [4, 4]."""
    poses = [carried(shot.pose, recording.to_saved) @ np.diag([1.0, -1.0, -1.0, 1.0]) for shot in recording.shots]
    _, turned = auto_orient_and_center_poses(
        torch.from_numpy(np.stack(poses).astype(np.float32)),
        method=method,
        center_method="poses",
    )
    return np.concatenate((turned.double().numpy(), [[0.0, 0.0, 0.0, 1.0]]))


def alike(world: np.ndarray, other: np.ndarray, centres: np.ndarray) -> bool:
    """Tell whether two similarities [4, 4] take cameras at [V, 3] to the same poses."""
    spread = max(float(np.abs(centres - centres.mean(axis=0)).max()), 1e-12)
    size = abs(float(np.linalg.det(world[:3, :3]))) ** (1 / 3)
    turned = float(np.abs(world[:3, :3] - other[:3, :3]).max())
    apart = float(np.abs((world - other)[:3] @ np.append(centres.mean(axis=0), 1.0)).max())
    return turned <= SAME * size and apart <= SAME * size * spread


def moved(views: Sequence[View], scale: float, shift: Tensor) -> list[View]:
    """Move cameras with their world, x -> (x - shift) scale, in double precision.

    Args:
        views: the cameras.
        scale: positive factor.
        shift: what becomes the origin, [3].
    """
    away = shift.detach().to("cpu", torch.float64)
    found = []
    for view in views:
        viewmat = view.viewmat.double()
        viewmat[:3, 3] = scale * (viewmat[:3, 3] + viewmat[:3, :3] @ away.to(viewmat.device))
        found.append(View(viewmat.to(view.viewmat.dtype), view.K, view.width, view.height))
    return found
