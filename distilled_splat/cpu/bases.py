"""The basis of real spherical harmonics up to degree 4, and its derivatives, for LANES directions at once.

The polynomials are those of Sloan, "Efficient Spherical Harmonic Evaluation" (JCGT 2013), in the order and with the
signs that 3D Gaussian splatting uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from distilled_splat.cpu.simd import LANES, splat
from distilled_splat.cpu.simd_memory import store

MAX_DEGREE = 4
MAX_BASES = (MAX_DEGREE + 1) ** 2
BY_X, BY_Y, BY_Z = (i * MAX_BASES * LANES for i in range(3))
"""Where the derivatives by x, y and z begin."""

_ZERO, _TWO, _THREE, _FOUR = (np.float32(i) for i in (0, 2, 3, 4))
C0 = np.float32(0.28209479177387814)
_C1 = np.float32(0.4886025119029199)
_C2A, _C2B, _C2C, _C2D = (
    np.float32(c) for c in (1.0925484305920792, 0.9461746957575601, 0.31539156525252005, 0.5462742152960396)
)
_C3A, _C3B, _C3C, _C3D, _C3E, _C3F = (
    np.float32(c)
    for c in (
        2.2852289973223288,
        0.4570457994644658,
        1.445305721320277,
        1.865881662950577,
        1.119528997770346,
        0.5900435899266435,
    )
)
_C4A, _C4B, _C4C, _C4D, _C4E, _C4F, _C4G, _C4H = (
    np.float32(c)
    for c in (
        4.683325804901025,
        2.007139630671868,
        3.31161143515146,
        0.47308734787878,
        1.770130769779931,
        1.984313483298443,
        1.006230589874905,
        0.6258357354491763,
    )
)


@njit(nogil=True)
def evaluate_bases(direction: Any, degree: int, bases: Any) -> None:
    """Write the (degree + 1)^2 basis functions at unit directions to the rows of `bases`."""
    x, y, z = direction
    store(bases, 0, splat(C0))
    if degree >= 1:
        store(bases, 1 * LANES, y * -_C1)
        store(bases, 2 * LANES, z * _C1)
        store(bases, 3 * LANES, x * -_C1)
    if degree >= 2:
        zz, c1, s1 = z * z, x * x - y * y, _TWO * x * y
        b6 = _C2B * zz - _C2C
        store(bases, 4 * LANES, _C2D * s1)
        store(bases, 5 * LANES, y * z * -_C2A)
        store(bases, 6 * LANES, b6)
        store(bases, 7 * LANES, x * z * -_C2A)
        store(bases, 8 * LANES, _C2D * c1)
        if degree >= 3:
            b12 = z * (_C3D * zz - _C3E)
            c2, s2 = x * c1 - y * s1, x * s1 + y * c1
            ring = _C3B - _C3A * zz
            store(bases, 9 * LANES, s2 * -_C3F)
            store(bases, 10 * LANES, _C3C * z * s1)
            store(bases, 11 * LANES, ring * y)
            store(bases, 12 * LANES, b12)
            store(bases, 13 * LANES, ring * x)
            store(bases, 14 * LANES, _C3C * z * c1)
            store(bases, 15 * LANES, c2 * -_C3F)
            if degree >= 4:
                c3, s3 = x * c2 - y * s2, x * s2 + y * c2
                ring1, ring2 = z * (_C4B - _C4A * zz), _C4C * zz - _C4D
                store(bases, 16 * LANES, _C4H * s3)
                store(bases, 17 * LANES, z * s2 * -_C4E)
                store(bases, 18 * LANES, ring2 * s1)
                store(bases, 19 * LANES, ring1 * y)
                store(bases, 20 * LANES, _C4F * z * b12 - _C4G * b6)
                store(bases, 21 * LANES, ring1 * x)
                store(bases, 22 * LANES, ring2 * c1)
                store(bases, 23 * LANES, z * c2 * -_C4E)
                store(bases, 24 * LANES, _C4H * c3)


@njit(nogil=True)
def evaluate_slopes(direction: Any, degree: int, slopes: Any) -> None:
    """Write the derivatives of the basis functions by x, y and z to the rows of `slopes`, where they are not 0.

    The recurrences c and s are the real and imaginary part of (x + i y)^m, whose derivatives are m times those of one
    power less: dc_m = m (c_{m-1} dx - s_{m-1} dy) and ds_m = m (s_{m-1} dx + c_{m-1} dy).
    """
    x, y, z = direction
    if degree >= 1:
        store(slopes, BY_Y + 1 * LANES, splat(-_C1))
        store(slopes, BY_Z + 2 * LANES, splat(_C1))
        store(slopes, BY_X + 3 * LANES, splat(-_C1))
    if degree >= 2:
        zz, c1, s1 = z * z, x * x - y * y, _TWO * x * y
        x2, y2 = _TWO * _C2D * x, _TWO * _C2D * y
        b6_z = _TWO * _C2B * z
        store(slopes, BY_X + 4 * LANES, y2)
        store(slopes, BY_Y + 4 * LANES, x2)
        store(slopes, BY_Y + 5 * LANES, z * -_C2A)
        store(slopes, BY_Z + 5 * LANES, y * -_C2A)
        store(slopes, BY_Z + 6 * LANES, b6_z)
        store(slopes, BY_X + 7 * LANES, z * -_C2A)
        store(slopes, BY_Z + 7 * LANES, x * -_C2A)
        store(slopes, BY_X + 8 * LANES, x2)
        store(slopes, BY_Y + 8 * LANES, _ZERO - y2)
        if degree >= 3:
            ring, ring_z = _C3B - _C3A * zz, -_TWO * _C3A * z
            c1_f, s1_f = _THREE * _C3F * c1, _THREE * _C3F * s1
            x2, y2 = _TWO * _C3C * x * z, _TWO * _C3C * y * z
            b12, b12_z = z * (_C3D * zz - _C3E), _THREE * _C3D * zz - _C3E
            store(slopes, BY_X + 9 * LANES, _ZERO - s1_f)
            store(slopes, BY_Y + 9 * LANES, _ZERO - c1_f)
            store(slopes, BY_X + 10 * LANES, y2)
            store(slopes, BY_Y + 10 * LANES, x2)
            store(slopes, BY_Z + 10 * LANES, _C3C * s1)
            store(slopes, BY_Y + 11 * LANES, ring)
            store(slopes, BY_Z + 11 * LANES, ring_z * y)
            store(slopes, BY_Z + 12 * LANES, b12_z)
            store(slopes, BY_X + 13 * LANES, ring)
            store(slopes, BY_Z + 13 * LANES, ring_z * x)
            store(slopes, BY_X + 14 * LANES, x2)
            store(slopes, BY_Y + 14 * LANES, _ZERO - y2)
            store(slopes, BY_Z + 14 * LANES, _C3C * c1)
            store(slopes, BY_X + 15 * LANES, _ZERO - c1_f)
            store(slopes, BY_Y + 15 * LANES, s1_f)
            if degree >= 4:
                c2, s2 = x * c1 - y * s1, x * s1 + y * c1
                ring1, ring1_z = z * (_C4B - _C4A * zz), _C4B - _THREE * _C4A * zz
                ring2, ring2_z = _C4C * zz - _C4D, _TWO * _C4C * z
                c2_f, s2_f = _FOUR * _C4H * c2, _FOUR * _C4H * s2
                c1_f, s1_f = -_THREE * _C4E * z * c1, -_THREE * _C4E * z * s1
                store(slopes, BY_X + 16 * LANES, s2_f)
                store(slopes, BY_Y + 16 * LANES, c2_f)
                store(slopes, BY_X + 17 * LANES, s1_f)
                store(slopes, BY_Y + 17 * LANES, c1_f)
                store(slopes, BY_Z + 17 * LANES, s2 * -_C4E)
                store(slopes, BY_X + 18 * LANES, _TWO * ring2 * y)
                store(slopes, BY_Y + 18 * LANES, _TWO * ring2 * x)
                store(slopes, BY_Z + 18 * LANES, ring2_z * s1)
                store(slopes, BY_Y + 19 * LANES, ring1)
                store(slopes, BY_Z + 19 * LANES, ring1_z * y)
                store(slopes, BY_Z + 20 * LANES, _C4F * (b12 + z * b12_z) - _C4G * b6_z)
                store(slopes, BY_X + 21 * LANES, ring1)
                store(slopes, BY_Z + 21 * LANES, ring1_z * x)
                store(slopes, BY_X + 22 * LANES, _TWO * ring2 * x)
                store(slopes, BY_Y + 22 * LANES, _ZERO - _TWO * ring2 * y)
                store(slopes, BY_Z + 22 * LANES, ring2_z * c1)
                store(slopes, BY_X + 23 * LANES, c1_f)
                store(slopes, BY_Y + 23 * LANES, _ZERO - s1_f)
                store(slopes, BY_Z + 23 * LANES, c2 * -_C4E)
                store(slopes, BY_X + 24 * LANES, c2_f)
                store(slopes, BY_Y + 24 * LANES, _ZERO - s2_f)
