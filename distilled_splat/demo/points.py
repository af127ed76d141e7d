"""A point cloud like that of structure from motion: textured points with the same colour in several pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distilled_splat.demo.tracer import Solids, first_hits

_MIN_OBSERVATIONS = 3
_MAX_COLOUR_SPREAD = 0.12
_FLAT_WEIGHT = 0.02
_NOISE = 0.003
_OUTLIER_SHARE = 0.01


class Capture(NamedTuple):
    """Posed pictures of one pinhole camera.

    Attributes:
        poses: camera-to-world matrices in the OpenGL convention, float64 [V, 4, 4].
        images: sRGB pictures, composited over black, uint8 [V, H, W, 3].
        focal: focal length, pixels; the principal point is the middle of the picture.
    """

    poses: np.ndarray
    images: np.ndarray
    focal: float


def project(
    points: np.ndarray, pose: np.ndarray, focal: float, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Project world points into a picture.

    Args:
        points: world positions [P, 3].
        pose: camera-to-world matrix in the OpenGL convention [4, 4].
        focal: focal length, pixels.
        width: pixels.
        height: pixels.

    Returns:
        Pixel coordinates [P, 2] (the first pixel's middle is 0.5, 0.5) and depths in metres [P], negative
        behind the camera.
    """
    seen = (points - pose[:3, 3]) @ pose[:3, :3]
    depths = -seen[:, 2]
    return seen[:, :2] * [focal, -focal] / depths[:, None] + [0.5 * width, 0.5 * height], depths


def ray_directions(pixels: np.ndarray, pose: np.ndarray, focal: float, width: int, height: int) -> np.ndarray:
    """Return the unit world directions [P, 3] of rays through pixel coordinates [P, 2]."""
    rays = np.ones((len(pixels), 3))
    rays[:, :2] = (pixels - [0.5 * width, 0.5 * height]) / [focal, -focal]
    rays[:, 2] = -1.0
    return rays / np.linalg.norm(rays, axis=1, keepdims=True) @ pose[:3, :3].T


def _candidates(solids: Solids, capture: Capture, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return surface points [P, 3] at `count` random pixels, preferably where the pictures have detail."""
    _, height, width, _ = capture.images.shape
    views = np.sort(rng.integers(len(capture.poses), size=count))
    points = np.empty((count, 3))
    for view in np.unique(views):
        chosen = views == view
        grey = capture.images[view].mean(axis=2) / 255.0
        detail = (np.hypot(*np.gradient(grey)) + _FLAT_WEIGHT).ravel()
        flat = rng.choice(detail.size, size=np.count_nonzero(chosen), p=detail / detail.sum())
        pixels = np.stack([flat % width, flat // width], axis=1) + 0.5
        pose = capture.poses[view]
        directions = ray_directions(pixels, pose, capture.focal, width, height)
        origins = np.tile(pose[:3, 3], (len(pixels), 1))
        points[chosen] = origins + first_hits(solids, origins, directions)[:, None] * directions
    return points[np.isfinite(points).all(axis=1)]  # some pixels of a cut-out picture show no surface


def _observe(solids: Solids, capture: Capture, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many pictures show each point, and mean and spread of its colour in them, in [0, 1]."""
    _, height, width, _ = capture.images.shape
    counts = np.zeros(len(points))
    sums, squares = np.zeros((len(points), 3)), np.zeros((len(points), 3))
    for pose, image in zip(capture.poses, capture.images, strict=True):
        pixels, depths = project(points, pose, capture.focal, width, height)
        inside = (depths > 0.0) & (pixels >= 0.0).all(axis=1) & (pixels < [width, height]).all(axis=1)
        framed = np.flatnonzero(inside)
        offsets = points[framed] - pose[:3, 3]
        distances = np.linalg.norm(offsets, axis=1)
        origins = np.tile(pose[:3, 3], (len(framed), 1))
        reached = first_hits(solids, origins, offsets / distances[:, None])
        seen = np.abs(reached - distances) < 1e-3 * distances
        columns, rows = pixels[framed[seen]].astype(int).T
        colours = image[rows, columns] / 255.0
        counts[framed[seen]] += 1
        sums[framed[seen]] += colours
        squares[framed[seen]] += colours**2
    means = sums / np.maximum(counts, 1)[:, None]
    variances = squares / np.maximum(counts, 1)[:, None] - means**2
    return counts, means, np.sqrt(np.maximum(variances, 0.0).mean(axis=1))


def find_points(
    solids: Solids, capture: Capture, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return points that structure from motion might find in a capture.

    Points are drawn where the pictures have detail. A point is kept if at least three pictures show it in about the
    same colour, which removes many points in mirrors and highlights. Positions are noisy, and one in a hundred is
    anywhere in the box of all points.

    Args:
        solids: the captured solids.
        capture: the posed pictures.
        count: number of points P.
        rng: random numbers for the points and the noise.

    Returns:
        World positions in metres, float32 [P, 3], and sRGB colours, uint8 [P, 3].

    Raises:
        ValueError: if too few points have the same colour in enough pictures.
    """
    places, colours = np.empty((0, 3)), np.empty((0, 3))
    for _ in range(20):
        drawn = _candidates(solids, capture, 2 * count, rng)
        counts, means, spreads = _observe(solids, capture, drawn)
        agreed = (counts >= _MIN_OBSERVATIONS) & (spreads < _MAX_COLOUR_SPREAD)
        places, colours = np.concatenate([places, drawn[agreed]]), np.concatenate([colours, means[agreed]])
        if len(places) >= count:
            break
    if len(places) < count:
        raise ValueError(
            f"Only {len(places)} of {count} points have the same colour in {_MIN_OBSERVATIONS} of "
            f"{len(capture.poses)} views: ask for fewer points or more views."
        )
    order = rng.permutation(len(places))[:count]
    places, colours = places[order], colours[order]
    outliers = rng.random(count) < _OUTLIER_SHARE
    low, high = places.min(axis=0), places.max(axis=0)
    places = places + rng.normal(0.0, _NOISE, places.shape)
    places[outliers] = rng.uniform(low, high, (np.count_nonzero(outliers), 3))
    return places.astype(np.float32), np.round(255.0 * colours).astype(np.uint8)
