"""What the CPU rasterizer is given: checked, with one sentence for each thing that is wrong."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from distilled_splat.cpu.bases import MAX_DEGREE
from distilled_splat.cpu.tiles import CHANNELS, TILE

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
RASTERIZE_MODES = ("classic", "antialiased")


def refuse_unsupported(**given: Any) -> None:
    """Raise a ValueError naming the first option whose value the CPU rasterizer does not support.

    Args:
        given: packed, sparse_grad, distributed, camera_model, covars and tile_size as the user gave them.
    """
    supported = {
        "packed": False,
        "sparse_grad": False,
        "distributed": False,
        "camera_model": "pinhole",
        "covars": None,
        "tile_size": TILE,
    }
    for name, value in given.items():
        if value is not supported[name] and (isinstance(value, Tensor) or value != supported[name]):
            shown = "a tensor" if isinstance(value, Tensor) else repr(value)
            raise ValueError(
                f"The CPU rasterizer does not support {name}={shown}; use {name}={supported[name]!r}, or a CUDA device."
            )


def check_choices(render_mode: str, rasterize_mode: str, width: int, height: int) -> None:
    """Raise a ValueError for an unknown mode or an image without pixels."""
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode is {render_mode!r}; it must be one of {', '.join(RENDER_MODES)}.")
    if rasterize_mode not in RASTERIZE_MODES:
        raise ValueError(f"rasterize_mode is {rasterize_mode!r}; it must be one of {', '.join(RASTERIZE_MODES)}.")
    if width < 1 or height < 1:
        raise ValueError(f"The image is {width} by {height} pixels; width and height must be at least 1.")


def check_tensors(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    rest: Optional[Tensor],
    viewmats: Tensor,
    Ks: Tensor,
    backgrounds: Optional[Tensor],
    sh_degree: Optional[int],
) -> None:
    """Raise a ValueError for a tensor of a wrong shape, element type or device; arguments as for `rasterization`.

    `rest` is the second of a pair of colours.
    """
    n, c = len(means), len(viewmats)
    shapes = {
        "means": (means, (n, 3)),
        "quats": (quats, (n, 4)),
        "scales": (scales, (n, 3)),
        "opacities": (opacities, (n,)),
        "viewmats": (viewmats, (c, 4, 4)),
        "Ks": (Ks, (c, 3, 3)),
    }
    for name, (tensor, shape) in shapes.items():
        _check_tensor(name, tensor)
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {list(tensor.shape)}; with {n} means and {c} cameras it must be {list(shape)}."
            )
    if c == 0:
        raise ValueError("viewmats has no camera; give at least one.")
    if not bool(((Ks[:, 0, 0] > 0) & (Ks[:, 1, 1] > 0)).all()):
        raise ValueError(f"Ks has focal lengths {Ks[:, [0, 1], [0, 1]].tolist()}; they must be positive.")
    _check_tensor("colors", colors)
    if rest is not None:
        _check_tensor("colors[1]", rest)
        if sh_degree is None or not 0 <= sh_degree <= MAX_DEGREE:
            raise ValueError(f"sh_degree is {sh_degree}; with a pair of colors it must be from 0 to {MAX_DEGREE}.")
        bases = (sh_degree + 1) ** 2
        fits = tuple(colors.shape) == (n, 3) and rest.dim() == 3 and (rest.shape[0], rest.shape[2]) == (n, 3)
        if not fits or 1 + rest.shape[1] < bases:
            raise ValueError(
                f"colors has shapes {list(colors.shape)} and {list(rest.shape)}; they must be [{n}, 3] "
                f"and [{n}, K - 1, 3] with K at least {bases} for sh_degree={sh_degree}."
            )
        wanted = ""
    elif sh_degree is None:
        fits = colors.dim() in (2, 3) and tuple(colors.shape[:-1]) in ((n,), (c, n)) and colors.shape[-1] > 0
        wanted = f"[{n}, D] or [{c}, {n}, D]"
    else:
        if not 0 <= sh_degree <= MAX_DEGREE:
            raise ValueError(f"sh_degree is {sh_degree}; it must be from 0 to {MAX_DEGREE}.")
        bases = (sh_degree + 1) ** 2
        fits = colors.dim() in (3, 4) and tuple(colors.shape[:-2]) in ((n,), (c, n)) and colors.shape[-1] == 3
        fits = fits and colors.shape[-2] >= bases
        wanted = f"[{n}, K, 3] or [{c}, {n}, K, 3] with K at least {bases} for sh_degree={sh_degree}"
    if not fits:
        raise ValueError(f"colors has shape {list(colors.shape)}; it must be {wanted}.")
    if backgrounds is not None:
        _check_tensor("backgrounds", backgrounds)
        if tuple(backgrounds.shape) != (c, colors.shape[-1]):
            raise ValueError(f"backgrounds has shape {list(backgrounds.shape)}; it must be [{c}, {colors.shape[-1]}].")


def check_absgrad(absgrad: bool, num_channels: int) -> None:
    """Raise a ValueError where absolute gradients would have to be summed over several passes."""
    if absgrad and num_channels > CHANNELS:
        raise ValueError(
            f"absgrad with {num_channels} channels is not supported on the CPU; render at most {CHANNELS} at once."
        )


def _check_tensor(name: str, tensor: Tensor) -> None:
    if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
        raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}; the CPU rasterizer takes torch.float32 on cpu.")
