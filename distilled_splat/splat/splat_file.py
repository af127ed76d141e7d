"""The result of every reader: the Gaussians, and what the file says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from distilled_splat.splat.gaussians import SH_DEGREE_0, Gaussians

LARGEST_LOGIT = 20.0
"""Replaces an infinite logit. The opacity is 1 or 0 in 32-bit floats, and gradients stay finite."""
SMALLEST_LOG_SCALE = -20.0
"""Replaces the logarithm of a scale of 0."""


@dataclass(frozen=True)
class SplatFile:
    """A splat file.

    Attributes:
        path: the file, or the folder of an unbundled SOG.
        gaussians: its Gaussians, with no number that is NaN or infinite.
        format: name of the format, such as ply or spz.
        version: version of the format; empty if it has none.
        antialiased: whether the splat needs the antialiased rasterizer; None if the file does not say.
        other_axes: other axes that files of this format may have, by name: the transforms [3, 4] from the axes that
            the reader assumed to the right ones.
    """

    path: Path
    gaussians: Gaussians
    format: str
    version: str = ""
    antialiased: Optional[bool] = None
    other_axes: Mapping[str, Tensor] = field(default_factory=dict)


def gaussians_of(
    means: np.ndarray,
    quats: np.ndarray,
    log_scales: np.ndarray,
    logit_opacities: np.ndarray,
    sh_dc: np.ndarray,
    sh_rest: Optional[np.ndarray] = None,
) -> Gaussians:
    """Make Gaussians from arrays of any type, with the shapes of `Gaussians`. Without `sh_rest` the degree is 0."""
    rest = np.zeros((len(means), 0, 3)) if sh_rest is None else sh_rest
    with np.errstate(over="ignore", invalid="ignore"):
        arrays = [np.array(a, np.float32, order="C") for a in (means, quats, log_scales, logit_opacities, sh_dc, rest)]
    return Gaussians(*map(torch.from_numpy, arrays))


def logit(opacities: np.ndarray) -> np.ndarray:
    """Return the inverse sigmoid of opacities in [0, 1]. It is infinite for 0 and 1."""
    with np.errstate(divide="ignore"):
        opacities = np.asarray(opacities, np.float64)
        return np.log(opacities) - np.log1p(-opacities)


def log(scales: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of scales. It is infinite for 0, and NaN for a negative number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.asarray(scales, np.float64))


def coefficients(colours: np.ndarray) -> np.ndarray:
    """Return the coefficients of degree 0 for colours in [0, 1]."""
    return (np.asarray(colours, np.float64) - 0.5) / SH_DEGREE_0


def whole(file: SplatFile) -> SplatFile:
    """Return the file with finite numbers only.

    Editors write an infinite logit for a fully opaque or fully transparent Gaussian, and the logarithm of 0 for a flat
    one. They are replaced by large finite numbers that render the same.

    Raises:
        ValueError: if the file has no Gaussians, or any other number that is NaN or infinite.
    """
    if len(file.gaussians) == 0:
        raise ValueError(f"{file.path} has no Gaussians: give another file.")
    opacities, scales = file.gaussians.logit_opacities, file.gaussians.log_scales
    gaussians = replace(
        file.gaussians,
        logit_opacities=torch.where(opacities.isinf(), LARGEST_LOGIT * opacities.sign(), opacities),
        log_scales=torch.where(scales == -torch.inf, SMALLEST_LOG_SCALE, scales),
    )
    for tensor in fields(gaussians):
        if not bool(torch.isfinite(getattr(gaussians, tensor.name)).all()):
            raise ValueError(
                f"{file.path}: {tensor.name} has NaN or infinite values: its training diverged, or the file is "
                "damaged. Export it again, or give another."
            )
    return replace(file, gaussians=gaussians)
