"""Geometry of LANES Gaussians at once: three-vectors are tuples of SIMD vectors, matrices are tuples of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from distilled_splat.cpu.simd import maximum, minimum, select, square_root
from distilled_splat.cpu.simd_memory import gather, scatter

_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@njit(nogil=True)
def load3(array: Any, first: int, count: int) -> Any:
    at = 3 * first
    return gather(array, at, 3, count), gather(array, at + 1, 3, count), gather(array, at + 2, 3, count)


@njit(nogil=True)
def store3(array: Any, first: int, count: int, v: Any, visible: Any, accumulate: bool) -> None:
    """Write three columns, zero where not visible, or add them to what is there."""
    for column in range(3):
        store_column(array, 3 * first + column, 3, count, v[column], visible, accumulate)


@njit(nogil=True)
def store_column(array: Any, at: int, stride: int, count: int, value: Any, visible: Any, accumulate: bool) -> None:
    value = select(visible, value, _ZERO)
    if accumulate:
        value = value + gather(array, at, stride, count)
    scatter(array, at, stride, count, value)


@njit(nogil=True)
def dot(a: Any, b: Any) -> Any:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(nogil=True)
def scaled(a: Any, factor: Any) -> Any:
    return a[0] * factor, a[1] * factor, a[2] * factor


@njit(nogil=True)
def times(a: Any, b: Any) -> Any:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@njit(nogil=True)
def combined(a: Any, f: Any, b: Any, g: Any) -> Any:
    return a[0] * f + b[0] * g, a[1] * f + b[1] * g, a[2] * f + b[2] * g


@njit(nogil=True)
def combine_rows(a: Any, b: Any, c: Any, rows: Any) -> Any:
    """Give a * rows[0] + b * rows[1] + c * rows[2]."""
    x, y, z = rows
    return a * x[0] + b * y[0] + c * z[0], a * x[1] + b * y[1] + c * z[1], a * x[2] + b * y[2] + c * z[2]


@njit(nogil=True)
def to_camera(mean: Any, camera: Any) -> Any:
    return (
        camera[0] * mean[0] + camera[1] * mean[1] + camera[2] * mean[2] + camera[9],
        camera[3] * mean[0] + camera[4] * mean[1] + camera[5] * mean[2] + camera[10],
        camera[6] * mean[0] + camera[7] * mean[1] + camera[8] * mean[2] + camera[11],
    )


@njit(nogil=True)
def load_quaternions(quats: Any, first: int, count: int) -> Any:
    """Give normalised quaternions (w, x, y, z) and one over their norms."""
    at = 4 * first
    w, x = gather(quats, at, 4, count), gather(quats, at + 1, 4, count)
    y, z = gather(quats, at + 2, 4, count), gather(quats, at + 3, 4, count)
    inverse_norm = _ONE / square_root(w * w + x * x + y * y + z * z)
    return (w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm), inverse_norm


@njit(nogil=True)
def rotation_rows(q: Any) -> Any:
    w, x, y, z = q
    return (
        (_ONE - _TWO * (y * y + z * z), _TWO * (x * y - w * z), _TWO * (x * z + w * y)),
        (_TWO * (x * y + w * z), _ONE - _TWO * (x * x + z * z), _TWO * (y * z - w * x)),
        (_TWO * (x * z - w * y), _TWO * (y * z + w * x), _ONE - _TWO * (x * x + y * y)),
    )


@njit(nogil=True)
def to_camera_axes(rotation: Any, camera: Any) -> Any:
    """Give the rows of R(view) R(quat)."""
    return (
        combine_rows(camera[0], camera[1], camera[2], rotation),
        combine_rows(camera[3], camera[4], camera[5], rotation),
        combine_rows(camera[6], camera[7], camera[8], rotation),
    )


@njit(nogil=True)
def image_axes(position: Any, axes: Any, scales: Any, camera: Any) -> Any:
    """Give 1 / z, the slopes x / z and y / z clamped to the field of view, the last row of M, and the rows of U."""
    inverse_z = _ONE / position[2]
    slope_x = minimum(maximum(position[0] * inverse_z, -camera[19]), camera[18])
    slope_y = minimum(maximum(position[1] * inverse_z, -camera[21]), camera[20])
    m2 = times(axes[2], scales)
    fx, fy = camera[12] * inverse_z, camera[13] * inverse_z
    u0 = combined(times(axes[0], scales), fx, m2, _ZERO - fx * slope_x)
    u1 = combined(times(axes[1], scales), fy, m2, _ZERO - fy * slope_y)
    return inverse_z, slope_x, slope_y, m2, u0, u1


@njit(nogil=True)
def determinants(u0: Any, u1: Any, xx: Any, yy: Any, eps2d: Any) -> Any:
    """Give the determinants of U U^T and of U U^T + eps2d I.

    The first is the squared length of u0 x u1, which stays exact for a needle where xx yy - xy^2 cancels.
    """
    a = u0[1] * u1[2] - u0[2] * u1[1]
    b = u0[2] * u1[0] - u0[0] * u1[2]
    c = u0[0] * u1[1] - u0[1] * u1[0]
    sharp = a * a + b * b + c * c
    return sharp, sharp + eps2d * (xx + yy) + eps2d * eps2d


@njit(nogil=True)
def covariance_gradient(
    conics: Any,
    v_conics: Any,
    compensations: Any,
    v_compensations: Any,
    first: int,
    count: int,
    antialiased: bool,
    covariance: Any,
    determinant: Any,
    eps2d: Any,
) -> Any:
    """Give the gradient with respect to xx, xy, yy of the covariance from those of conic and compensation.

    d conic = -conic d covariance conic; compensation^2 is the ratio of the determinants without and with blur.
    """
    a, b, c = load3(conics, first, count)
    v_a, v_b, v_c = load3(v_conics, first, count)
    v_b = v_b * _HALF
    p, q, r, s = v_a * a + v_b * b, v_a * b + v_b * c, v_b * a + v_c * b, v_b * b + v_c * c
    v_xx = _ZERO - (a * p + b * r)
    v_xy = _ZERO - _TWO * (a * q + b * s)
    v_yy = _ZERO - (b * q + c * s)
    if antialiased:
        xx, xy, yy = covariance
        ratio = gather(compensations, first, 1, count)
        v_square = gather(v_compensations, first, 1, count) * _HALF / (ratio + np.float32(1e-6))
        ratio = ratio * ratio
        v_square = v_square / determinant
        v_xx = v_xx + v_square * (yy - ratio * (yy + eps2d))
        v_yy = v_yy + v_square * (xx - ratio * (xx + eps2d))
        v_xy = v_xy - v_square * _TWO * xy * (_ONE - ratio)
    return v_xx, v_xy, v_yy


@njit(nogil=True)
def quaternion_gradient(q: Any, inverse_norm: Any, v: Any) -> Any:
    """Give the gradient with respect to the quaternion as it was given, from that of its rotation's rows."""
    w, x, y, z = q
    v0, v1, v2 = v
    v_w = _TWO * (x * (v2[1] - v1[2]) + y * (v0[2] - v2[0]) + z * (v1[0] - v0[1]))
    v_x = _TWO * (y * (v0[1] + v1[0]) + z * (v0[2] + v2[0]) + w * (v2[1] - v1[2]) - _TWO * x * (v1[1] + v2[2]))
    v_y = _TWO * (x * (v0[1] + v1[0]) + z * (v1[2] + v2[1]) + w * (v0[2] - v2[0]) - _TWO * y * (v0[0] + v2[2]))
    v_z = _TWO * (x * (v0[2] + v2[0]) + y * (v1[2] + v2[1]) + w * (v1[0] - v0[1]) - _TWO * z * (v0[0] + v1[1]))
    along = v_w * w + v_x * x + v_y * y + v_z * z
    return (
        (v_w - along * w) * inverse_norm,
        (v_x - along * x) * inverse_norm,
        (v_y - along * y) * inverse_norm,
        (v_z - along * z) * inverse_norm,
    )


