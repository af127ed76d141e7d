"""Make the demo's scenes as captures in nerfstudio's format, with the true depth of every pixel."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from plyfile import PlyData, PlyElement

from distilled_splat.demo.layouts import LAYOUTS, Layout
from distilled_splat.demo.points import Capture, find_points, ray_directions
from distilled_splat.demo.tracer import Solids, first_hits, trace_image

RECIPE = 2
"""Version of the recipe. A scene of another version is replaced."""
DEPTH_UNIT = 1e-3
"""Metres per step of a depth map, nerfstudio's default of `depth_unit_scale_factor`."""

_SAMPLES = 3
_FIELD_OF_VIEW = math.radians(62.0)
_BEYOND_EVERY = 8
_CLEARANCE = 0.15


def views_beyond(solids: Solids, poses: np.ndarray) -> np.ndarray:
    """Return, for every 8th pose, a view in the same direction at twice the distance from the nearest other camera.

    If that position is hidden from the nearest camera or too close to a surface, the next nearest camera is used.

    Args:
        solids: the scene.
        poses: camera-to-world matrices [V, 4, 4].

    Returns:
        Camera-to-world matrices, float64 [B, 4, 4], with B = V / 8 or a few less.
    """
    found = []
    for place in range(0, len(poses), _BEYOND_EVERY):
        centre = poses[place, :3, 3]
        others = np.delete(poses[:, :3, 3], place, axis=0)
        for other in others[np.argsort(np.linalg.norm(others - centre, axis=1))]:
            way = 2.0 * (centre - other)
            length = float(np.linalg.norm(way))
            if first_hits(solids, other[None], way[None] / length)[0] > length + _CLEARANCE:
                pose = poses[place].copy()
                pose[:3, 3] = other + way
                found.append(pose)
                break
    return np.array(found).reshape(-1, 4, 4)


def true_depth(layout: Layout, pose: np.ndarray, focal: float, width: int, height: int) -> np.ndarray:
    """Return the depth at the middle of each pixel along the camera's axis, metres [height, width]; 0 in the void."""
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2) + 0.5
    directions = ray_directions(pixels, pose, focal, width, height)
    distances = first_hits(layout.surfaces(), np.tile(pose[:3, 3], (len(pixels), 1)), directions)
    depths = distances * -(directions @ pose[:3, 2])
    return np.where(np.isfinite(depths), depths, 0.0).reshape(height, width)


def _photograph(layout: Layout, poses: np.ndarray, focal: float, width: int, height: int) -> np.ndarray:
    """Return the pictures at the poses with their alpha, uint8 [V, height, width, 4]."""
    solids = layout.solids()

    def take(pose: np.ndarray) -> np.ndarray:
        picture = trace_image(solids, pose, focal, width, height, _SAMPLES, layout.cut_out)
        return np.round(255.0 * picture).astype(np.uint8)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.array(list(pool.map(take, poses)), np.uint8).reshape(-1, height, width, 4)


def _write_frames(
    folder: Path, first: int, layout: Layout, poses: np.ndarray, images: np.ndarray, focal: float
) -> list[dict[str, Any]]:
    """Write pictures [V, H, W, 4] and depth maps, numbered from `first`; return their frames for transforms.json."""
    _, height, width, _ = images.shape
    frames = []
    for number, (pose, image) in enumerate(zip(poses, images, strict=True), start=first):
        name, depth_name = f"images/{number:04d}.png", f"depths/{number:04d}.png"
        Image.fromarray(image if layout.cut_out else np.ascontiguousarray(image[..., :3])).save(folder / name)
        depth = np.round(true_depth(layout, pose, focal, width, height) / DEPTH_UNIT)
        Image.fromarray(depth.clip(0, 65535).astype(np.uint16)).save(folder / depth_name)
        frames.append({"file_path": name, "depth_file_path": depth_name, "transform_matrix": pose.tolist()})
    return frames


