"""gsplat 1.4's kernels that blend Gaussians into pixels, tile by tile in torch; the gradients are autograd's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, Optional

import torch
from torch import Tensor

LARGEST_ALPHA = 0.999
LEAST_ALPHA = 1 / 255
LEAST_LIGHT = 1e-4
CHANNELS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33)
"""Numbers of channels that gsplat has compiled kernels for, as far as anybody here needs them."""


class Tile(NamedTuple):
    """One tile of an image.

    Attributes:
        place: its part of an image.
        shape: its height and width.
        pixels: centres of its pixels in the image (x, y), [P, 2].
        ids: numbers of the Gaussians that touch it, front to back, [n].
    """

    place: tuple[slice, slice]
    shape: tuple[int, int]
    pixels: Tensor
    ids: Tensor


def tiles(width: int, height: int, tile_size: int, offsets: Tensor, flatten_ids: Tensor) -> Iterator[Tile]:
    """Go through the tiles of one camera's image."""
    assert offsets.dtype == flatten_ids.dtype == torch.int32 and offsets.shape[0] == 1
    ends = [*offsets.flatten().tolist(), len(flatten_ids)]
    for number, (first, last) in enumerate(pairwise(ends)):
        row, column = divmod(number, offsets.shape[2])
        top, left = row * tile_size, column * tile_size
        bottom, right = min(top + tile_size, height), min(left + tile_size, width)
        y, x = torch.meshgrid(torch.arange(top, bottom), torch.arange(left, right), indexing="ij")
        yield Tile(
            place=(slice(top, bottom), slice(left, right)),
            shape=(bottom - top, right - left),
            pixels=torch.stack((x.flatten(), y.flatten()), dim=1) + 0.5,
            ids=flatten_ids[first:last].long(),
        )


def blend(
    to_centre: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, background: Optional[Tensor]
) -> tuple[Tensor, Tensor]:
    """Blend a tile's Gaussians, front to back; differentiable in all arguments.

    Args:
        to_centre: from each pixel to each Gaussian's centre [P, n, 2].
        conics: inverse covariances [n, 3].
        colors: [n, D].
        opacities: [n].
        background: [D], or None for black.

    Returns:
        Colours [P, D] and alphas [P, 1].
    """
    dx, dy = to_centre.unbind(-1)
    sigma = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    alpha = (opacities * torch.exp(-sigma)).clamp_max(LARGEST_ALPHA)
    alpha = alpha * ((sigma >= 0) & (alpha >= LEAST_ALPHA))
    alpha = alpha * (torch.cumprod(1 - alpha.detach(), dim=1) > LEAST_LIGHT)
    light = torch.cat((torch.ones(len(alpha), 1), torch.cumprod(1 - alpha, dim=1)), dim=1)
    image = (alpha * light[:, :-1]) @ colors
    return (image if background is None else image + light[:, -1:] * background), 1 - light[:, -1:]


def rasterize_to_pixels_fwd(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    backgrounds: Optional[Tensor],
    masks: Optional[Tensor],
    width: int,
    height: int,
    tile_size: int,
    offsets: Tensor,
    flatten_ids: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return colours [1, H, W, D], alphas [1, H, W, 1] and each pixel's last Gaussian (nobody here reads it)."""
    assert masks is None and colors.shape[-1] in CHANNELS
    image, alphas = torch.empty(height, width, colors.shape[-1]), torch.empty(height, width, 1)
    background = None if backgrounds is None else backgrounds[0]
    for tile in tiles(width, height, tile_size, offsets, flatten_ids):
        centres, *rest = (tensor[0, tile.ids] for tensor in (means2d, conics, colors, opacities))
        color, alpha = blend(centres - tile.pixels[:, None], *rest, background=background)
        image[tile.place] = color.reshape(*tile.shape, -1)
        alphas[tile.place] = alpha.reshape(*tile.shape, 1)
    return image[None], alphas[None], torch.zeros(1, height, width, dtype=torch.int32)


def rasterize_to_pixels_bwd(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    backgrounds: Optional[Tensor],
    masks: Optional[Tensor],
    width: int,
    height: int,
    tile_size: int,
    offsets: Tensor,
    flatten_ids: Tensor,
    alphas: Tensor,
    last_ids: Tensor,
    v_colors: Tensor,
    v_alphas: Tensor,
    absgrad: bool,
) -> tuple[Optional[Tensor], ...]:
    """Return the gradients: of centres in absolute values (if wanted), of centres, conics, colours and opacities."""
    v_means2d, v_means2d_abs = torch.zeros_like(means2d), torch.zeros_like(means2d)
    rest = (conics, colors, opacities)
    v_rest = [torch.zeros_like(tensor) for tensor in rest]
    background = None if backgrounds is None else backgrounds[0]
    for tile in tiles(width, height, tile_size, offsets, flatten_ids):
        with torch.enable_grad():
            to_centre = (means2d[0, tile.ids] - tile.pixels[:, None]).requires_grad_()
            leaves = [to_centre, *(tensor[0, tile.ids].requires_grad_() for tensor in rest)]
            outputs = blend(*leaves, background=background)
            cotangents = [v[0][tile.place].reshape(len(tile.pixels), -1) for v in (v_colors, v_alphas)]
            v_to_centre, *v_here = torch.autograd.grad(outputs, leaves, cotangents)
        v_means2d[0].index_add_(0, tile.ids, v_to_centre.sum(dim=0))
        v_means2d_abs[0].index_add_(0, tile.ids, v_to_centre.abs().sum(dim=0))
        for total, value in zip(v_rest, v_here):
            total[0].index_add_(0, tile.ids, value)
    return v_means2d_abs if absgrad else None, v_means2d, *v_rest
