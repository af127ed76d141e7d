"""Cameras from an untrusted file, in one form for all formats, with every number checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, get_args

import numpy as np

Orientation = Literal["pca", "up", "vertical", "none"]
"""How nerfstudio's dataparser turns poses."""
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)
LONGEST_SIDE = 1 << 16
"""Pixels; no photo is larger."""
SLACK = 0.02
"""Tolerance for a pose's rotation: entries of R R^T - I. Some files have only three decimals."""


@dataclass(frozen=True)
class Shot:
    """One camera.

    Attributes:
        pose: camera-to-world in OpenCV axes, in the world of the file, float64 [4, 4].
        intrinsics: fx, fy, cx, cy in pixels.
        width: in pixels.
        height: in pixels.
        photo: path of the camera's photo; None without a photo.
    """

    pose: np.ndarray
    intrinsics: tuple[float, float, float, float]
    width: int
    height: int
    photo: Optional[Path] = None


@dataclass(frozen=True)
class Recording:
    """All cameras of a file, and what the file says about its coordinate frame.

    Attributes:
        kind: kind of the file, in plain words.
        shots: the cameras, in the order of the file.
        to_capture: similarity [4, 4] from the file's frame to the capture's.
        to_saved: similarity [4, 4] from the file's frame to the one that ns-process-data saves.
        orientation: how nerfstudio's dataparser turns the saved poses; None if trainers do not turn them.
        z_up: whether z points up in the saved frame if the poses are not turned, as in Blender.
    """

    kind: str
    shots: list[Shot]
    to_capture: np.ndarray
    to_saved: np.ndarray
    orientation: Optional[Orientation] = "up"
    z_up: bool = False


def numbers(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return finite numbers of a shape, float64.

    Args:
        value: the content of the file.
        shape: the required shape.
        what: name and place of the value, for the error message.

    Raises:
        ValueError: if the value is anything else.
    """
    try:
        found = np.array(value)
        if found.dtype.kind not in "iuf":
            raise ValueError("not numbers")
        with np.errstate(over="ignore"):
            fits = found.shape == shape and bool(np.isfinite(found.astype(np.float32)).all())
    except (ValueError, TypeError, OverflowError):
        fits, found = False, np.zeros(0)
    if not fits:
        size = " x ".join(map(str, shape)) + " finite numbers" if shape else "a finite number"
        raise ValueError(f"{what} is not {size}: repair the file, or write it again.")
    return found.astype(np.float64)


def shot(
    rotation: np.ndarray,
    centre: np.ndarray,
    intrinsics: tuple[float, float, float, float],
    size: tuple[float, float],
    what: str,
    photo: Optional[Path] = None,
) -> Shot:
    """Return a camera after checking it.

    Args:
        rotation: camera-to-world in OpenCV axes, [3, 3].
        centre: camera centre, [3].
        intrinsics: fx, fy, cx, cy in pixels.
        size: width and height in pixels.
        what: name of the camera and of its file, for the error message.
        photo: path of the camera's photo.

    Raises:
        ValueError: if the pose is not rigid, the focal length is not positive, or the image has no size.
    """
    off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    placed = bool(np.isfinite(np.asarray(centre, np.float32)).all())
    if not placed or not off <= SLACK or np.linalg.det(rotation) < 0:
        raise ValueError(f"The pose of {what} is not a rotation and a position: repair the file, or write it again.")
    if not all(math.isfinite(value) for value in intrinsics) or not min(intrinsics[:2]) > 0:
        raise ValueError(f"The focal length of {what} is not a positive number: repair the file, or write it again.")
    if not all(1 <= side <= LONGEST_SIDE and side == int(side) for side in size):
        raise ValueError(
            f"The image of {what} has {size[0]:g} x {size[1]:g} pixels: sides must have 1 to {LONGEST_SIDE} pixels."
        )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, centre
    return Shot(pose, intrinsics, int(size[0]), int(size[1]), photo)


def check_similarity(matrix: np.ndarray, what: str) -> None:
    """Refuse a change of frame [4, 4] that distorts shapes or collapses them.

    Raises:
        ValueError: naming `what`.
    """
    size = abs(float(np.linalg.det(matrix[:3, :3]))) ** (1 / 3)
    rotation = matrix[:3, :3] / max(size, 1e-12)
    if not (size > 1e-9 and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)):
        raise ValueError(f"{what} distorts shapes, so it is not a change of frame: repair the file, or write it again.")


def photo_at(folder: Path, name: Any) -> Optional[Path]:
    """Return the path of the photo that a file names, with or without its ending; None if there is no such photo."""
    if not isinstance(name, str) or not name:
        return None
    try:
        return next(
            (path for end in ("", ".png", ".jpg", ".jpeg") if (path := folder / f"{name}{end}").is_file()), None
        )
    except (OSError, ValueError):  # the name is invalid for files
        return None
