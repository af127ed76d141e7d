"""Store premultiplied colours and transmittance compactly, and composite them over a background."""

from __future__ import annotations

import torch
from nerfstudio.models.splatfacto import resize_image
from torch import Tensor

LEVELS = 65535
"""Steps of a stored value: 16 bits are far finer than the error of the mean of three renders."""


def stored(color: Tensor, alpha: Tensor) -> Tensor:
    """Pack premultiplied colours [H, W, 3] and the transmittance 1 - alpha [H, W, 1] into uint16, [H, W, 4]."""
    image = torch.cat((color, 1 - alpha), dim=-1).clamp(0, 1)
    return (image * LEVELS + 0.5).to(torch.uint16)


def resized(image: Tensor, downscale: int) -> Tensor:
    """Downscale an image [H, W, C] by an integer factor, as nerfstudio downscales photos."""
    return resize_image(image, downscale) if downscale > 1 else image


def over_background(image: Tensor, background: Tensor, downscale: int = 1) -> Tensor:
    """Downscale a packed picture by an integer factor and composite it over a colour [3]; [H, W, 3] in [0, 1]."""
    if downscale == 1 and image.device.type == "cpu":
        from distilled_splat.cpu.labels import composite

        return composite(image, background)
    floats = resized(image.float() / LEVELS, downscale)
    return torch.addcmul(floats[..., :3], floats[..., 3:], background).clamp_(0.0, 1.0)
