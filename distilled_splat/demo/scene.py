"""The demo's scene: a still life in a room, captured by an orbiting camera, in nerfstudio's format."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from plyfile import PlyData, PlyElement

from distilled_splat.demo import textures
from distilled_splat.demo.points import Capture, find_points
from distilled_splat.demo.tracer import BOX, CYLINDER, SPHERE, TORUS, Solids, trace_image

RECIPE = 1
"""Number of the recipe; a scene made by another one is made anew."""

_SAMPLES = 3
_FIELD_OF_VIEW = math.radians(62.0)
_MIDDLE = np.array([0.0, 0.0, 0.62])


def _turned(yaw: float, tilt: float) -> np.ndarray:
    """Return the rotation [3, 3] that tilts about x, then turns about z; radians."""
    c, s, a, b = math.cos(yaw), math.sin(yaw), math.cos(tilt), math.sin(tilt)
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, a, -b], [0.0, b, a]])
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ about_x


def still_life() -> Solids:
    """Return the demo's solids: a room, and things on a plinth in its middle; z is up, the floor at z = 0."""
    rows = [
        (BOX, 0.0, 0.0, (0.0, 0.0, 1.6), (3.6, 3.6, 1.6), textures.ROOM, (0.0, 1.0, 0.0)),
        (CYLINDER, 0.0, 0.0, (0.0, 0.0, 0.175), (1.35, 0.175, 0.0), textures.PLINTH, (0.10, 40.0, 0.0)),
        (BOX, 0.45, 0.0, (-0.52, 0.38, 0.69), (0.34, 0.34, 0.34), textures.CRATE, (0.05, 20.0, 0.0)),
        (SPHERE, 0.3, 0.0, (0.52, 0.30, 0.77), (0.42, 0.0, 0.0), textures.MARBLE, (0.80, 90.0, 0.04)),
        (SPHERE, 0.0, 0.0, (-0.10, -0.52, 0.65), (0.30, 0.0, 0.0), textures.COPPER, (0.90, 160.0, 0.30)),
        (TORUS, 0.45, 0.0, (-0.52, 0.38, 1.13), (0.30, 0.10, 0.0), textures.TORUS, (0.60, 70.0, 0.0)),
        (CYLINDER, 0.0, 0.0, (0.72, -0.52, 0.81), (0.15, 0.46, 0.0), textures.COLUMN, (0.25, 40.0, 0.0)),
        (SPHERE, 0.5, 0.4, (0.72, -0.52, 1.43), (0.16, 0.0, 0.0), textures.BALL, (0.70, 70.0, 0.0)),
        (SPHERE, 1.1, 0.9, (-0.78, -0.42, 0.51), (0.16, 0.0, 0.0), textures.BALL, (0.70, 70.0, 0.0)),
    ]
    shapes, yaws, tilts, centres, sizes, surfaces, finishes = zip(*rows, strict=True)
    rotations = np.stack([_turned(yaw, tilt) for yaw, tilt in zip(yaws, tilts, strict=True)])
    return Solids(
        np.array(shapes),
        rotations,
        np.array(centres),
        np.array(sizes),
        np.array(surfaces),
        np.array(finishes),
    )


def orbit(views: int, rng: np.random.Generator) -> np.ndarray:
    """Make the poses of a hand-held walk: two turns around the middle, rising and sinking, near and far.

    Args:
        views: number of poses V.
        rng: source of the hand's tremor.

    Returns:
        Camera-to-world matrices in the OpenGL convention, float64 [V, 4, 4].
    """
    time = np.arange(views) / views
    azimuth = 4.0 * math.pi * time + rng.normal(0.0, 0.03, views)
    radius = 2.70 + 0.30 * np.sin(6.0 * math.pi * time) + rng.normal(0.0, 0.03, views)
    heights = 1.45 + 0.40 * np.sin(2.0 * math.pi * time) + 0.2 * np.sin(10.0 * math.pi * time)
    heights += rng.normal(0.0, 0.03, views)
    positions = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), heights], axis=1)
    back = positions - (_MIDDLE + rng.normal(0.0, 0.05, (views, 3)))
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0]) + rng.normal(0.0, 0.02, (views, 3))
    right = np.cross(up, back)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (views, 1, 1))
    poses[:, :3] = np.stack([right, np.cross(back, right), back, positions], axis=2)
    return poses


def _photograph(solids: Solids, poses: np.ndarray, focal: float, width: int, height: int) -> np.ndarray:
    """Return the pictures [V, height, width, 3] that a camera takes at the poses, uint8."""

    def take(pose: np.ndarray) -> np.ndarray:
        return np.round(255.0 * trace_image(solids, pose, focal, width, height, _SAMPLES)).astype(np.uint8)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(take, poses)))


def _write(folder: Path, capture: Capture, points: np.ndarray, colours: np.ndarray, parameters: dict) -> None:
    """Write a capture and its points into an empty folder, in nerfstudio's format."""
    _, height, width, _ = capture.images.shape
    (folder / "images").mkdir()
    frames = []
    for number, (pose, image) in enumerate(zip(capture.poses, capture.images, strict=True), start=1):
        name = f"images/{number:04d}.png"
        Image.fromarray(image).save(folder / name)
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
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
    }
    (folder / "transforms.json").write_text(json.dumps(meta, indent=2))


def _parameters_of(folder: Path) -> dict | None:
    """Return what the demo scene in a folder was made with, None when it holds no demo scene."""
    try:
        return json.loads((folder / "transforms.json").read_text()).get("demo_scene")
    except (OSError, ValueError, AttributeError):
        return None


def make_scene(
    folder: Path, views: int = 48, width: int = 320, height: int = 240, points: int = 5000, seed: int = 0
) -> Path:
    """Make the demo's scene, or take it again when the folder already holds it.

    The scene is made in a folder beside and renamed, so that it is whole or not there. A demo scene with
    other parameters is replaced.

    Args:
        folder: where the scene is to be: images/, transforms.json and sparse_pc.ply.
        views: number of pictures; nerfstudio's interval split holds out every n-th of them.
        width: of a picture, pixels.
        height: of a picture, pixels.
        points: number of points as structure from motion would find them.
        seed: of the walk and of the points; the same seed gives the same scene.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder holds something else than a demo scene.
        ValueError: too few views or pixels for that many points.
    """
    folder = Path(folder)
    parameters = {
        "recipe": RECIPE,
        "views": views,
        "width": width,
        "height": height,
        "points": points,
        "seed": seed,
    }
    found = _parameters_of(folder)
    if found == parameters:
        return folder
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something else than a demo scene; name another folder or remove it.")
    rng = np.random.default_rng(seed)
    solids, poses = still_life(), orbit(views, rng)
    focal = 0.5 * width / math.tan(0.5 * _FIELD_OF_VIEW)
    capture = Capture(poses, _photograph(solids, poses, focal, width, height), focal)
    positions, colours = find_points(solids, capture, points, rng)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        fresh = Path(beside) / folder.name
        fresh.mkdir()
        _write(fresh, capture, positions, colours, parameters)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    return folder
