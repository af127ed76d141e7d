"""Gaussian rasterization written out in dense float64 torch: the yardstick for the CPU kernels.

Every Gaussian is evaluated at every pixel and autograd does the rest. It shares no code with the package and follows
the formulas of 3D Gaussian splatting with gsplat 1.4's cutoffs.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

import torch
from torch import Tensor

TILE = 16


class Reference(NamedTuple):
    """What the reference renders, and how near each pixel is to a decision that rounding may turn."""

    image: Tensor
    """[C, H, W, X]."""
    alphas: Tensor
    """[C, H, W, 1]."""
    means2d: Tensor
    """[C, N, 2], a tensor of the graph."""
    radii: Tensor
    """[C, N]."""
    offsets: list[Tensor]
    """Per camera, zeros added to the centres as each pixel sees them [H * W, N, 2]: their gradients give absgrad."""
    safe: Tensor
    """Pixels no Gaussian of which lies within 1e-4 relative of a cutoff [C, H, W]."""


def rotation_matrices(quats: Tensor) -> Tensor:
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        torch.stack([w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z], -1),
    ]
    return torch.stack(rows, -2)


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics with Condon-Shortley phase, from Legendre polynomials [..., (degree + 1)^2]."""
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    columns = []
    for level in range(degree + 1):
        for order in range(-level, level + 1):
            m = abs(order)
            legendre = _legendre_without_sine(level, m, z)
            circle = torch.complex(x, y) ** m if m else torch.complex(torch.ones_like(x), torch.zeros_like(x))
            norm = math.sqrt((2 * level + 1) / (4 * math.pi) * math.factorial(level - m) / math.factorial(level + m))
            azimuth = circle.real if order >= 0 else circle.imag
            columns.append(norm * (math.sqrt(2) if m else 1.0) * (-1) ** m * legendre * azimuth)
    return torch.stack(columns, -1)


def _legendre_without_sine(level: int, m: int, z: Tensor) -> Tensor:
    """P_level^m(z) divided by (1 - z^2)^(m / 2), without the phase."""
    previous, current = torch.zeros_like(z), torch.full_like(z, float(math.prod(range(1, 2 * m, 2))))
    for i in range(m + 1, level + 1):
        previous, current = current, ((2 * i - 1) * z * current - (i + m - 1) * previous) / (i - m)
    return current


def project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int, eps2d: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project into one camera: centres [N, 2], depths [N], covariances with blur [N, 2, 2], compensations [N]."""
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    x, y, z = (means @ rotation.T + translation).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
    tx = z * torch.clamp(x / z, min=-(cx / fx + margin_x), max=(width - cx) / fx + margin_x)
    ty = z * torch.clamp(y / z, min=-(cy / fy + margin_y), max=(height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [torch.stack([fx / z, zero, -fx * tx / z**2], -1), torch.stack([zero, fy / z, -fy * ty / z**2], -1)], -2
    )
    axes = rotation_matrices(quats) * scales[:, None, :]
    in_image = jacobian @ rotation @ axes
    covariance = in_image @ in_image.transpose(-1, -2)
    blurred = covariance + eps2d * torch.eye(2, dtype=means.dtype)
    ratio = torch.linalg.det(covariance) / torch.linalg.det(blurred)
    centre = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    return centre, z, blurred, torch.sqrt(ratio.clamp_min(1e-30))


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: Optional[int] = None,
    backgrounds: Optional[Tensor] = None,
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
) -> Reference:
    """Render float64 Gaussians into each camera; arguments as for gsplat's `rasterization`."""
    cameras = []
    for c, (viewmat, K) in enumerate(zip(viewmats, Ks)):
        projected = project(means, quats, scales, viewmat, K, width, height, eps2d)
        compensated = opacities * projected[3] if rasterize_mode == "antialiased" else opacities
        if sh_degree is None:
            shaded = colors if colors.dim() == 2 else colors[c]
        else:
            coefficients = (colors if colors.dim() == 3 else colors[c])[:, : (sh_degree + 1) ** 2]
            centre = -viewmat[:3, :3].inverse() @ viewmat[:3, 3]
            shaded = torch.einsum("nk,nkc->nc", harmonics(means - centre, sh_degree), coefficients)
            shaded = torch.clamp_min(shaded + 0.5, 0.0)
        channels = {"D": projected[1][:, None], "RGB": shaded}.get(
            render_mode.replace("ED", "D"), torch.cat([shaded, projected[1][:, None]], -1)
        )
        background = channels.new_zeros(channels.shape[1])
        if backgrounds is not None and "RGB" in render_mode:
            background = torch.cat([backgrounds[c], backgrounds.new_zeros(channels.shape[1] - backgrounds.shape[1])])
        limits = (near_plane, far_plane, radius_clip)
        cameras.append(_blend(projected, compensated, channels, background, width, height, limits))
    image, alphas, means2d, radii, safe = (torch.stack(x) for x in zip(*(camera[:-1] for camera in cameras)))
    if "ED" in render_mode:
        image = torch.cat([image[..., :-1], image[..., -1:] / alphas.clamp_min(1e-10)], -1)
    return Reference(image, alphas, means2d, radii, [camera[-1] for camera in cameras], safe)


