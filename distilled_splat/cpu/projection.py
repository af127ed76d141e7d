"""Projection of 3-D Gaussians to the image plane, forward and backward (EWA splatting, Zwicker et al. 2001).

With M = R(view) R(quat) diag(scale), a Gaussian's covariance is M M^T in camera space and U U^T + eps2d I in the image,
where U = J M and J is the Jacobian of the perspective projection at its mean. The kernels take LANES Gaussians at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilled_splat.cpu import buffers
from distilled_splat.cpu.geometry import (
    add_masked,
    add_view_row,
    combine_columns,
    combine_rows,
    combined,
    covariance_gradient,
    determinants,
    dot,
    image_axes,
    load3,
    load_quaternions,
    quaternion_gradient,
    rotation_rows,
    scaled,
    store3,
    store_column,
    times,
    to_camera,
    to_camera_axes,
    to_world,
)
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import (
    LANES,
    any_lane,
    lane_numbers,
    maximum,
    round_up,
    select,
    splat,
    square_root,
    sum_lanes,
)
from distilled_splat.cpu.simd_memory import gather
from distilled_splat.cpu.threads import parallel_ranges

_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_HUGE = np.float32(1e30)
_MAX_RADIUS = np.float32(1e9)
_CHUNKS = 32
"""Parts of a backward pass: a constant, so that sums over Gaussians are the same bits on any number of threads."""
_NO_ROW = np.zeros(0, np.float32)


class Projection(NamedTuple):
    """Gaussians on the image plane of each camera; one that is not visible has radius 0 and zeros everywhere."""

    means2d: Tensor
    """Centres in pixels [C, N, 2]."""
    depths: Tensor
    """Camera-space z [C, N]."""
    conics: Tensor
    """Inverse covariances in 1/pixel^2 [C, N, 3]: xx, xy, yy."""
    compensations: Tensor
    """Opacity factors that make up for the blur [C, N]; empty unless asked for."""
    radii: Tensor
    """Three standard deviations along the major axis, rounded up to pixels [C, N], int32."""


def camera_array(
    viewmat: np.ndarray,
    K: np.ndarray,
    width: int,
    height: int,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    radius_clip: float,
) -> np.ndarray:
    """Put what the kernels know of a camera into one array [26].

    Rotation row by row (0 to 8), translation (9 to 11), fx, fy, cx, cy, width, height, the slopes x / z and y / z to
    which the Jacobian is clamped (right, left, bottom, top: the image and 0.3 half-widths beyond it), near and far
    plane, eps2d, radius_clip.
    """
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    limits = [(width - cx) / fx + margin_x, cx / fx + margin_x, (height - cy) / fy + margin_y, cy / fy + margin_y]
    rest = [fx, fy, cx, cy, width, height, *limits, near_plane, far_plane, eps2d, radius_clip]
    return np.concatenate([viewmat[:3, :3].ravel(), viewmat[:3, 3], rest]).astype(np.float32)


@kernel
def _project_kernel(
    start: int,
    stop: int,
    means: Any,
    quats: Any,
    scales: Any,
    camera: Any,
    antialiased: bool,
    means2d: Any,
    depths: Any,
    conics: Any,
    compensations: Any,
    radii: Any,
) -> None:
    """Project blocks of LANES Gaussians into one camera."""
    width, height, eps2d = camera[16], camera[17], camera[24]
    for block in range(start, stop):
        first = block * LANES
        count = min(LANES, means.shape[0] - first)
        position = to_camera(load3(means, first, count), camera)
        visible = (position[2] >= camera[22]) & (position[2] <= camera[23])
        zero = splat(_ZERO)
        x, y, radius, conic_xx, conic_xy, conic_yy, compensation = zero, zero, zero, zero, zero, zero, zero
        if any_lane(visible):
            q, _ = load_quaternions(quats, first, count)
            axes = to_camera_axes(rotation_rows(q), camera)
            inverse_z, _, _, _, u0, u1 = image_axes(position, axes, load3(scales, first, count), camera)
            xx, xy, yy = dot(u0, u0), dot(u0, u1), dot(u1, u1)
            sharp, blurred = determinants(u0, u1, xx, yy, eps2d)
            x = camera[12] * position[0] * inverse_z + camera[14]
            y = camera[13] * position[1] * inverse_z + camera[15]
            half_difference = _HALF * (xx - yy)
            spread = square_root(maximum(half_difference * half_difference + xy * xy, np.float32(0.01)))
            radius = round_up(np.float32(3) * square_root(_HALF * (xx + yy) + eps2d + spread))
            visible = visible & (blurred > _ZERO) & (blurred < _HUGE)
            visible = visible & (radius > camera[25]) & (radius < _MAX_RADIUS)
            visible = visible & (x + radius > _ZERO) & (x - radius < width)
            visible = visible & (y + radius > _ZERO) & (y - radius < height)
            inverse = _ONE / blurred
            conic_xx, conic_xy, conic_yy = (yy + eps2d) * inverse, (_ZERO - xy) * inverse, (xx + eps2d) * inverse
            if antialiased:
                compensation = square_root(sharp * inverse)
        at = 2 * first
        store_column(means2d, at, 2, count, x, visible, False)
        store_column(means2d, at + 1, 2, count, y, visible, False)
        store_column(depths, first, 1, count, position[2], visible, False)
        store3(conics, first, count, (conic_xx, conic_xy, conic_yy), visible, False)
        store_column(radii, first, 1, count, radius, visible, False)
        if antialiased:
            store_column(compensations, first, 1, count, compensation, visible, False)


@kernel
def _project_backward_kernel(
    start: int,
    stop: int,
    means: Any,
    quats: Any,
    scales: Any,
    camera: Any,
    antialiased: bool,
    radii: Any,
    conics: Any,
    compensations: Any,
    v_means2d: Any,
    v_depths: Any,
    v_conics: Any,
    v_compensations: Any,
    accumulate: bool,
    v_means: Any,
    v_quats: Any,
    v_scales: Any,
    wants_view: bool,
    v_views: Any,
) -> None:
    """Pull one camera's gradients back to the Gaussians, for the parts `start` to `stop` of _CHUNKS.

    Gradients are written, or added when `accumulate`; each part sums that of the view matrix into its row of `v_views`.
    """
    num_gaussians = means.shape[0]
    num_blocks = (num_gaussians + LANES - 1) // LANES
    zero = splat(_ZERO)
    none = (zero, zero, zero)
    for part in range(start, stop):
        view0, view1, view2, view_t = none, none, none, none
        for block in range(num_blocks * part // _CHUNKS, num_blocks * (part + 1) // _CHUNKS):
            first = block * LANES
            count = min(LANES, num_gaussians - first)
            visible = gather(radii, first, 1, count) > _ZERO
            v_mean, v_scale, v_quat = none, none, (zero, zero, zero, zero)
            if any_lane(visible):
                mean, scale = load3(means, first, count), load3(scales, first, count)
                position = to_camera(mean, camera)
                quat, inverse_norm = load_quaternions(quats, first, count)
                rotation = rotation_rows(quat)
                axes = to_camera_axes(rotation, camera)
                inverse_z, slope_x, slope_y, m2, u0, u1 = image_axes(position, axes, scale, camera)
                xx, xy, yy = dot(u0, u0), dot(u0, u1), dot(u1, u1)
                _, determinant = determinants(u0, u1, xx, yy, camera[24])
                v_xx, v_xy, v_yy = covariance_gradient(
                    conics,
                    v_conics,
                    compensations,
                    v_compensations,
                    first,
                    count,
                    antialiased,
                    (xx, xy, yy),
                    determinant,
                    camera[24],
                )
                v_u0, v_u1 = combined(u0, _TWO * v_xx, u1, v_xy), combined(u1, _TWO * v_yy, u0, v_xy)

                fx, fy = camera[12] * inverse_z, camera[13] * inverse_z
                v_m0, v_m1 = scaled(v_u0, fx), scaled(v_u1, fy)
                v_m2 = combined(v_m0, _ZERO - slope_x, v_m1, _ZERO - slope_y)
                v_x_image = gather(v_means2d, 2 * first, 2, count)
                v_y_image = gather(v_means2d, 2 * first + 1, 2, count)
                v_inverse_z = (dot(v_u0, u0) + dot(v_u1, u1)) * position[2]
                v_inverse_z = v_inverse_z + camera[12] * position[0] * v_x_image + camera[13] * position[1] * v_y_image
                free_x, free_y = position[0] * inverse_z, position[1] * inverse_z
                free_x = (free_x <= camera[18]) & (free_x >= -camera[19])
                free_y = (free_y <= camera[20]) & (free_y >= -camera[21])
                v_slope_x = select(free_x, _ZERO - dot(v_m0, m2), _ZERO)
                v_slope_y = select(free_y, _ZERO - dot(v_m1, m2), _ZERO)
                v_inverse_z = v_inverse_z + v_slope_x * position[0] + v_slope_y * position[1]
                v_position = (
                    fx * v_x_image + v_slope_x * inverse_z,
                    fy * v_y_image + v_slope_y * inverse_z,
                    gather(v_depths, first, 1, count) - v_inverse_z * inverse_z * inverse_z,
                )

                v_scale = combine_columns(v_m0, axes[0], v_m1, axes[1], v_m2, axes[2])
                v_b0, v_b1, v_b2 = times(v_m0, scale), times(v_m1, scale), times(v_m2, scale)
                v_rotation = (
                    combine_rows(camera[0], camera[3], camera[6], (v_b0, v_b1, v_b2)),
                    combine_rows(camera[1], camera[4], camera[7], (v_b0, v_b1, v_b2)),
                    combine_rows(camera[2], camera[5], camera[8], (v_b0, v_b1, v_b2)),
                )
                v_quat = quaternion_gradient(quat, inverse_norm, v_rotation)
                v_mean = to_world(v_position, camera)
                if wants_view:
                    counted = visible & (lane_numbers() < count)
                    view0 = add_view_row(view0, counted, v_position[0], mean, v_b0, rotation)
                    view1 = add_view_row(view1, counted, v_position[1], mean, v_b1, rotation)
                    view2 = add_view_row(view2, counted, v_position[2], mean, v_b2, rotation)
                    view_t = add_masked(view_t, counted, v_position)
            store3(v_means, first, count, v_mean, visible, accumulate)
            store3(v_scales, first, count, v_scale, visible, accumulate)
            for column in range(4):
                store_column(v_quats, 4 * first + column, 4, count, v_quat[column], visible, accumulate)
        if wants_view:
            for column in range(3):
                v_views[part, 0, column] = sum_lanes(view0[column])
                v_views[part, 1, column] = sum_lanes(view1[column])
                v_views[part, 2, column] = sum_lanes(view2[column])
                v_views[part, column, 3] = sum_lanes(view_t[column])


class _Project(torch.autograd.Function):
    """See `project`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, cameras: np.ndarray, antialiased: bool
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        num_cameras, num_gaussians = len(cameras), means.shape[0]
        size = (num_cameras, num_gaussians)
        means2d, depths = buffers.empty_tensor((*size, 2)), buffers.empty_tensor(size)
        conics = buffers.empty_tensor((*size, 3))
        compensations = means.new_empty(num_cameras if antialiased else 0, num_gaussians)
        radii = torch.empty(num_cameras, num_gaussians, dtype=torch.int32)
        num_blocks = (num_gaussians + LANES - 1) // LANES
        gaussians = [x.detach().numpy() for x in (means, quats, scales)]
        outputs = [x.numpy() for x in (means2d, depths, conics, compensations, radii)]
        for c, camera in enumerate(cameras):
            of_camera = [x[c] if len(x) else _NO_ROW for x in outputs]
            parallel_ranges(_project_kernel, num_blocks, *gaussians, camera, antialiased, *of_camera)
        ctx.save_for_backward(means, quats, scales, conics, compensations, radii)
        ctx.cameras, ctx.antialiased = cameras, antialiased
        ctx.mark_non_differentiable(radii)
        return means2d, depths, conics, compensations, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_outputs: Optional[Tensor]):
        means, quats, scales, conics, compensations, radii = ctx.saved_tensors
        v_means, v_quats, v_scales = (buffers.empty_tensor(x.shape) for x in (means, quats, scales))
        wants_view = ctx.needs_input_grad[3]
        v_viewmats = means.new_zeros(len(ctx.cameras), 4, 4)
        gaussians = [x.detach().numpy() for x in (means, quats, scales)]
        size = tuple(radii.shape)
        shapes = ((*size, 2), size, (*size, 3), compensations.shape)
        gradients = [means.new_zeros(shape) if x is None else x for x, shape in zip(v_outputs, shapes)]
        of_cameras = [x.detach().contiguous().numpy() for x in (radii, conics, compensations, *gradients)]
        results = [x.numpy() for x in (v_means, v_quats, v_scales)]
        for c, camera in enumerate(ctx.cameras):
            v_views = np.zeros((_CHUNKS, 3, 4), np.float32)
            of_camera = [x[c] if len(x) else _NO_ROW for x in of_cameras]
            parallel_ranges(
                _project_backward_kernel,
                _CHUNKS,
                *gaussians,
                camera,
                ctx.antialiased,
                *of_camera,
                c > 0,
                *results,
                wants_view,
                v_views,
                chunks=_CHUNKS if wants_view else None,
            )
            v_viewmats[c, :3] = torch.from_numpy(v_views.sum(axis=0, dtype=np.float64))
        return v_means, v_quats, v_scales, v_viewmats if wants_view else None, None, None


def project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, cameras: np.ndarray, antialiased: bool
) -> Projection:
    """Project Gaussians into each camera, differentiably.

    Args:
        means: Centres in world space [N, 3].
        quats: Rotations (w, x, y, z), normalised here [N, 4].
        scales: Standard deviations along the axes, in world units [N, 3].
        viewmats: World-to-camera matrices [C, 4, 4]; differentiated, the values are taken from `cameras`.
        cameras: What `camera_array` gives for each camera [C, 26].
        antialiased: Whether opacity compensations are computed (Yu et al., Mip-Splatting, 2023).

    A Gaussian is visible when its z lies between the planes, its radius is above `radius_clip`, and its square of that
    radius touches the image. One whose covariance is not finite and positive is not visible.
    """
    return Projection(*_Project.apply(means, quats, scales, viewmats, cameras, antialiased))  # type: ignore[misc]
