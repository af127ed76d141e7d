"""The losses of Distilled-3DGS as pure functions: photometric (photo and pseudo label) and structural."""

from __future__ import annotations

from functools import cache

import torch
from pytorch_msssim import ssim as pytorch_ssim
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


@cache
def ssim_window(device: torch.device) -> Tensor:
    """Return the SSIM window on a device, one for each colour, [3, 1, 1, 11]; each sums to 1.

    pytorch_msssim would make it on the CPU and upload it at every call.
    """
    distance = torch.arange(SSIM_WINDOW, dtype=torch.float32) - SSIM_WINDOW // 2
    weights = torch.exp(-(distance**2) / (2 * SSIM_SIGMA**2))
    return (weights / weights.sum()).repeat(3, 1, 1, 1).to(device)


def l1_and_ssim(rendered: Tensor, *targets: Tensor) -> tuple[Tensor, ...]:
    """Return the mean absolute difference and the mean SSIM of an image to each target, in the order of the targets.

    SSIM is that of 3DGS and splatfacto: an 11x11 Gaussian window of sigma 1.5, valid positions only. On the CPU one
    fused kernel computes both. On CUDA, and for images smaller than the window, pytorch_msssim computes SSIM.

    Args:
        rendered: image that gradients flow into, [H, W, 3], in [0, 1].
        targets: images to compare with, [H, W, 3].
    """
    fits = min(rendered.shape[:2]) >= SSIM_WINDOW
    if fits and rendered.device.type == "cpu" and rendered.dtype == torch.float32:
        from distilled_splat.cpu.ssim import l1_and_ssim as fused

        return fused(rendered, *targets)
    values = []
    for target in targets:
        images = (image.permute(2, 0, 1)[None] for image in (target, rendered))
        ssim = pytorch_ssim(*images, data_range=1.0, size_average=True, win=ssim_window(rendered.device))
        values += [torch.abs(rendered - target).mean(), ssim]
    return tuple(values)


def photometric_losses(rendered: Tensor, *targets: Tensor, ssim_weight: float = 0.2) -> list[Tensor]:
    """Return L_color = (1 - l) L1 + l (1 - SSIM) for each target, Distilled-3DGS section 3.1 with l = `ssim_weight`.

    Args:
        rendered: image that gradients flow into, [H, W, 3], in [0, 1].
        targets: images to compare with (photo, pseudo label), [H, W, 3].
        ssim_weight: l.
    """
    values = l1_and_ssim(rendered, *targets)
    return [(1 - ssim_weight) * l1 + ssim_weight * (1 - ssim) for l1, ssim in zip(values[::2], values[1::2])]


def psnr(image: Tensor, reference: Tensor) -> float:
    """Return the peak signal-to-noise ratio of two images in [0, 1], in dB."""
    return float(-10 * torch.log10(torch.mean((image - reference) ** 2).clamp_min(1e-12)))
