"""A small ray tracer: textured solids in a room under one lamp, with soft shadows, highlights and mirrors.

It shares no code with Gaussian splatting, so its pictures are an independent test of the training. The room is a box
seen from inside, because normals always face the ray. The first solid encloses all others and casts no shadow.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from distilled_splat.demo.textures import albedo, compiled

SPHERE, BOX, CYLINDER, TORUS = range(4)
_NEAREST = 1e-4
_LAMP = (0.9, -0.7, 2.9)
_LAMP_HALF_WIDTH = 0.28
_MAX_MARCH_STEPS = 128


class Solids(NamedTuple):
    """The solids of a scene, one row each, the enclosing room first.

    Attributes:
        shapes: SPHERE, BOX, CYLINDER or TORUS, int64 [N].
        rotations: solid-to-world rotation matrices, float64 [N, 3, 3].
        centres: world positions, metres, float64 [N, 3].
        sizes: metres, float64 [N, 3]: half extents of a box; radius of a sphere; radius and half height of a
            cylinder (its axis is z); radius of a torus's ring (around z) and of its tube; zeros for the rest.
        textures: numbers of distilled_splat.demo.textures, int64 [N].
        finishes: strength and exponent of the highlight, and the mirrored fraction of light, float64 [N, 3].
    """

    shapes: np.ndarray
    rotations: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    textures: np.ndarray
    finishes: np.ndarray


@compiled
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def _along(o, d, t):
    return (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])


@compiled
def _unit(a):
    return _along((0.0, 0.0, 0.0), a, 1.0 / math.sqrt(_dot(a, a)))


@compiled
def _row(table, i):
    """Return row i of a table [N, 3] as a tuple, which is faster in a kernel than a view."""
    return (table[i, 0], table[i, 1], table[i, 2])


@compiled
def _difference(a, b):
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


@compiled
def _to_solid(rotations, i, v):
    """Return the transpose of rotation i times v."""
    return (
        rotations[i, 0, 0] * v[0] + rotations[i, 1, 0] * v[1] + rotations[i, 2, 0] * v[2],
        rotations[i, 0, 1] * v[0] + rotations[i, 1, 1] * v[1] + rotations[i, 2, 1] * v[2],
        rotations[i, 0, 2] * v[0] + rotations[i, 1, 2] * v[1] + rotations[i, 2, 2] * v[2],
    )


@compiled
def _to_world(rotations, i, v):
    """Return rotation i times v."""
    return (
        rotations[i, 0, 0] * v[0] + rotations[i, 0, 1] * v[1] + rotations[i, 0, 2] * v[2],
        rotations[i, 1, 0] * v[0] + rotations[i, 1, 1] * v[1] + rotations[i, 1, 2] * v[2],
        rotations[i, 2, 0] * v[0] + rotations[i, 2, 1] * v[1] + rotations[i, 2, 2] * v[2],
    )


@compiled
def _slab(o, d, half):
    """Return where a ray enters and leaves |x| <= half along one axis."""
    if abs(d) < 1e-12:
        return (-math.inf, math.inf) if abs(o) <= half else (math.inf, -math.inf)
    a, b = (-half - o) / d, (half - o) / d
    return (a, b) if a < b else (b, a)


@compiled
def _quadratic(a, b, c):
    """Return the interval where a t^2 + 2 b t + c <= 0 for a >= 0."""
    if a < 1e-12:
        return (-math.inf, math.inf) if c <= 0.0 else (math.inf, -math.inf)
    discriminant = b * b - a * c
    if discriminant < 0.0:
        return (math.inf, -math.inf)
    root = math.sqrt(discriminant)
    return ((-b - root) / a, (-b + root) / a)


@compiled
def _march_torus(o, d, ring, tube):
    """Return the distance to a torus by stepping along its signed distance, infinity for a miss."""
    near, far = _quadratic(1.0, _dot(o, d), _dot(o, o) - (ring + tube) ** 2)
    near = max(near, _NEAREST)
    for _ in range(_MAX_MARCH_STEPS):
        if near > far:
            return math.inf
        p = _along(o, d, near)
        gap = math.hypot(math.hypot(p[0], p[1]) - ring, p[2]) - tube
        if gap < 1e-6:
            return near
        near += gap
    return math.inf


@compiled
def _hit(shape, size, o, d):
    """Return the distance along a ray (in the solid's frame) to its surface, infinity for a miss."""
    if shape == TORUS:
        return _march_torus(o, d, size[0], size[1])
    if shape == SPHERE:
        near, far = _quadratic(1.0, _dot(o, d), _dot(o, o) - size[0] * size[0])
    elif shape == BOX:
        near, far = -math.inf, math.inf
        for axis in range(3):
            enters, leaves = _slab(o[axis], d[axis], size[axis])
            near, far = max(near, enters), min(far, leaves)
    else:
        near, far = _slab(o[2], d[2], size[1])
        around = o[0] * o[0] + o[1] * o[1] - size[0] * size[0]
        enters, leaves = _quadratic(d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], around)
        near, far = max(near, enters), min(far, leaves)
    distance = near if near > _NEAREST else far
    return distance if near <= far and distance > _NEAREST else math.inf


