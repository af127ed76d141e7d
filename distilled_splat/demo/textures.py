"""Procedural textures of the demo scenes: albedo as a function of a point on a solid, in the solid's frame.

Colours are linear RGB tuples in [0, 1]. All functions are pure, and compiled for the tracer's inner loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit


def compiled(function: Callable) -> Any:
    """Compile a function at its first call, and cache the machine code on disk if Numba finds a folder for it."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy")(function)


ROOM, PLINTH, CRATE, MARBLE, COPPER, TORUS, COLUMN, BALL = range(8)

_FONT = {
    "3": "####. ....# ....# .###. ....# ....# ####.",
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "D": "####. #...# #...# #...# #...# #...# ####.",
    "E": "##### #.... #.... ####. #.... #.... #####",
    "G": ".#### #.... #.... #..## #...# #...# .####",
    "I": ".###. ..#.. ..#.. ..#.. ..#.. ..#.. .###.",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "P": "####. #...# #...# ####. #.... #.... #....",
    "S": ".#### #.... #.... .###. ....# ....# ####.",
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    " ": "..... ..... ..... ..... ..... ..... .....",
}


def _lettering(text: str) -> np.ndarray:
    """Return text as a boolean bitmap [7, 6 * len(text)], with an empty column after each letter."""
    letters = [[[mark == "#" for mark in row + "."] for row in _FONT[letter].split()] for letter in text]
    return np.concatenate(np.array(letters), axis=1)


_BAND = _lettering("DISTILLED SPLAT  ")
_STENCIL = _lettering("3DGS")


@compiled
def _mix(a, b, t):
    t = min(max(t, 0.0), 1.0)
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


@compiled
def _scaled(colour, factor):
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


@compiled
def _hash(i, j, k):
    """Return a pseudorandom number in [0, 1) for three integers."""
    h = (i * 374761393 + j * 668265263 + k * 1440662683) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@compiled
