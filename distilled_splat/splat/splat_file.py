"""What a reader of any format hands on: the Gaussians, and what the file says about them."""

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
"""Stands for an infinite logit: the opacity is 1 or 0 in 32-bit floats, and gradients stay numbers."""
SMALLEST_LOG_SCALE = -20.0
"""Stands for the logarithm of a scale of 0."""


@dataclass(frozen=True)
class SplatFile:
    """One file of a splat.

    Attributes:
        path: the file, or the folder of an unbundled SOG.
        gaussians: its Gaussians, with no number that is NaN or infinite.
        format: its name, such as ply or spz.
        version: of the format, empty where it has none.
        antialiased: whether it is to be rendered with the antialiased rasterizer; None where the file does not say.
        other_axes: what files of this format also have for x, y and z, by name: the transform [3, 4] that turns what
            was read to what it is then.
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
    """Make Gaussians of arrays of any numbers; their shapes are those of `Gaussians`, without `sh_rest` degree 0."""
    rest = np.zeros((len(means), 0, 3)) if sh_rest is None else sh_rest
    with np.errstate(over="ignore", invalid="ignore"):
        arrays = [np.array(a, np.float32, order="C") for a in (means, quats, log_scales, logit_opacities, sh_dc, rest)]
    return Gaussians(*map(torch.from_numpy, arrays))


def logit(opacities: np.ndarray) -> np.ndarray:
    """Return the inverse sigmoid of opacities in 0 to 1; that of 0 and of 1 is infinite."""
    with np.errstate(divide="ignore"):
        opacities = np.asarray(opacities, np.float64)
        return np.log(opacities) - np.log1p(-opacities)


def log(scales: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of scales; that of 0 is infinite, that of a negative number is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.asarray(scales, np.float64))


def coefficients(colours: np.ndarray) -> np.ndarray:
    """Return the coefficients of degree 0 that show as colours in 0 to 1."""
    return (np.asarray(colours, np.float64) - 0.5) / SH_DEGREE_0


def whole(file: SplatFile) -> SplatFile:
    """Return a file whose numbers are all finite.

    Editors write an infinite logit for a Gaussian that is quite opaque (or quite transparent), and the logarithm of 0
    for one that is flat. Those become large finite numbers that render the same.

    Raises:
        ValueError: naming the file, if it holds no Gaussians, or a number that is NaN or infinite otherwise.
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
