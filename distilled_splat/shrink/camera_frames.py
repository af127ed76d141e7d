"""The coordinate frames into which trainers move one recording of cameras."""

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
"""Poses are the same if they differ by less than this, relative to the distances between cameras."""
ONE_PLACE = 1e-6
"""Cameras are in one place if they are closer together than this, relative to their distance from the origin."""


def readings_of(recording: Recording) -> dict[str, list[View]]:
    """Return the cameras in each frame that a splat of this recording may have. Equal frames are returned once.

    Returns:
        By name. `capture`: the frame before nerfstudio or ns-process-data moves anything; Inria's trainer uses COLMAP's
        cameras in it. `file`: the frame that ns-process-data saves; Brush uses it. `centred`: the frame with middle and
        unit from the cameras; OpenSplat uses it. `nerfstudio`: the frame of nerfstudio's dataparser with its default
        options. `upright`: a frame with z up, turned as in `distilled-splat export`.
    """
    saved, centres = recording.to_saved, places(recording, np.eye(4))
    worlds = {"capture": recording.to_capture, "file": saved}
    spread = float(np.abs(centres - centres.mean(axis=0)).max())
    # cameras in one place set no unit
    if recording.orientation is not None and spread > ONE_PLACE * float(np.abs(centres).max()):
        worlds["centred"] = unit(centres - centres.mean(axis=0)) @ to_origin(centres.mean(axis=0))
        turned = turning(recording, recording.orientation) @ saved
        worlds["nerfstudio"] = unit(places(recording, turned)) @ turned
        worlds["upright"] = upright(worlds["nerfstudio"])
    elif recording.z_up:
        worlds["upright"] = upright(saved)
    return distinct(recording, worlds)


def upright(world: np.ndarray) -> np.ndarray:
    """Turn the target frame of a similarity [4, 4], in which z points up, so that y points down."""
    return np.vstack((UPRIGHT.double().numpy(), [0.0, 0.0, 0.0, 1.0])) @ world


def distinct(recording: Recording, worlds: Mapping[str, np.ndarray]) -> dict[str, list[View]]:
    """Return the cameras in the frames to which similarities [4, 4] move the file's frame, without equal frames."""
    centres = places(recording, np.eye(4))
    found: dict[str, np.ndarray] = {}
    for name, world in worlds.items():
        if bool(np.isfinite(world).all()) and not any(alike(world, other, centres) for other in found.values()):
            found[name] = world
    return {name: views_in(recording, world) for name, world in found.items()}


def views_in(recording: Recording, world: np.ndarray) -> list[View]:
    """Return the cameras in the frame to which a similarity [4, 4] moves the file's frame."""
    views = []
    for shot in recording.shots:
        fx, fy, cx, cy = shot.intrinsics
        K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
        views.append(View(looking(carried(shot.pose, world)), K, shot.width, shot.height))
    return views


def carried(pose: np.ndarray, world: np.ndarray) -> np.ndarray:
    """Move a camera-to-world [4, 4] by a similarity [4, 4]; its rotation stays a rotation."""
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
    """Return the camera centres in a frame, [V, 3]."""
    return np.stack([(world @ shot.pose)[:3, 3] for shot in recording.shots])


def to_origin(place: np.ndarray) -> np.ndarray:
    """Return the shift [4, 4] that moves a place [3] to the origin."""
    found = np.eye(4)
    found[:3, 3] = -place
    return found


def unit(centres: np.ndarray) -> np.ndarray:
    """Return the scaling [4, 4] after which the largest absolute coordinate of the cameras [V, 3] is 1."""
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
    """Return whether two similarities [4, 4] move cameras at [V, 3] to the same poses."""
    spread = max(float(np.abs(centres - centres.mean(axis=0)).max()), 1e-12)
    size = abs(float(np.linalg.det(world[:3, :3]))) ** (1 / 3)
    turned = float(np.abs(world[:3, :3] - other[:3, :3]).max())
    apart = float(np.abs((world - other)[:3] @ np.append(centres.mean(axis=0), 1.0)).max())
    return turned <= SAME * size and apart <= SAME * size * spread


def moved(views: Sequence[View], scale: float, shift: Tensor) -> list[View]:
    """Move cameras with their frame, x -> (x - shift) scale, in double precision.

    Args:
        views: the cameras.
        scale: positive factor.
        shift: the point that becomes the origin, [3].
    """
    away = shift.detach().to("cpu", torch.float64)
    found = []
    for view in views:
        viewmat = view.viewmat.double()
        viewmat[:3, 3] = scale * (viewmat[:3, 3] + viewmat[:3, :3] @ away.to(viewmat.device))
        found.append(View(viewmat.to(view.viewmat.dtype), view.K, view.width, view.height))
    return found
