"""The layouts of the demo scenes: the solids, and the camera path through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from distilled_splat.demo import textures
from distilled_splat.demo.tracer import BOX, CYLINDER, SPHERE, TORUS, Solids

_MIDDLE = np.array([0.0, 0.0, 0.62])
_MATTE = (0.05, 20.0, 0.0)
_GLAZED = (0.60, 70.0, 0.0)


class Layout(NamedTuple):
    """The layout of one scene.

    Attributes:
        solids: returns the solids, the enclosing room first.
        walk: returns a number of camera-to-world matrices [V, 4, 4] in the OpenGL convention.
        cut_out: whether the room is transparent in the pictures. It lights the solids in any case.
    """

    solids: Callable[[], Solids]
    walk: Callable[[int, np.random.Generator], np.ndarray]
    cut_out: bool = False

    def surfaces(self) -> Solids:
        """Return the visible solids."""
        solids = self.solids()
        return Solids(*(column[1:] for column in solids)) if self.cut_out else solids


def _turned(yaw: float, tilt: float) -> np.ndarray:
    """Return the rotation [3, 3] by a tilt about x and then a yaw about z, in radians."""
    c, s, a, b = math.cos(yaw), math.sin(yaw), math.cos(tilt), math.sin(tilt)
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, a, -b], [0.0, b, a]])
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ about_x


def _solids(rows: Sequence[tuple]) -> Solids:
    """Return solids from rows of (shape, yaw, tilt, centre, size, texture, finish)."""
    shapes, yaws, tilts, centres, sizes, surfaces, finishes = zip(*rows, strict=True)
    rotations = np.stack([_turned(yaw, tilt) for yaw, tilt in zip(yaws, tilts, strict=True)])
    return Solids(
        np.array(shapes), rotations, np.array(centres), np.array(sizes), np.array(surfaces), np.array(finishes)
    )


def _looking(positions: np.ndarray, backs: np.ndarray, ups: np.ndarray) -> np.ndarray:
    """Return the poses [V, 4, 4] of cameras at `positions`, with z axes along `backs` and y axes near `ups`, [V, 3]."""
    backs = backs / np.linalg.norm(backs, axis=1, keepdims=True)
    right = np.cross(ups, backs)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3] = np.stack([right, np.cross(backs, right), backs, positions], axis=2)
    return poses


def still_life() -> Solids:
    """Return the still life: a room, and objects on a plinth in its middle. z is up, and the floor is at z = 0."""
    return _solids([
        (BOX, 0.0, 0.0, (0.0, 0.0, 1.6), (3.6, 3.6, 1.6), textures.ROOM, (0.0, 1.0, 0.0)),
        (CYLINDER, 0.0, 0.0, (0.0, 0.0, 0.175), (1.35, 0.175, 0.0), textures.PLINTH, (0.10, 40.0, 0.0)),
        (BOX, 0.45, 0.0, (-0.52, 0.38, 0.69), (0.34, 0.34, 0.34), textures.CRATE, _MATTE),
        (SPHERE, 0.3, 0.0, (0.52, 0.30, 0.77), (0.42, 0.0, 0.0), textures.MARBLE, (0.80, 90.0, 0.04)),
        (SPHERE, 0.0, 0.0, (-0.10, -0.52, 0.65), (0.30, 0.0, 0.0), textures.COPPER, (0.90, 160.0, 0.30)),
        (TORUS, 0.45, 0.0, (-0.52, 0.38, 1.13), (0.30, 0.10, 0.0), textures.TORUS, _GLAZED),
        (CYLINDER, 0.0, 0.0, (0.72, -0.52, 0.81), (0.15, 0.46, 0.0), textures.COLUMN, (0.25, 40.0, 0.0)),
        (SPHERE, 0.5, 0.4, (0.72, -0.52, 1.43), (0.16, 0.0, 0.0), textures.BALL, (0.70, 70.0, 0.0)),
        (SPHERE, 1.1, 0.9, (-0.78, -0.42, 0.51), (0.16, 0.0, 0.0), textures.BALL, (0.70, 70.0, 0.0)),
    ])  # fmt: skip


def orbit(views: int, rng: np.random.Generator) -> np.ndarray:
    """Return the poses of a hand-held camera: two turns around the middle at changing heights and distances.

    Args:
        views: number of poses V.
        rng: random numbers for the shake of the hand.

    Returns:
        Camera-to-world matrices in the OpenGL convention, float64 [V, 4, 4].
    """
    time = np.arange(views) / views
    azimuth = 4.0 * math.pi * time + rng.normal(0.0, 0.03, views)
    radius = 2.70 + 0.30 * np.sin(6.0 * math.pi * time) + rng.normal(0.0, 0.03, views)
    heights = 1.45 + 0.40 * np.sin(2.0 * math.pi * time) + 0.2 * np.sin(10.0 * math.pi * time)
    heights += rng.normal(0.0, 0.03, views)
    positions = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), heights], axis=1)
    backs = positions - (_MIDDLE + rng.normal(0.0, 0.05, (views, 3)))
    return _looking(positions, backs, np.array([0.0, 0.0, 1.0]) + rng.normal(0.0, 0.02, (views, 3)))


def tower() -> Solids:
    """Return a room with a tower in its middle: crates on top of each other, a column through a ring, and balls."""
    return _solids([
        (BOX, 0.0, 0.0, (0.0, 0.0, 1.6), (3.6, 3.6, 1.6), textures.ROOM, (0.0, 1.0, 0.0)),
        (CYLINDER, 0.3, 0.0, (0.0, 0.0, 0.175), (0.85, 0.175, 0.0), textures.PLINTH, (0.10, 40.0, 0.0)),
        (BOX, 0.2, 0.0, (0.0, 0.10, 0.69), (0.34, 0.34, 0.34), textures.CRATE, _MATTE),
        (BOX, 0.9, 0.0, (0.05, 0.05, 1.37), (0.34, 0.34, 0.34), textures.CRATE, _MATTE),
        (CYLINDER, 0.0, 0.0, (0.05, 0.05, 2.01), (0.15, 0.30, 0.0), textures.COLUMN, (0.25, 40.0, 0.0)),
        (TORUS, 0.0, 0.35, (0.05, 0.05, 1.95), (0.30, 0.10, 0.0), textures.TORUS, _GLAZED),
        (SPHERE, 0.7, 0.2, (0.55, 0.10, 0.57), (0.22, 0.0, 0.0), textures.BALL, _MATTE),
        (SPHERE, 0.0, 0.5, (-0.10, -0.56, 0.57), (0.22, 0.0, 0.0), textures.MARBLE, (0.80, 90.0, 0.0)),
        (CYLINDER, 0.0, 1.2, (-0.52, 0.10, 0.62), (0.10, 0.40, 0.0), textures.COLUMN, _MATTE),
    ])  # fmt: skip


def dome(views: int, rng: np.random.Generator) -> np.ndarray:
    """Return poses on a dome around the tower: three turns from low to high; see `orbit`."""
    time = (np.arange(views) + 0.5) / views
    azimuth = 6.0 * math.pi * time + rng.normal(0.0, 0.03, views)
    elevation = 0.02 + 0.50 * time + 0.10 * np.sin(14.0 * math.pi * time) + rng.normal(0.0, 0.02, views)
    radius = 3.2 + rng.normal(0.0, 0.05, views)
    around, middle = radius * np.cos(elevation), np.array([0.0, 0.0, 1.10])
    positions = np.stack([around * np.cos(azimuth), around * np.sin(azimuth), 0.9 + radius * np.sin(elevation)], axis=1)
    backs = positions - (middle + rng.normal(0.0, 0.05, (views, 3)))
    return _looking(positions, backs, np.array([0.0, 0.0, 1.0]) + rng.normal(0.0, 0.02, (views, 3)))


def hall() -> Solids:
    """Return a long room with objects along its walls."""
    rows: list[tuple] = [
        (BOX, 0.0, 0.0, (0.0, 0.0, 1.6), (2.0, 5.0, 1.6), textures.ROOM, (0.0, 1.0, 0.0)),
    ]
    for place, along in enumerate(np.linspace(-4.2, 4.2, 7)):
        side = 1.0 if place % 2 else -1.0
        rows += [
            (BOX, 0.4 * place, 0.0, (1.35 * side, along, 0.34), (0.34, 0.34, 0.34), textures.CRATE, _MATTE),
            (CYLINDER, 0.5, 0.0, (-1.5 * side, along, 0.46), (0.15, 0.46, 0.0), textures.COLUMN, _MATTE),
            (SPHERE, 0.3 * place, 0.4, (-1.5 * side, along, 1.08), (0.16, 0.0, 0.0), textures.BALL, _GLAZED),
        ]
        top = (1.35 * side, along, 0.78)
        if place % 3 == 0:
            rows.append((TORUS, 0.0, 0.0, top, (0.30, 0.10, 0.0), textures.TORUS, _GLAZED))
        elif place % 3 == 1:
            rows.append((SPHERE, 0.0, 0.6, (*top[:2], 0.90), (0.22, 0.0, 0.0), textures.MARBLE, (0.80, 90.0, 0.0)))
    return _solids(rows)


def passage(views: int, rng: np.random.Generator) -> np.ndarray:
    """Return the poses of a walk along the hall and back, looking ahead and to both sides; see `orbit`."""
    time = np.arange(views) / views
    along = -3.9 * np.cos(2.0 * math.pi * time) + rng.normal(0.0, 0.03, views)
    aside = 0.45 * np.sin(6.0 * math.pi * time) + rng.normal(0.0, 0.03, views)
    heights = 1.5 + 0.2 * np.sin(4.0 * math.pi * time) + rng.normal(0.0, 0.03, views)
    ahead = np.where(time < 0.5, 1.0, -1.0)
    swing = 0.9 * np.sin(10.0 * math.pi * time) + rng.normal(0.0, 0.03, views)
    looks = np.stack([np.sin(swing), ahead * np.cos(swing), np.full(views, -0.25)], axis=1)
    ups = np.array([0.0, 0.0, 1.0]) + rng.normal(0.0, 0.02, (views, 3))
    return _looking(np.stack([aside, along, heights], axis=1), -looks, ups)


LAYOUTS = {
    "still-life": Layout(still_life, orbit),
    "tower": Layout(tower, dome, cut_out=True),
    "hall": Layout(hall, passage),
}
"""All layouts by name: objects in a room, an object without background, and a walk through a long room."""
