"""View-dependent colour from real spherical harmonics up to degree 4, forward and backward.

The polynomials are those of Sloan, "Efficient Spherical Harmonic Evaluation" (JCGT 2013), in the order and with the
signs that 3D Gaussian splatting uses. The kernels take LANES Gaussians at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilled_splat.cpu import buffers
from distilled_splat.cpu.geometry import add_masked, dot, load3, scaled, store3
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import LANES, any_lane, lane_numbers, maximum, select, splat, square_root, sum_lanes
from distilled_splat.cpu.simd_memory import gather, load, load_rows, scatter, store, store_rows
from distilled_splat.cpu.threads import parallel_ranges

MAX_DEGREE = 4
_MAX_BASES = (MAX_DEGREE + 1) ** 2
_BY_X, _BY_Y, _BY_Z = (i * _MAX_BASES * LANES for i in range(3))
"""Where the derivatives by x, y and z begin."""
_CHUNKS = 32
"""Parts of a backward pass: a constant, so that sums over Gaussians are the same bits on any number of threads."""

_ZERO, _HALF, _ONE, _TWO, _THREE, _FOUR = (np.float32(i) for i in (0, 0.5, 1, 2, 3, 4))
_C0 = np.float32(0.28209479177387814)
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
def _directions(means: Any, centre: Any, first: int, count: int, visible: Any) -> Any:
    """Give the unit vectors from the camera's centre to a block of means, zero where not visible, and 1 / length."""
    mean = load3(means, first, count)
    direction = mean[0] - centre[0], mean[1] - centre[1], mean[2] - centre[2]
    inverse_length = _ONE / square_root(dot(direction, direction))
    x, y, z = scaled(direction, inverse_length)
    return (select(visible, x, _ZERO), select(visible, y, _ZERO), select(visible, z, _ZERO)), inverse_length


