"""View-dependent colour from real spherical harmonics up to degree 4, forward and backward, LANES Gaussians at once."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilled_splat.cpu import buffers
from distilled_splat.cpu.bases import BY_X, BY_Y, BY_Z, C0, MAX_BASES, evaluate_bases, evaluate_slopes
from distilled_splat.cpu.geometry import add_masked, dot, load3, scaled, store3
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import LANES, any_lane, lane_numbers, maximum, select, splat, square_root, sum_lanes
from distilled_splat.cpu.simd_memory import gather, load, load_rows, scatter, store, store_rows
from distilled_splat.cpu.threads import parallel_ranges

_CHUNKS = 32
"""Parts of a backward pass: a constant, so that sums over Gaussians are the same bits on any number of threads."""
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@njit(nogil=True)
def _directions(means: Any, centre: Any, first: int, count: int, visible: Any) -> Any:
    """Give the unit vectors from the camera's centre to a block of means, zero where not visible, and 1 / length."""
    mean = load3(means, first, count)
    direction = mean[0] - centre[0], mean[1] - centre[1], mean[2] - centre[2]
    inverse_length = _ONE / square_root(dot(direction, direction))
    x, y, z = scaled(direction, inverse_length)
    return (select(visible, x, _ZERO), select(visible, y, _ZERO), select(visible, z, _ZERO)), inverse_length


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
    bases = np.empty(MAX_BASES * LANES, np.float32)
    columns = np.empty(3 * MAX_BASES * LANES, np.float32)
    zero = splat(_ZERO)
    higher = (degree + 1) * (degree + 1) - 1
    for block in range(start, stop):
        first = block * LANES
        count = min(LANES, means.shape[0] - first)
        visible = gather(radii, first, 1, count) > _ZERO
        red, green, blue = zero, zero, zero
        if any_lane(visible):
            at = base_stride * first
            red = _HALF + C0 * gather(base, at, base_stride, count)
            green = _HALF + C0 * gather(base, at + 1, base_stride, count)
            blue = _HALF + C0 * gather(base, at + 2, base_stride, count)
            if degree > 0:
                load_rows(rest, rest_first + rest_stride * first, rest_stride, 3 * higher, count, columns)
                direction, _ = _directions(means, centre, first, count, visible)
                evaluate_bases(direction, degree, bases)
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
    bases = np.empty(MAX_BASES * LANES, np.float32)
    slopes = np.zeros(3 * MAX_BASES * LANES, np.float32)
    columns = np.empty(3 * MAX_BASES * LANES, np.float32)
    v_columns = np.zeros(3 * MAX_BASES * LANES, np.float32)
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
                evaluate_bases(direction, degree, bases)
                evaluate_slopes(direction, degree, slopes)
                for k in range(higher):
                    at = (k + 1) * LANES
                    basis = load(bases, at)
                    weight = red * load(columns, 3 * k * LANES)
                    weight = weight + green * load(columns, (3 * k + 1) * LANES)
                    weight = weight + blue * load(columns, (3 * k + 2) * LANES)
                    v_x = v_x + weight * load(slopes, BY_X + at)
                    v_y = v_y + weight * load(slopes, BY_Y + at)
                    v_z = v_z + weight * load(slopes, BY_Z + at)
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
            v_base_color = C0 * red, C0 * green, C0 * blue
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