@compiled
def _normal(shape, size, p):
    """Return the outward unit normal at a point of the surface, in the solid's frame."""
    if shape == SPHERE:
        return _unit(p)
    radius = math.hypot(p[0], p[1])
    if shape == TORUS:
        share = 1.0 - size[0] / radius
        return _unit((p[0] * share, p[1] * share, p[2]))
    if shape == CYLINDER:
        if abs(p[2]) - size[1] > radius - size[0]:
            return (0.0, 0.0, math.copysign(1.0, p[2]))
        return (p[0] / radius, p[1] / radius, 0.0)
    x, y, z = abs(p[0]) - size[0], abs(p[1]) - size[1], abs(p[2]) - size[2]
    if x >= y and x >= z:
        return (math.copysign(1.0, p[0]), 0.0, 0.0)
    return (0.0, math.copysign(1.0, p[1]), 0.0) if y >= z else (0.0, 0.0, math.copysign(1.0, p[2]))


@compiled
def _distance(solids, i, o, d):
    """Return the distance along a world ray to the surface of solid i; infinite for a miss."""
    offset, size = _difference(o, _row(solids.centres, i)), _row(solids.sizes, i)
    bound = size[0] + size[1] + size[2]
    outside, ahead = _dot(offset, offset) - bound * bound, -_dot(offset, d)
    if outside > 0.0 and (ahead < 0.0 or ahead * ahead < outside):
        return math.inf
    offset, d = _to_solid(solids.rotations, i, offset), _to_solid(solids.rotations, i, d)
    return _hit(solids.shapes[i], size, offset, d)


@compiled
def _nearest(solids, o, d):
    """Return the distance to the nearest surface along a world ray, and the row of its solid; -1 without a hit."""
    nearest, solid = math.inf, -1
    for i in range(len(solids.shapes)):
        t = _distance(solids, i, o, d)
        if t < nearest:
            nearest, solid = t, i
    return nearest, solid


@compiled
def _is_shadowed(solids, o, d, reach):
    """Return whether a world ray hits any solid except the room within `reach`."""
    for i in range(1, len(solids.shapes)):  # noqa: SIM110 - Numba compiles no generator expression
        if _distance(solids, i, o, d) < reach:
            return True
    return False


@compiled
def _openness(solids, solid, p, n):
    """Return the fraction of ambient light that reaches a point, with other solids approximated by spheres."""
    share = 1.0
    for i in range(1, len(solids.shapes)):
        if i != solid and solids.shapes[i] != TORUS:
            to = _difference(_row(solids.centres, i), p)
            radius = min(solids.sizes[i, 0], 0.4)
            squared = max(_dot(to, to), radius * radius)
            share *= 1.0 - max(0.0, _dot(to, n)) * radius * radius / (squared * math.sqrt(squared))
    return share