@njit(nogil=True)
def _evaluate_bases(direction: Any, degree: int, bases: Any) -> None:
    """Write the (degree + 1)^2 basis functions at unit directions to the rows of `bases`."""
    x, y, z = direction
    store(bases, 0, splat(_C0))
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
def _evaluate_slopes(direction: Any, degree: int, slopes: Any) -> None:
    """Write the derivatives of the basis functions by x, y and z to the rows of `slopes`, where they are not 0.

    The recurrences c and s are the real and imaginary part of (x + i y)^m, whose derivatives are m times those of one
    power less: dc_m = m (c_{m-1} dx - s_{m-1} dy) and ds_m = m (s_{m-1} dx + c_{m-1} dy).
    """
    x, y, z = direction
    if degree >= 1:
        store(slopes, _BY_Y + 1 * LANES, splat(-_C1))
        store(slopes, _BY_Z + 2 * LANES, splat(_C1))
        store(slopes, _BY_X + 3 * LANES, splat(-_C1))
    if degree >= 2:
        zz, c1, s1 = z * z, x * x - y * y, _TWO * x * y
        x2, y2 = _TWO * _C2D * x, _TWO * _C2D * y
        b6_z = _TWO * _C2B * z
        store(slopes, _BY_X + 4 * LANES, y2)
        store(slopes, _BY_Y + 4 * LANES, x2)
        store(slopes, _BY_Y + 5 * LANES, z * -_C2A)
        store(slopes, _BY_Z + 5 * LANES, y * -_C2A)
        store(slopes, _BY_Z + 6 * LANES, b6_z)
        store(slopes, _BY_X + 7 * LANES, z * -_C2A)
        store(slopes, _BY_Z + 7 * LANES, x * -_C2A)
        store(slopes, _BY_X + 8 * LANES, x2)
        store(slopes, _BY_Y + 8 * LANES, _ZERO - y2)
        if degree >= 3:
            ring, ring_z = _C3B - _C3A * zz, -_TWO * _C3A * z
            c1_f, s1_f = _THREE * _C3F * c1, _THREE * _C3F * s1
            x2, y2 = _TWO * _C3C * x * z, _TWO * _C3C * y * z
            b12, b12_z = z * (_C3D * zz - _C3E), _THREE * _C3D * zz - _C3E
            store(slopes, _BY_X + 9 * LANES, _ZERO - s1_f)
            store(slopes, _BY_Y + 9 * LANES, _ZERO - c1_f)
            store(slopes, _BY_X + 10 * LANES, y2)
            store(slopes, _BY_Y + 10 * LANES, x2)
            store(slopes, _BY_Z + 10 * LANES, _C3C * s1)
            store(slopes, _BY_Y + 11 * LANES, ring)
            store(slopes, _BY_Z + 11 * LANES, ring_z * y)
            store(slopes, _BY_Z + 12 * LANES, b12_z)
            store(slopes, _BY_X + 13 * LANES, ring)
            store(slopes, _BY_Z + 13 * LANES, ring_z * x)
            store(slopes, _BY_X + 14 * LANES, x2)
            store(slopes, _BY_Y + 14 * LANES, _ZERO - y2)
            store(slopes, _BY_Z + 14 * LANES, _C3C * c1)
            store(slopes, _BY_X + 15 * LANES, _ZERO - c1_f)
            store(slopes, _BY_Y + 15 * LANES, s1_f)
            if degree >= 4:
                c2, s2 = x * c1 - y * s1, x * s1 + y * c1
                ring1, ring1_z = z * (_C4B - _C4A * zz), _C4B - _THREE * _C4A * zz
                ring2, ring2_z = _C4C * zz - _C4D, _TWO * _C4C * z
                c2_f, s2_f = _FOUR * _C4H * c2, _FOUR * _C4H * s2
                c1_f, s1_f = -_THREE * _C4E * z * c1, -_THREE * _C4E * z * s1
                store(slopes, _BY_X + 16 * LANES, s2_f)
                store(slopes, _BY_Y + 16 * LANES, c2_f)
                store(slopes, _BY_X + 17 * LANES, s1_f)
                store(slopes, _BY_Y + 17 * LANES, c1_f)
                store(slopes, _BY_Z + 17 * LANES, s2 * -_C4E)
                store(slopes, _BY_X + 18 * LANES, _TWO * ring2 * y)
                store(slopes, _BY_Y + 18 * LANES, _TWO * ring2 * x)
                store(slopes, _BY_Z + 18 * LANES, ring2_z * s1)
                store(slopes, _BY_Y + 19 * LANES, ring1)
                store(slopes, _BY_Z + 19 * LANES, ring1_z * y)
                store(slopes, _BY_Z + 20 * LANES, _C4F * (b12 + z * b12_z) - _C4G * b6_z)
                store(slopes, _BY_X + 21 * LANES, ring1)
                store(slopes, _BY_Z + 21 * LANES, ring1_z * x)
                store(slopes, _BY_X + 22 * LANES, _TWO * ring2 * x)
                store(slopes, _BY_Y + 22 * LANES, _ZERO - _TWO * ring2 * y)
                store(slopes, _BY_Z + 22 * LANES, ring2_z * c1)
                store(slopes, _BY_X + 23 * LANES, c1_f)
                store(slopes, _BY_Y + 23 * LANES, _ZERO - s1_f)
                store(slopes, _BY_Z + 23 * LANES, c2 * -_C4E)
                store(slopes, _BY_X + 24 * LANES, c2_f)
                store(slopes, _BY_Y + 24 * LANES, _ZERO - s2_f)


@kernel
def _shade_kernel(
    start: int,
    stop: int,
    means: Any,
    centre: Any,
    base: Any,
    base_stride: int,
    rest: Any,
    rest_first: int,
    rest_stride: int,
    degree: int,
    radii: Any,
    colors: Any,
) -> None:
    """Evaluate the colours of blocks of LANES Gaussians seen from one camera.

    A Gaussian's coefficients of degree 0 lie in `base`, those of higher degrees in `rest` from `rest_first` on.
    """
    bases = np.empty(_MAX_BASES * LANES, np.float32)
    columns = np.empty(3 * _MAX_BASES * LANES, np.float32)
    zero = splat(_ZERO)
    higher = (degree + 1) * (degree + 1) - 1
    for block in range(start, stop):
        first = block * LANES
        count = min(LANES, means.shape[0] - first)
        visible = gather(radii, first, 1, count) > _ZERO
        red, green, blue = zero, zero, zero
        if any_lane(visible):
            at = base_stride * first
            red = _HALF + _C0 * gather(base, at, base_stride, count)
            green = _HALF + _C0 * gather(base, at + 1, base_stride, count)
            blue = _HALF + _C0 * gather(base, at + 2, base_stride, count)
            if degree > 0:
                load_rows(rest, rest_first + rest_stride * first, rest_stride, 3 * higher, count, columns)
                direction, _ = _directions(means, centre, first, count, visible)
                _evaluate_bases(direction, degree, bases)
                for k in range(higher):
                    basis = load(bases, (k + 1) * LANES)
                    red = red + basis * load(columns, 3 * k * LANES)
                    green = green + basis * load(columns, (3 * k + 1) * LANES)
                    blue = blue + basis * load(columns, (3 * k + 2) * LANES)
        color = maximum(_ZERO, red), maximum(_ZERO, green), maximum(_ZERO, blue)
        store3(colors, first, count, color, visible, False)