def _write(
    folder: Path, layout: Layout, capture: Capture, beyond: Capture, points: np.ndarray, colours: np.ndarray,
    parameters: dict[str, Any],
) -> None:  # fmt: skip
    """Write a capture, the views beyond its cameras, and its points into an empty folder, in nerfstudio's format."""
    _, height, width, _ = capture.images.shape
    (folder / "images").mkdir()
    (folder / "depths").mkdir()
    frames = _write_frames(folder, 1, layout, capture.poses, capture.images, capture.focal)
    further = _write_frames(folder, len(frames) + 1, layout, beyond.poses, beyond.images, capture.focal)
    columns = {axis: points[:, i] for i, axis in enumerate(("x", "y", "z"))}
    columns |= {name: colours[:, i] for i, name in enumerate(("red", "green", "blue"))}
    vertices = np.empty(len(points), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        vertices[name] = column
    PlyData([PlyElement.describe(vertices, "vertex")]).write(folder / "sparse_pc.ply")
    meta = {
        "camera_model": "OPENCV",
        "w": width,
        "h": height,
        "fl_x": capture.focal,
        "fl_y": capture.focal,
        "cx": 0.5 * width,
        "cy": 0.5 * height,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "applied_transform": np.eye(4)[:3].tolist(),
        "ply_file_path": "sparse_pc.ply",
        "demo_scene": parameters,
        "frames": frames,
        "views_beyond": further,
    }
    (folder / "transforms.json").write_text(json.dumps(meta, indent=2))


def _parameters_of(folder: Path) -> dict | None:
    """Return the parameters of the demo scene in a folder; None if the folder has none."""
    try:
        return json.loads((folder / "transforms.json").read_text()).get("demo_scene")
    except (OSError, ValueError, AttributeError):
        return None


def make_scene(
    folder: Path,
    views: int = 48,
    width: int = 320,
    height: int = 240,
    points: int = 5000,
    seed: int = 0,
    layout: str = "still-life",
) -> Path:
    """Make one of the demo's scenes, or reuse it if the folder already has it.

    The scene has depth maps with the true depth of every pixel, in the format that nerfstudio reads. It also has
    `views_beyond`: photos and depth maps of views away from all cameras, which nerfstudio does not read.

    The scene is made in a temporary folder beside and then renamed, so it is complete or absent. A demo scene with
    other parameters is replaced.

    Args:
        folder: folder for images/, depths/, transforms.json and sparse_pc.ply.
        views: number of photos; nerfstudio's interval split holds out every n-th of them.
        width: width of a photo, pixels.
        height: height of a photo, pixels.
        points: number of points in the point cloud.
        seed: seed of the camera path and the points. The same seed gives the same scene.
        layout: name of the scene, one of `layouts.LAYOUTS`.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the folder has anything else than a demo scene.
        ValueError: if there are too few views or pixels for so many points, or the layout is unknown.
    """
    folder = Path(folder)
    if layout not in LAYOUTS:
        raise ValueError(f"The layout {layout!r} is unknown: choose from {', '.join(LAYOUTS)}.")
    chosen = LAYOUTS[layout]
    parameters = {
        "recipe": RECIPE,
        "views": views,
        "width": width,
        "height": height,
        "points": points,
        "seed": seed,
        "layout": layout,
    }
    found = _parameters_of(folder)
    if found == parameters:
        return folder
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not a demo scene: give another folder, or remove this one.")
    rng = np.random.default_rng(seed)
    poses = chosen.walk(views, rng)
    focal = 0.5 * width / math.tan(0.5 * _FIELD_OF_VIEW)
    further = views_beyond(chosen.solids(), poses)
    images, pictures_beyond = (_photograph(chosen, each, focal, width, height) for each in (poses, further))
    over_black = np.round(images[..., :3] * (images[..., 3:] / 255.0)).astype(np.uint8)
    positions, colours = find_points(chosen.surfaces(), Capture(poses, over_black, focal), points, rng)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        fresh = Path(beside) / folder.name
        fresh.mkdir()
        _write(
            fresh, chosen, Capture(poses, images, focal), Capture(further, pictures_beyond, focal), positions, colours,
            parameters,
        )  # fmt: skip
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    return folder
