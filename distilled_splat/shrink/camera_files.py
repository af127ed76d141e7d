"""Reads cameras in JSON: nerfstudio's and Blender's transforms.json, and the cameras.json of Inria's trainer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image

from distilled_splat.runs.files import read_text
from distilled_splat.shrink.recording import ORIENTATIONS, Recording, Shot, check_similarity, numbers, photo_at, shot

PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FISHEYE624")
"""nerfstudio's camera models that a pinhole approximates in the middle of the picture."""
OLD_APPLIED = ((0, 1, 0, 0), (1, 0, 0, 0), (0, 0, -1, 0))
"""The applied transform of a COLMAP capture that was processed before nerfstudio recorded this transform."""
IMAGES = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
"""Formats that Pillow may open; some of its other formats start programs."""


def read_json(path: Path) -> Recording:
    """Read a transforms.json or a cameras.json.

    Raises:
        ValueError: if the file is neither, or damaged.
        OSError: if the file cannot be read.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: write it again.") from error
    rows = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path} has no cameras: give a nerfstudio transforms.json (it has `frames`), or a cameras.json of "
            "Inria's trainer (a list)."
        )
    if not rows:
        raise ValueError(f"{path} has an empty list of cameras: give a file with at least one.")
    return read_transforms(path, content, rows) if isinstance(content, dict) else read_inria(path, rows)


def read_inria(path: Path, rows: list[dict[str, Any]]) -> Recording:
    """Read the cameras.json that Inria's trainer writes beside its point_cloud folder: COLMAP's world, OpenCV axes."""
    shots: list[Shot] = []
    for place, row in enumerate(rows):
        what = f"camera {place} in {path}"
        fx, fy, width, height = (
            float(numbers(row.get(name), (), f"`{name}` of {what}")) for name in ("fx", "fy", "width", "height")
        )
        rotation = numbers(row.get("rotation"), (3, 3), f"`rotation` of {what}")
        centre = numbers(row.get("position"), (3,), f"`position` of {what}")
        shots.append(shot(rotation, centre, (fx, fy, width / 2, height / 2), (width, height), what))
    return Recording("cameras.json of Inria's trainer", shots, np.eye(4), np.eye(4), None)


def read_transforms(path: Path, meta: dict[str, Any], rows: list[dict[str, Any]]) -> Recording:
    """Read nerfstudio's transforms.json, or Blender's transforms_train.json.

    As in nerfstudio, an entry for all frames has precedence over an entry of a frame. The focal length may be
    `camera_angle_x`, and the image size may come from the first photo. Lens distortion is ignored.
    """
    by_photo = photo_size(path.parent, rows) if not all(entry(meta, row, "w", "h") for row in rows) else None
    shots = []
    for place, row in enumerate(rows):
        what = f"frame {place} in {path}"
        model = meta.get("camera_model", row.get("camera_model", "OPENCV"))
        if model not in PINHOLES:
            raise ValueError(f"The camera model of {what} is {model!r:.40}: only pinhole cameras can be rendered.")
        pose = numbers(row.get("transform_matrix"), (4, 4), f"`transform_matrix` of {what}")
        width, height = size_of(meta, row, by_photo, what)
        shots.append(
            shot(
                pose[:3, :3] * (1, -1, -1),  # OpenGL's axes into OpenCV's
                pose[:3, 3],
                intrinsics_of(meta, row, width, height, what),
                (width, height),
                what,
                photo_at(path.parent, row.get("file_path")),
            )
        )
    has_focal = "fl_x" in meta or "fl_x" in rows[0]
    orientation = meta.get("orientation_override", "up") if has_focal else None
    if orientation is not None and orientation not in ORIENTATIONS:
        raise ValueError(f"`orientation_override` in {path} is {orientation!r:.40}: use one of {ORIENTATIONS}.")
    kind = "transforms.json of nerfstudio" if has_focal else "transforms.json of Blender"
    return Recording(kind, shots, back_to_capture(path, meta, shots), np.eye(4), orientation, z_up=not has_focal)


def back_to_capture(path: Path, meta: dict[str, Any], shots: list[Shot]) -> np.ndarray:
    """Return the similarity [4, 4] from the file's frame to the capture's, by the rules of nerfstudio's dataparser.

    It inverts `applied_transform`. `applied_scale` counts in the dataparser's scale, which acts about the mean camera.

    Raises:
        ValueError: if the file's transform distorts shapes.
    """
    applied = np.eye(4)
    if "applied_transform" in meta:
        value = meta["applied_transform"]
        rows = 4 if isinstance(value, list) and len(value) == 4 else 3
        applied[:rows] = numbers(value, (rows, 4), f"`applied_transform` in {path}")
    elif (path.parent / "colmap" / "sparse" / "0").exists():
        applied[:3] = OLD_APPLIED
    scale = float(numbers(meta.get("applied_scale", 1.0), (), f"`applied_scale` in {path}"))
    check_similarity(applied, f"`applied_transform` in {path}")
    if not scale > 0:
        raise ValueError(f"`applied_scale` in {path} is not positive: repair the file, or write it again.")
    mean = np.mean([shot.pose[:3, 3] for shot in shots], axis=0)
    about_mean = np.eye(4)
    about_mean[:3, :3] /= scale
    about_mean[:3, 3] = mean - mean / scale
    return np.linalg.inv(applied) @ about_mean


def entry(meta: dict[str, Any], row: dict[str, Any], *names: str) -> bool:
    """Return whether a file has an entry of this name, in a frame or for all frames."""
    return all(name in meta or name in row for name in names)


def number(meta: dict[str, Any], row: dict[str, Any], name: str, what: str) -> float:
    """Return a number of a frame. An entry for all frames has precedence."""
    return float(numbers(meta.get(name, row.get(name)), (), f"`{name}` of {what}"))


def size_of(
    meta: dict[str, Any], row: dict[str, Any], by_photo: Optional[tuple[int, int]], what: str
) -> tuple[float, float]:
    """Return the width and the height of a frame in pixels.

    Raises:
        ValueError: if they are unknown.
    """
    if entry(meta, row, "w", "h"):
        return number(meta, row, "w", what), number(meta, row, "h", what)
    if by_photo is None:
        raise ValueError(f"The size of {what} is unknown: write `w` and `h` into the file, or add the photos.")
    return by_photo


def intrinsics_of(
    meta: dict[str, Any], row: dict[str, Any], width: float, height: float, what: str
) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy of a frame in pixels.

    Raises:
        ValueError: if the focal length is unknown.
    """
    if entry(meta, row, "fl_x"):
        fx = number(meta, row, "fl_x", what)
    elif entry(meta, row, "camera_angle_x"):
        angle = number(meta, row, "camera_angle_x", what)
        fx = 0.5 * width / math.tan(0.5 * angle) if 0 < angle < math.pi else 0.0
    else:
        raise ValueError(f"The focal length of {what} is missing: write `fl_x` in pixels, or `camera_angle_x`.")
    fy = number(meta, row, "fl_y", what) if entry(meta, row, "fl_y") else fx
    cx = number(meta, row, "cx", what) if entry(meta, row, "cx") else width / 2
    cy = number(meta, row, "cy", what) if entry(meta, row, "cy") else height / 2
    return fx, fy, cx, cy


def photo_size(folder: Path, rows: list[dict[str, Any]]) -> Optional[tuple[int, int]]:
    """Return the width and height of the first photo that can be opened, in pixels."""
    for row in rows:
        path = photo_at(folder, row.get("file_path"))
        if path is not None:
            try:
                with Image.open(path, formats=IMAGES) as image:
                    return image.size
            except (OSError, ValueError, Image.DecompressionBombError):
                continue
    return None