def _noise(x, y, z):
    """Return value noise in [0, 1] with features about one unit wide."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v), w * w * (3.0 - 2.0 * w)
    total = 0.0
    for corner in range(8):
        a, b, c = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (u if a else 1.0 - u) * (v if b else 1.0 - v) * (w if c else 1.0 - w)
        total += weight * _hash(i + a, j + b, k + c)
    return total


@compiled
def _cloud(x, y, z):
    """Return three octaves of value noise, in [0, 1]."""
    middle, fine = _noise(2.03 * x, 2.03 * y, 2.03 * z), _noise(4.1 * x, 4.1 * y, 4.1 * z)
    return (4.0 * _noise(x, y, z) + 2.0 * middle + fine) / 7.0


@compiled
def _is_inked(bitmap, u, v):
    """Return whether (u, v), right and up in units of one bitmap cell, is on a set cell."""
    row, column = bitmap.shape[0] - 1 - math.floor(v), math.floor(u)
    return 0 <= row < bitmap.shape[0] and 0 <= column < bitmap.shape[1] and bitmap[row, column]


@compiled
def _planks(along, across, length, width):
    """Return wooden boards with grain, a tone per board, and dark joints; lengths in metres."""
    row = math.floor(across / width)
    shifted = along / length + 0.37 * row
    board = math.floor(shifted)
    edge = min(across / width - row, row + 1.0 - across / width) * width
    edge = min(edge, min(shifted - board, board + 1.0 - shifted) * length)
    tone = _hash(row, board, 7)
    grain = _cloud(3.0 * along, 45.0 * across + 9.0 * tone, 5.0 * tone)
    rings = 0.5 + 0.5 * math.sin(70.0 * across + 12.0 * _noise(2.0 * along, 6.0 * across, 31.0 * tone))
    colour = _mix((0.20, 0.085, 0.032), (0.56, 0.31, 0.135), 0.35 * tone + 0.5 * grain + 0.2 * rings)
    return _scaled(colour, 0.35 if edge < 0.006 else 1.0)


@compiled
def _painting(wall, u, v):
    """Return the painting on a wall; u, v in [-1, 1]."""
    if wall == 0:
        x, y, count = 1.55 * u, 1.1 * v, 0
        while count < 40 and x * x + y * y < 16.0:
            x, y, count = x * x - y * y - 0.79, 2.0 * x * y + 0.156, count + 1
        return _mix((0.02, 0.03, 0.16), (1.0, 0.72, 0.22), (count / 40.0) ** 0.6)
    if wall == 1:
        ripple = math.sin(26.0 * math.hypot(u + 0.25, v - 0.2) + 3.0 * math.sin(4.0 * u))
        return _mix((0.62, 0.04, 0.04), (0.93, 0.80, 0.62), 0.5 + 3.0 * ripple)
    if wall == 2:
        ridge = 0.9 * (_cloud(3.0 * u, 0.5, 2.0) - 0.4)
        hills = 0.9 * (_cloud(1.7 * u + 8.0, 4.5, 2.0) - 0.7)
        if v < hills:
            return _mix((0.01, 0.05, 0.04), (0.10, 0.24, 0.07), _cloud(9.0 * u, 9.0 * v, 1.0))
        if v < ridge:
            haze = 1.5 * (ridge - v) + 0.4 * _noise(14.0 * u, 9.0 * v, 0.0)
            return _mix((0.07, 0.09, 0.20), (0.55, 0.45, 0.50), haze)
        if math.hypot(u - 0.45, v - 0.55) < 0.17:
            return (1.0, 0.86, 0.55)
        dusk = 0.35 + 0.7 * v + 0.3 * _cloud(2.0 * u, 6.0 * v, 3.0)
        return _mix((0.95, 0.42, 0.16), (0.12, 0.22, 0.50), dusk)
    level = math.floor(2.5 * v)
    cell = _hash(math.floor(3.5 * u + 0.6 * level), level, 3)
    lines = min(abs(math.sin(11.0 * u + 4.0 * v)), abs(math.sin(3.0 * u - 9.0 * v)))
    colour = _mix((0.02, 0.14, 0.40), (0.90, 0.62, 0.05), 2.0 * cell)
    colour = _mix(colour, (0.90, 0.85, 0.76), 2.0 * cell - 1.0)
    return _scaled(colour, 0.12 if lines < 0.12 else 1.0)


@compiled
def _room(p, n):
    """Return boards on the floor; on the walls tiles below, and plaster with one painting above."""
    if abs(n[2]) > 0.5:
        return _planks(p[0], p[1], 1.4, 0.17) if p[2] < 0.0 else (0.8, 0.79, 0.76)
    wall = (0 if p[0] > 0.0 else 1) if abs(n[0]) > 0.5 else (2 if p[1] > 0.0 else 3)
    along, height = (p[1] if wall < 2 else p[0]), p[2] + 1.6
    if height < 0.12:
        return (0.72, 0.69, 0.63)
    if height < 0.85:
        i, j = math.floor(along / 0.15), math.floor((height - 0.1) / 0.15)
        u, v = along / 0.15 - i, (height - 0.1) / 0.15 - j
        if min(min(u, 1.0 - u), min(v, 1.0 - v)) < 0.045:
            return (0.62, 0.60, 0.55)
        tint = _hash(i, j, wall)
        glaze = tint + 0.3 * _noise(30.0 * along, 30.0 * height, 0.0) - 0.15
        return _mix((0.03, 0.13, 0.16), (0.22, 0.45, 0.42), glaze)
    if height < 0.92:
        return (0.30, 0.15, 0.06)
    u, v = along / 0.95, (height - 1.72) / 0.6
    border = max((abs(u) - 1.0) * 0.95, (abs(v) - 1.0) * 0.6)
    if border < 0.0:
        return _painting(wall, u, v)
    if border < 0.07:
        return _scaled((0.55, 0.36, 0.12), 0.75 + 0.5 * math.sin(140.0 * border) ** 2)
    plaster = _mix((0.66, 0.50, 0.30), (0.80, 0.68, 0.50), _cloud(2.2 * along, 2.2 * height, float(wall)))
    return _scaled(plaster, 0.9 + 0.2 * _noise(28.0 * along, 28.0 * height, float(wall)))


@compiled
def _plinth(p, n):
    """Return a mosaic of stones in rings on the top, and lettering around the side."""
    angle, radius = math.atan2(p[1], p[0]), math.hypot(p[0], p[1])
    if n[2] > 0.5:
        ring = math.floor(radius / 0.11)
        stones = max(1.0, math.floor(6.28 * (ring + 0.5) / 1.4))
        turn = (angle / (2.0 * math.pi) + 0.5) * stones
        stone = math.floor(turn)
        edge = min(radius / 0.11 - ring, ring + 1.0 - radius / 0.11) * 0.11
        edge = min(edge, min(turn - stone, stone + 1.0 - turn) * 6.28 * radius / stones)
        if edge < 0.008:
            return (0.10, 0.09, 0.08)
        tint = _hash(ring, stone, 5)
        bright = (0.84, 0.78, 0.66) if ring % 3 else (0.62, 0.20, 0.10)
        veins = 0.75 + 0.5 * _cloud(14.0 * p[0], 14.0 * p[1], 9.0 * tint)
        return _scaled(_mix(_scaled(bright, 0.6), bright, tint), veins)
    turn, height = (angle / (2.0 * math.pi) + 0.5) * 3.0, (p[2] + 0.175) / 0.35
    cells = _BAND.shape[1]
    stone = 0.8 + 0.4 * _cloud(9.0 * p[0], 9.0 * p[1], 9.0 * p[2])
    if height < 0.08 or height > 0.92:
        return _scaled((0.75, 0.56, 0.22), stone)
    is_letter = _is_inked(_BAND, (turn - math.floor(turn)) * cells, (height - 0.25) * 14.0)
    return _scaled((0.90, 0.83, 0.66) if is_letter else (0.06, 0.09, 0.16), stone)


@compiled
def _crate(p, n):
    """Return a wooden crate with a darker frame and stencilled letters; half extent 0.34."""
    if abs(n[0]) > 0.5:
        u, v = (p[1] if n[0] > 0.0 else -p[1]), p[2]
    elif abs(n[1]) > 0.5:
        u, v = (-p[0] if n[1] > 0.0 else p[0]), p[2]
    else:
        u, v = p[0], p[1]
    colour = _planks(u + 3.0 * n[0] + 5.0 * n[1], v + 0.34, 4.0, 0.136)
    reach = max(abs(u), abs(v))
    if reach > 0.275:
        nail = math.hypot(abs(u) - 0.307, abs(v) - 0.307) < 0.012
        return (0.03, 0.03, 0.035) if nail else _scaled(colour, 0.3 if reach < 0.283 else 0.62)
    if _is_inked(_STENCIL, (u + 0.23) / 0.02, (v + 0.07) / 0.02):
        return _mix(colour, (0.05, 0.015, 0.01), 0.75 + 0.25 * _noise(40.0 * u, 40.0 * v, 0.0))
    return _scaled(colour, 1.25)


@compiled
def _marble(p):
    """Return white veins in dark green stone."""
    vein = abs(math.sin(4.0 * p[0] + 3.0 * p[2] + 9.0 * _cloud(4.0 * p[0], 4.0 * p[1], 4.0 * p[2])))
    fine = abs(math.sin(9.0 * p[1] - 5.0 * p[0] + 14.0 * _cloud(7.0 * p[0] + 5.0, 7.0 * p[1], 7.0 * p[2])))
    stone = _mix((0.01, 0.09, 0.07), (0.05, 0.30, 0.20), _cloud(6.0 * p[0], 6.0 * p[1], 6.0 * p[2] + 40.0))
    return _mix(stone, (0.86, 0.90, 0.82), max(1.0 - vein / 0.22, 0.7 - fine / 0.2))


@compiled
def _torus(p):
    """Return a glazed zigzag around the ring."""
    turn = math.atan2(p[1], p[0]) / (2.0 * math.pi) + 0.5
    tube = math.atan2(p[2], math.hypot(p[0], p[1]) - 0.30) / (2.0 * math.pi) + 0.5
    zigzag = abs((turn * 18.0) % 1.0 - 0.5)
    band = math.floor(tube * 6.0 + zigzag) % 3
    speckle = 0.85 + 0.3 * _noise(60.0 * p[0], 60.0 * p[1], 60.0 * p[2])
    if band == 0:
        return _scaled((0.02, 0.20, 0.42), speckle)
    return _scaled((0.88, 0.83, 0.70) if band == 1 else (0.85, 0.42, 0.03), speckle)


@compiled
def _column(p):
    """Return a spiral of two colours between gilded rings."""
    turn = math.atan2(p[1], p[0]) / (2.0 * math.pi)
    if abs(p[2]) > 0.42:
        return _scaled((0.75, 0.52, 0.16), 0.8 + 0.3 * _noise(40.0 * p[0], 40.0 * p[1], 40.0 * p[2]))
    spiral = (2.0 * turn + 3.2 * p[2]) % 1.0
    speckle = 0.8 + 0.4 * _cloud(22.0 * p[0], 22.0 * p[1], 22.0 * p[2])
    if spiral < 0.06 or 0.5 < spiral < 0.56:
        return (0.05, 0.04, 0.04)
    return _scaled((0.60, 0.05, 0.05) if spiral < 0.5 else (0.86, 0.82, 0.74), speckle)


@compiled
def _ball(p):
    """Return a checkerboard in longitude and latitude."""
    column = math.floor(5.0 * math.atan2(p[1], p[0]) / math.pi)
    row = math.floor(5.0 * math.atan2(p[2], math.hypot(p[0], p[1])) / math.pi)
    return (0.92, 0.70, 0.04) if (column + row) % 2 else (0.04, 0.05, 0.22)


@compiled
def albedo(texture, p, n):
    """Return the diffuse colour of a solid at a point of its surface.

    Args:
        texture: a texture number of this module.
        p: point in the solid's own frame, metres, three floats.
        n: outward unit normal in the solid's own frame, three floats.

    Returns:
        Linear red, green, blue in [0, 1].
    """
    if texture == ROOM:
        return _room(p, n)
    if texture == PLINTH:
        return _plinth(p, n)
    if texture == CRATE:
        return _crate(p, n)
    if texture == MARBLE:
        return _marble(p)
    if texture == TORUS:
        return _torus(p)
    if texture == COLUMN:
        return _column(p)
    if texture == BALL:
        return _ball(p)
    return _scaled((0.62, 0.24, 0.09), 0.9 + 0.2 * _cloud(20.0 * p[0], 20.0 * p[1], 20.0 * p[2]))
