"""Rasterization of 3-D Gaussians on the CPU, with the signature, the returns and the semantics of gsplat's."""

from __future__ import annotations

import math
from functools import cache
from importlib import metadata
from typing import Any, Literal, Optional

import numpy as np
import torch
from torch import Tensor

from distilled_splat.cpu.arguments import check_absgrad, check_choices, check_tensors, refuse_unsupported
from distilled_splat.cpu.blend import blend
from distilled_splat.cpu.harmonics import shade
from distilled_splat.cpu.projection import camera_array, project
from distilled_splat.cpu.tiles import TILE


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor | tuple[Tensor, Tensor],
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: Optional[int] = None,
    packed: bool = False,
    tile_size: int = 16,
    backgrounds: Optional[Tensor] = None,
    render_mode: Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"] = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: Literal["classic", "antialiased"] = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: Literal["pinhole", "ortho", "fisheye"] = "pinhole",
    covars: Optional[Tensor] = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render Gaussians into C cameras, differentiably in everything but the intrinsics.

    A drop-in for gsplat 1.4's function of that name, for float32 tensors on the CPU (Kerbl et al., 3D Gaussian
    Splatting, 2023). Where no input requires a gradient, nothing is kept for a backward pass.

    Args:
        means: Centres in world space [N, 3].
        quats: Rotations (w, x, y, z), of any length but zero [N, 4].
        scales: Standard deviations along the axes, in world units [N, 3].
        opacities: Opacities, 0 to 1 [N].
        colors: Colours [N, D] or [C, N, D]; with `sh_degree`, spherical-harmonics coefficients [N, K, 3] or
            [C, N, K, 3]. Beyond gsplat, also the pair of coefficients that a splat is stored as, degree 0 [N, 3] and
            the rest [N, K - 1, 3], which saves bringing them together.
        viewmats: World-to-camera matrices, OpenCV axes [C, 4, 4].
        Ks: Intrinsics in pixels [C, 3, 3]; not differentiated.
        width, height: Image size in pixels.
        near_plane, far_plane: Range of camera-space z that is drawn.
        radius_clip: Gaussians whose radius in pixels is not above this are left out.
        eps2d: Added to the diagonal of the image-plane covariances, in pixels^2.
        sh_degree: Degree of the harmonics to evaluate, 0 to 4; None when `colors` are colours.
        packed: Only False; the default differs from gsplat's.
        tile_size: Only 16.
        backgrounds: Colours behind everything [C, D], or None for black.
        render_mode: Colours, accumulated z ("D"), expected z ("ED"), or colours with one of them as last channel.
        sparse_grad: Only False.
        absgrad: Whether backward puts the summed absolute gradients of the image-plane centres into
            `info["means2d"].absgrad` (AbsGS, Ye et al. 2024); for at most 4 channels.
        rasterize_mode: "antialiased" makes up for the blur in the opacities (Mip-Splatting, Yu et al. 2023).
        channel_chunk: Taken for compatibility; any number of channels is drawn in chunks of 4.
        distributed: Only False.
        camera_model: Only "pinhole".
        covars: Only None.

    Returns:
        Images [C, height, width, X], alphas [C, height, width, 1], and what gsplat's strategies and users read: radii,
        means2d, depths, conics, opacities, tiles_per_gauss, camera_ids and gaussian_ids (None), tile_width,
        tile_height, tile_size, width, height, n_cameras.

    Raises:
        ValueError: An argument has a wrong shape, type or device, or asks for what is not supported.
    """
    refuse_unsupported(
        packed=packed,
        sparse_grad=sparse_grad,
        distributed=distributed,
        camera_model=camera_model,
        covars=covars,
        tile_size=tile_size,
    )
    check_choices(render_mode, rasterize_mode, width, height)
    colors, rest = colors if isinstance(colors, tuple) else (colors, None)
    check_tensors(means, quats, scales, opacities, colors, rest, viewmats, Ks, backgrounds, sh_degree)
    num_cameras, num_gaussians = len(viewmats), len(means)
    with_depth, antialiased = render_mode != "RGB", rasterize_mode == "antialiased"
    settings = (width, height, near_plane, far_plane, eps2d, radius_clip)
    views = zip(viewmats.detach().numpy(), Ks.detach().numpy())
    cameras = np.stack([camera_array(viewmat, K, *settings) for viewmat, K in views])

    means = means.contiguous()
    projection = project(means, quats.contiguous(), scales.contiguous(), viewmats, cameras, antialiased)
    opacities = opacities.expand(num_cameras, num_gaussians)
    if antialiased:
        opacities = opacities * projection.compensations
    if render_mode in ("D", "ED"):
        colors = means.new_zeros(num_cameras, num_gaussians, 0)
    elif sh_degree is None:
        colors = colors.expand(num_cameras, num_gaussians, colors.shape[-1])
    else:
        centres = torch.linalg.solve(viewmats[:, :3, :3], -viewmats[:, :3, 3])
        rest = None if rest is None else rest.contiguous()
        colors = shade(means, centres, colors.contiguous(), rest, sh_degree, projection.radii)
    check_absgrad(absgrad, colors.shape[-1] + with_depth)
    if backgrounds is not None and with_depth:
        backgrounds = torch.cat([backgrounds[:, : colors.shape[-1]], backgrounds.new_zeros(num_cameras, 1)], dim=-1)
    images, alphas, tiles_per_gauss = blend(
        projection, opacities.contiguous(), colors.contiguous(), backgrounds, width, height, with_depth, absgrad
    )
    if render_mode in ("ED", "RGB+ED"):
        images = torch.cat([images[..., :-1], images[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)
    info = {
        "camera_ids": None,
        "gaussian_ids": None,
        "radii": _as_gsplat_gives_them(projection.radii),
        "means2d": projection.means2d,
        "depths": projection.depths,
        "conics": projection.conics,
        "opacities": opacities,
        "tile_width": math.ceil(width / TILE),
        "tile_height": math.ceil(height / TILE),
        "tiles_per_gauss": tiles_per_gauss,
        "width": width,
        "height": height,
        "tile_size": TILE,
        "n_cameras": num_cameras,
    }
    return images, alphas, info


@cache
def _radii_have_two_axes() -> bool:
    """Tell whether the installed gsplat gives a radius per axis, as it does from 1.5 on."""
    try:
        major, minor = metadata.version("gsplat").split(".")[:2]
    except metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (1, 5)


def _as_gsplat_gives_them(radii: Tensor) -> Tensor:
    """Give radii in the shape that the strategies of the installed gsplat take: [C, N], or [C, N, 2] from 1.5 on."""
    return torch.stack([radii, radii], dim=-1) if _radii_have_two_axes() else radii
