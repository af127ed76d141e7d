"""Pictures of premultiplied colour and of the light that passes, stored small, laid over any background."""

from __future__ import annotations

import torch
from nerfstudio.models.splatfacto import resize_image
from torch import Tensor

LEVELS = 65535
"""Steps of a stored value: 16 bits are far finer than what the mean of three renders is off from the photo."""


def stored(color: Tensor, alpha: Tensor) -> Tensor:
    """Pack premultiplied colours [H, W, 3] and the light that passes, 1 - alpha [H, W, 1], into uint16, [H, W, 4]."""
    image = torch.cat((color, 1 - alpha), dim=-1).clamp(0, 1)
    return (image * LEVELS + 0.5).to(torch.uint16)


def resized(image: Tensor, downscale: int) -> Tensor:
    """Average an image [H, W, C] down by an integer factor, as nerfstudio does with photos."""
    return resize_image(image, downscale) if downscale > 1 else image


def over_background(image: Tensor, background: Tensor, downscale: int = 1) -> Tensor:
    """Lay a packed picture over a background colour [3], averaged down by an integer factor; [H, W, 3] in [0, 1]."""
    if downscale == 1 and image.device.type == "cpu":
        from distilled_splat.cpu.labels import composite

        return composite(image, background)
    floats = resized(image.float() / LEVELS, downscale)
    return torch.addcmul(floats[..., :3], floats[..., 3:], background).clamp_(0.0, 1.0)