@compiled
def _radiance(solids, o, d, lamp_u, lamp_v):
    """Return the light from direction d at o, with at most one mirror reflection; lamp_u and lamp_v in [-1, 1]."""
    light, weight = (0.0, 0.0, 0.0), 1.0
    for bounce in range(2):
        t, solid = _nearest(solids, o, d)
        if solid < 0:
            break
        p = _along(o, d, t)
        inside = _to_solid(solids.rotations, solid, _difference(p, _row(solids.centres, solid)))
        outward = _normal(solids.shapes[solid], _row(solids.sizes, solid), inside)
        colour = albedo(solids.textures[solid], inside, outward)
        n = _to_world(solids.rotations, solid, outward)
        if _dot(n, d) > 0.0:
            n = (-n[0], -n[1], -n[2])
        p = _along(p, n, 1e-3)
        lamp = (
            _LAMP[0] + lamp_u * _LAMP_HALF_WIDTH - p[0],
            _LAMP[1] + lamp_v * _LAMP_HALF_WIDTH - p[1],
            _LAMP[2] - p[2],
        )
        reach = math.sqrt(_dot(lamp, lamp))
        to_lamp = _along((0.0, 0.0, 0.0), lamp, 1.0 / reach)
        diffuse, highlight = 0.0, 0.0
        facing = _dot(n, to_lamp)
        if facing > 0.0 and not _is_shadowed(solids, p, to_lamp, reach):
            falloff = 7.5 / (1.5 + reach * reach)
            half = _unit((to_lamp[0] - d[0], to_lamp[1] - d[1], to_lamp[2] - d[2]))
            diffuse = falloff * facing
            strength, exponent = solids.finishes[solid, 0], solids.finishes[solid, 1]
            highlight = falloff * strength * max(_dot(n, half), 0.0) ** exponent
        ambient = (0.30 + 0.10 * n[2]) * _openness(solids, solid, p, n)
        mirrored = solids.finishes[solid, 2] if bounce == 0 else 0.0
        if mirrored > 0.0:
            mirrored += (1.0 - mirrored) * (1.0 + _dot(n, d)) ** 5
        kept = weight * (1.0 - mirrored)
        light = (
            light[0] + kept * (colour[0] * (1.04 * diffuse + 0.94 * ambient) + highlight),
            light[1] + kept * (colour[1] * (0.99 * diffuse + 0.98 * ambient) + 0.96 * highlight),
            light[2] + kept * (colour[2] * (0.90 * diffuse + 1.08 * ambient) + 0.88 * highlight),
        )
        if mirrored == 0.0:
            break
        weight *= mirrored
        o, d = p, _along(d, n, -2.0 * _dot(n, d))
    return light


@compiled
def first_hits(solids, origins, directions):
    """Return the distance to the first surface along each ray.

    Args:
        solids: the scene.
        origins: world positions, metres, float64 [R, 3].
        directions: unit world directions, float64 [R, 3].

    Returns:
        Distances in metres, float64 [R]; infinite without a hit.
    """
    distances = np.empty(len(origins))
    for ray in range(len(origins)):
        distances[ray] = _nearest(solids, _row(origins, ray), _row(directions, ray))[0]
    return distances


@compiled
def trace_image(solids, camera_to_world, focal, width, height, samples, cut_out):
    """Render one pinhole picture with its principal point in the middle.

    Args:
        solids: the scene.
        camera_to_world: pose in the OpenGL convention (x right, y up, looking along -z), float64 [4, 4].
        focal: focal length, pixels.
        width: pixels.
        height: pixels.
        samples: side of the square grid of rays in each pixel; the lamp is sampled by the same grid.
        cut_out: whether the room is transparent.

    Returns:
        sRGB-like picture in [0, 1] with alpha (the fraction of rays that hit a solid), float64 [height, width, 4].
    """
    picture = np.zeros((height, width, 4))
    rotation = np.expand_dims(camera_to_world, 0)
    o = (camera_to_world[0, 3], camera_to_world[1, 3], camera_to_world[2, 3])
    for row in range(height):
        for column in range(width):
            total, met = (0.0, 0.0, 0.0), 0
            for sample in range(samples * samples):
                u, v = (sample % samples + 0.5) / samples, (sample // samples + 0.5) / samples
                ray = ((column + u - 0.5 * width) / focal, (0.5 * height - row - v) / focal, -1.0)
                d = _unit(_to_world(rotation, 0, ray))
                if cut_out and _nearest(solids, o, d)[1] <= 0:
                    continue
                met += 1
                light = _radiance(solids, o, d, 2.0 * v - 1.0, 2.0 * u - 1.0)
                total = _along(total, (min(light[0], 1.0), min(light[1], 1.0), min(light[2], 1.0)), 1.0)
            picture[row, column, 3] = met / (samples * samples)
            for channel in range(3):
                picture[row, column, channel] = (total[channel] / max(met, 1)) ** (1.0 / 2.2)
    return picture