def _blend(
    projected: tuple[Tensor, ...],
    opacities: Tensor,
    channels: Tensor,
    background: Tensor,
    width: int,
    height: int,
    limits: tuple[float, float, float],
) -> tuple[Tensor, ...]:
    centres, depths, covariances, _ = projected
    near_plane, far_plane, radius_clip = limits
    largest = torch.linalg.eigvalsh(covariances.detach())[:, 1]
    mean_variance = covariances.detach().diagonal(dim1=-2, dim2=-1).mean(-1)
    largest = torch.maximum(largest, mean_variance + 0.1)
    exact_radii = 3 * largest.sqrt()
    radii = exact_radii.ceil()
    inside = ((centres + radii[:, None] > 0) & (centres - radii[:, None] < torch.tensor([width, height]))).all(-1)
    visible = (depths >= near_plane) & (depths <= far_plane) & (radii > radius_clip) & inside

    order = torch.argsort(depths.detach(), stable=True)
    order = order[visible[order]]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2)
    offsets = torch.zeros(len(pixels), len(centres), 2, dtype=centres.dtype, requires_grad=True)
    to_pixel = (centres + offsets - (pixels[:, None] + 0.5))[:, order]
    inverse = torch.linalg.inv(covariances)[order]
    sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", to_pixel, inverse, to_pixel)
    raw = opacities[order] * torch.exp(-sigma)
    first_tile = torch.floor((centres - radii[:, None])[order] / TILE)
    last_tile = torch.ceil((centres + radii[:, None])[order] / TILE)
    tile = torch.div(pixels, TILE, rounding_mode="floor")[:, None]
    in_square = ((tile >= first_tile) & (tile < last_tile)).all(-1)
    touched = (raw >= 1 / 255) & in_square
    alpha = torch.where(touched, raw.clamp_max(0.999), 0.0)
    passed = torch.cumprod(1 - alpha, 1)
    drawn = touched & (passed > 1e-4)
    alpha = torch.where(torch.cumprod((drawn | ~touched).int(), 1).bool(), alpha, 0.0)
    passed = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(passed[:, :1]), passed], 1)
    weights = alpha * before[:, :-1]
    image = weights @ channels[order] + before[:, -1:] * background

    close = in_square & ((raw * 255 - 1).abs() < 1e-4) | ((raw - 0.999).abs() < 1e-6)
    close |= touched & ((torch.cumprod(1 - torch.where(touched, raw.clamp_max(0.999), 0.0), 1) - 1e-4).abs() < 1e-7)
    safe = ~close.any(1)
    size = (height, width)
    all_radii = torch.where(visible, radii, 0.0)
    image, alphas = image.reshape(*size, -1), 1 - before[:, -1].reshape(*size, 1)
    return image, alphas, centres, all_radii, safe.reshape(size), offsets