@kernel
def _shade_backward_kernel(
    start: int,
    stop: int,
    means: Any,
    centre: Any,
    rest: Any,
    base_stride: int,
    rest_first: int,
    rest_stride: int,
    degree: int,
    max_degree: int,
    radii: Any,
    colors: Any,
    v_colors: Any,
    accumulate: bool,
    accumulate_coefficients: bool,
    v_means: Any,
    v_base: Any,
    v_rest: Any,
    v_centres: Any,
) -> None:
    """Pull one camera's colour gradients back, for the parts `start` to `stop` of _CHUNKS.

    Gradients are written, or added when `accumulate`; each part sums that of the camera's centre into its row.
    """
    num_gaussians = means.shape[0]
    num_blocks = (num_gaussians + LANES - 1) // LANES
    higher, all_higher = (degree + 1) * (degree + 1) - 1, (max_degree + 1) * (max_degree + 1) - 1
    bases = np.empty(_MAX_BASES * LANES, np.float32)
    slopes = np.zeros(3 * _MAX_BASES * LANES, np.float32)
    columns = np.empty(3 * _MAX_BASES * LANES, np.float32)
    v_columns = np.zeros(3 * _MAX_BASES * LANES, np.float32)
    zero = splat(_ZERO)
    for part in range(start, stop):
        total = (zero, zero, zero)
        for block in range(num_blocks * part // _CHUNKS, num_blocks * (part + 1) // _CHUNKS):
            first = block * LANES
            count = min(LANES, num_gaussians - first)
            visible = gather(radii, first, 1, count) > _ZERO
            v_x, v_y, v_z = zero, zero, zero
            color, v_color = load3(colors, first, count), load3(v_colors, first, count)
            red = select(visible & (color[0] > _ZERO), v_color[0], _ZERO)
            green = select(visible & (color[1] > _ZERO), v_color[1], _ZERO)
            blue = select(visible & (color[2] > _ZERO), v_color[2], _ZERO)
            if degree > 0 and any_lane(visible):
                load_rows(rest, rest_first + rest_stride * first, rest_stride, 3 * higher, count, columns)
                direction, inverse_length = _directions(means, centre, first, count, visible)
                _evaluate_bases(direction, degree, bases)
                _evaluate_slopes(direction, degree, slopes)
                for k in range(higher):
                    at = (k + 1) * LANES
                    basis = load(bases, at)
                    weight = red * load(columns, 3 * k * LANES)
                    weight = weight + green * load(columns, (3 * k + 1) * LANES)
                    weight = weight + blue * load(columns, (3 * k + 2) * LANES)
                    v_x = v_x + weight * load(slopes, _BY_X + at)
                    v_y = v_y + weight * load(slopes, _BY_Y + at)
                    v_z = v_z + weight * load(slopes, _BY_Z + at)
                    store(v_columns, 3 * k * LANES, basis * red)
                    store(v_columns, (3 * k + 1) * LANES, basis * green)
                    store(v_columns, (3 * k + 2) * LANES, basis * blue)
                along = v_x * direction[0] + v_y * direction[1] + v_z * direction[2]
                v_x = (v_x - along * direction[0]) * inverse_length
                v_y = (v_y - along * direction[1]) * inverse_length
                v_z = (v_z - along * direction[2]) * inverse_length
                counted = visible & (lane_numbers() < count)
                total = add_masked(total, counted, (v_x, v_y, v_z))
            else:
                for k in range(3 * higher):
                    store(v_columns, k * LANES, zero)
            at = base_stride * first
            v_base_color = _C0 * red, _C0 * green, _C0 * blue
            for channel in range(3):
                value = v_base_color[channel]
                if accumulate_coefficients:
                    value = value + gather(v_base, at + channel, base_stride, count)
                scatter(v_base, at + channel, base_stride, count, value)
            at = rest_first + rest_stride * first
            if accumulate_coefficients:
                for k in range(3 * higher):
                    before = gather(v_rest, at + k, rest_stride, count)
                    store(v_columns, k * LANES, load(v_columns, k * LANES) + before)
            store_rows(
                v_columns, 3 * (higher if accumulate_coefficients else all_higher), count, v_rest, at, rest_stride
            )
            store3(v_means, first, count, (v_x, v_y, v_z), visible, accumulate)
        for column in range(3):
            v_centres[part, column] = -sum_lanes(total[column])


class _Layout(NamedTuple):
    """Where the coefficients of one camera lie: those of degree 0, and those of higher degrees."""

    base: np.ndarray
    base_stride: int
    rest: np.ndarray
    rest_first: int
    rest_stride: int


def _layout(coefficients: np.ndarray, rest: Optional[np.ndarray], camera: int) -> _Layout:
    """Describe coefficients [N, K, 3] or [C, N, K, 3], or, with `rest` [N, K - 1, 3], those of degree 0 [N, 3]."""
    if rest is not None:
        return _Layout(coefficients, 3, rest, 0, 3 * rest.shape[1])
    of_camera = coefficients[camera] if coefficients.ndim == 4 else coefficients
    stride = 3 * of_camera.shape[1]
    return _Layout(of_camera, stride, of_camera, 3, stride)


class _Shade(torch.autograd.Function):
    """See `shade`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        means: Tensor,
        centres: Tensor,
        coefficients: Tensor,
        rest: Optional[Tensor],
        degree: int,
        radii: Tensor,
    ) -> Tensor:
        num_cameras, num_gaussians = radii.shape
        colors = buffers.empty_tensor((num_cameras, num_gaussians, 3))
        num_blocks = (num_gaussians + LANES - 1) // LANES
        m, cs, sh, r, out = (x.detach().numpy() for x in (means, centres, coefficients, radii, colors))
        higher = None if rest is None else rest.detach().numpy()
        for c in range(num_cameras):
            layout = _layout(sh, higher, c)
            parallel_ranges(_shade_kernel, num_blocks, m, cs[c], *layout, degree, r[c], out[c])
        ctx.save_for_backward(means, centres, coefficients, rest, radii, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors: Tensor):
        means, centres, coefficients, rest, radii, colors = ctx.saved_tensors
        v_means, v_coefficients = buffers.empty_tensor(means.shape), buffers.empty_tensor(coefficients.shape)
        v_rest = None if rest is None else buffers.empty_tensor(rest.shape)
        v_centres = np.empty((len(radii), _CHUNKS, 3), np.float32)
        m, cs, sh, r, out = (x.detach().numpy() for x in (means, centres, coefficients, radii, colors))
        v_m, v_sh, v_out = v_means.numpy(), v_coefficients.numpy(), v_colors.contiguous().numpy()
        higher, v_higher = (None if x is None else x.detach().numpy() for x in (rest, v_rest))
        num_bases = sh.shape[-2] if higher is None else 1 + higher.shape[1]
        max_degree = math.isqrt(num_bases) - 1
        per_camera = sh.ndim == 4
        for c in range(len(r)):
            layout, v_layout = _layout(sh, higher, c), _layout(v_sh, v_higher, c)
            inputs = (m, cs[c], layout.rest, layout.base_stride, layout.rest_first, layout.rest_stride)
            settings = (ctx.degree, max_degree, r[c], out[c], v_out[c], c > 0, c > 0 and not per_camera)
            outputs = (v_m, v_layout.base, v_layout.rest, v_centres[c])
            parallel_ranges(_shade_backward_kernel, _CHUNKS, *inputs, *settings, *outputs)
        return v_means, torch.from_numpy(v_centres.sum(axis=1)), v_coefficients, v_rest, None, None


def shade(
    means: Tensor, centres: Tensor, coefficients: Tensor, rest: Optional[Tensor], degree: int, radii: Tensor
) -> Tensor:
    """Evaluate the colours of the visible Gaussians from each camera, differentiably.

    Args:
        means: Centres in world space [N, 3].
        centres: Camera centres in world space [C, 3].
        coefficients: Spherical-harmonics coefficients [N, K, 3], or for each camera its own [C, N, K, 3]; with `rest`,
            those of degree 0 [N, 3].
        rest: Coefficients of higher degrees [N, K - 1, 3], or None where `coefficients` has them all.
        degree: Degree to evaluate, at most 4; (degree + 1)^2 <= K.
        radii: Image-plane radii, 0 where a Gaussian is not visible [C, N].

    Returns:
        max(0, 0.5 + sum of coefficient times basis) [C, N, 3]; 0 where not visible.
    """
    return _Shade.apply(means, centres, coefficients, rest, degree, radii)  # type: ignore[return-value]