@njit(nogil=True)
def combine_columns(a: Any, f: Any, b: Any, g: Any, c: Any, h: Any) -> Any:
    """Give the elementwise a * f + b * g + c * h."""
    return (
        a[0] * f[0] + b[0] * g[0] + c[0] * h[0],
        a[1] * f[1] + b[1] * g[1] + c[1] * h[1],
        (a[2] * f[2] + b[2] * g[2] + c[2] * h[2]),
    )


@njit(nogil=True)
def to_world(v: Any, camera: Any) -> Any:
    """Turn a camera-space gradient into world space: the transposed rotation."""
    return (
        camera[0] * v[0] + camera[3] * v[1] + camera[6] * v[2],
        camera[1] * v[0] + camera[4] * v[1] + camera[7] * v[2],
        camera[2] * v[0] + camera[5] * v[1] + camera[8] * v[2],
    )


@njit(nogil=True)
def add_masked(total: Any, where: Any, v: Any) -> Any:
    return (
        total[0] + select(where, v[0], _ZERO),
        total[1] + select(where, v[1], _ZERO),
        total[2] + select(where, v[2], _ZERO),
    )


@njit(nogil=True)
def add_view_row(total: Any, where: Any, v_position: Any, mean: Any, v_axes: Any, rotation: Any) -> Any:
    """Add what the camera-space mean and axes of one row give to that row of the view rotation's gradient."""
    v_row = (
        v_position * mean[0] + dot(v_axes, rotation[0]),
        v_position * mean[1] + dot(v_axes, rotation[1]),
        v_position * mean[2] + dot(v_axes, rotation[2]),
    )
    return add_masked(total, where, v_row)
