"""Differentiable blending of projected Gaussians into images."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilled_splat.cpu import buffers
from distilled_splat.cpu.blend_backward import SUMS, blend_backward_kernel, gather_kernel
from distilled_splat.cpu.blend_forward import TABLE, blend_kernel
from distilled_splat.cpu.projection import Projection
from distilled_splat.cpu.threads import on_all_threads, parallel_ranges
from distilled_splat.cpu.tiles import CHANNELS, TileLists, list_tiles, pack_channels_kernel

_NOTHING = np.zeros((0, 2), np.float32)


class _Blend(torch.autograd.Function):
    """See `blend`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        colors: Tensor,
        depths: Tensor,
        backgrounds: Optional[Tensor],
        radii: Tensor,
        width: int,
        height: int,
        with_depth: bool,
        absgrad: bool,
        keeps: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        num_cameras, num_gaussians, num_colors = colors.shape
        num_channels = num_colors + with_depth
        image = buffers.empty_tensor((num_cameras, height, width, num_channels))
        alphas = buffers.empty_tensor((num_cameras, height, width, 1))
        tiles_per_gaussian = torch.empty(num_cameras, num_gaussians, dtype=torch.int32)
        kept = (num_cameras, height, width) if keeps else (num_cameras, 0, 0)
        transmittances, stops = buffers.empty(kept), buffers.empty(kept, np.int32)
        background = _channels_of(backgrounds, num_cameras, num_channels)
        tensors = (means2d, conics, opacities, radii, colors, depths)
        projected = [x.detach().numpy() for x in tensors]
        lists = []
        for c in range(num_cameras):
            of_camera = [x[c] for x in projected]
            tiles = list_tiles(*of_camera, with_depth=with_depth, width=width, height=height)
            tiles_per_gaussian[c] = torch.from_numpy(tiles.tiles_per_gaussian)
            for first in range(0, num_channels, CHANNELS):
                _pack_channels(tiles, of_camera, with_depth, first)
                on_all_threads(
                    blend_kernel,
                    TABLE,
                    tiles.records,
                    tiles.pairs,
                    tiles.tile_starts,
                    background[c],
                    first,
                    num_channels,
                    width,
                    height,
                    image[c].numpy(),
                    alphas[c].numpy(),
                    keeps,
                    transmittances[c],
                    stops[c],
                )
            lists.append(tiles)
        if keeps:
            ctx.save_for_backward(*tensors, backgrounds)
            ctx.lists, ctx.transmittances, ctx.stops = lists, transmittances, stops
            ctx.width, ctx.height, ctx.with_depth, ctx.absgrad = width, height, with_depth, absgrad
        ctx.mark_non_differentiable(tiles_per_gaussian)
        return image, alphas, tiles_per_gaussian

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image: Optional[Tensor], v_alphas: Optional[Tensor], _: Any):
        *tensors, backgrounds = ctx.saved_tensors
        means2d, conics, opacities, _, colors, depths = tensors
        num_cameras, num_gaussians, num_colors = colors.shape
        num_channels = num_colors + ctx.with_depth
        gradients = [buffers.empty_tensor(x.shape) for x in (means2d, conics, opacities, colors, depths)]
        absgrads = buffers.empty_tensor(means2d.shape) if ctx.absgrad else None
        background = _channels_of(backgrounds, num_cameras, num_channels)
        projected = [x.detach().numpy() for x in tensors]
        pixels = (num_cameras, ctx.height, ctx.width)
        v_images = means2d.new_zeros(*pixels, num_channels) if v_image is None else v_image.contiguous()
        v_lights = means2d.new_zeros(*pixels, 1) if v_alphas is None else v_alphas.contiguous()
        for c, tiles in enumerate(ctx.lists):
            of_camera = [x[c] for x in projected]
            v_of_camera = [x[c].numpy() for x in gradients]
            slots = buffers.empty((len(tiles.pairs), SUMS))
            for first in range(0, max(num_channels, 1), CHANNELS):
                _pack_channels(tiles, of_camera, ctx.with_depth, first)
                on_all_threads(
                    blend_backward_kernel,
                    TABLE,
                    tiles.records,
                    tiles.pairs,
                    tiles.tile_starts,
                    background[c],
                    first,
                    num_channels,
                    ctx.width,
                    ctx.height,
                    ctx.transmittances[c],
                    ctx.stops[c],
                    v_images[c].numpy(),
                    v_lights[c].numpy(),
                    ctx.absgrad,
                    slots,
                )
                parallel_ranges(
                    gather_kernel,
                    num_gaussians,
                    tiles.entries,
                    tiles.entry_pairs,
                    slots,
                    of_camera[1],
                    of_camera[2],
                    first,
                    *v_of_camera,
                    ctx.with_depth,
                    _NOTHING if absgrads is None else absgrads[c].numpy(),
                )
        if absgrads is not None:
            means2d.absgrad = absgrads
        v_backgrounds = None
        if backgrounds is not None and ctx.needs_input_grad[5]:
            v_backgrounds = torch.einsum("chwd,chw->cd", v_images, torch.from_numpy(ctx.transmittances))
        return (
            *gradients[:4],
            gradients[4] if ctx.with_depth else None,
            v_backgrounds,
            None,
            None,
            None,
            None,
            None,
            None,
        )


def _channels_of(backgrounds: Optional[Tensor], num_cameras: int, num_channels: int) -> np.ndarray:
    if backgrounds is None:
        return np.zeros((num_cameras, num_channels), np.float32)
    return backgrounds.detach().contiguous().numpy()


def _pack_channels(tiles: TileLists, of_camera: list[np.ndarray], with_depth: bool, first: int) -> None:
    """Put channels from `first` on into the records, unless they hold them already."""
    num_channels = of_camera[4].shape[1] + with_depth
    if num_channels > CHANNELS:
        args = (of_camera[4], of_camera[5], with_depth, first, tiles.records)
        parallel_ranges(pack_channels_kernel, len(tiles.records), *args)


def blend(
    projection: Projection,
    opacities: Tensor,
    colors: Tensor,
    backgrounds: Optional[Tensor],
    width: int,
    height: int,
    with_depth: bool,
    absgrad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Blend projected Gaussians front to back, differentiably.

    Args:
        projection: Gaussians on the image planes.
        opacities: Opacities, compensated where that is wanted [C, N].
        colors: Colours [C, N, D]; D may be 0.
        backgrounds: Colours behind everything, with depth's where it is drawn [C, D + with_depth], or None for black.
        width, height: Image size in pixels.
        with_depth: Whether depth is drawn as one more channel after the colours.
        absgrad: Whether backward puts the summed absolute gradients of the centres into `means2d.absgrad`.

    Returns:
        Images [C, height, width, D + with_depth], alphas [C, height, width, 1], and the number of tiles that the square
        of each Gaussian touches [C, N].
    """
    inputs = (projection.means2d, projection.conics, opacities, colors, projection.depths, backgrounds)
    keeps = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    settings = (width, height, with_depth, absgrad, keeps)
    return _Blend.apply(*inputs, projection.radii, *settings)  # type: ignore[return-value]
