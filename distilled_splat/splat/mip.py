"""Fuse Mip-Splatting's 3D smoothing filter into the Gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.splat_file import logit


def fused(gaussians: Gaussians, radii: np.ndarray) -> Gaussians:
    """Convolve each Gaussian with an isotropic Gaussian, without changing its mass.

    A scale s becomes sqrt(s^2 + f^2), and an opacity is multiplied by sqrt(det S / det S'), with the covariances S
    before and S' after. The trainer writes the same numbers into its fused .ply for viewers.

    Args:
        gaussians: the Gaussians as the trainer optimised them.
        radii: standard deviation f of each Gaussian's filter, in world units, [N].
    """
    with np.errstate(all="ignore"):
        before = gaussians.log_scales.double().numpy()
        after = 0.5 * np.logaddexp(2 * before, np.log(np.square(radii.astype(np.float64)))[:, None])
        thinned = np.exp(np.minimum((before - after).sum(axis=1), 0))
        opacities = thinned / (1 + np.exp(-gaussians.logit_opacities.double().numpy()))
    return replace(
        gaussians,
        log_scales=torch.from_numpy(after.astype(np.float32)),
        logit_opacities=torch.from_numpy(logit(opacities).astype(np.float32)),
    )
