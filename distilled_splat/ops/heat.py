"""Show numbers as colours."""

from __future__ import annotations

from nerfstudio.utils.colormaps import apply_float_colormap
from torch import Tensor


def heat(values: Tensor) -> Tensor:
    """Turn numbers in [0, 1] into colours from black to pale yellow, [..., 3]."""
    if values.numel() == 0:  # an empty splat, for which nerfstudio would look for the smallest value
        return values.new_zeros((*values.shape, 3))
    return apply_float_colormap(values.clamp(0, 1)[..., None], "inferno")


def error_picture(error: Tensor, gain: float = 4.0) -> Tensor:
    """Show an absolute error [H, W, 1] as colours [H, W, 3], brightest from 1 / gain on."""
    return heat(gain * error[..., 0])
