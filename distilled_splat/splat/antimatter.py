"""Read antimatter15's .splat: 32 bytes per Gaussian without a header, so only its name identifies it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distilled_splat.splat.splat_file import SplatFile, coefficients, gaussians_of, log, logit

ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("colours", "u1", 4), ("quats", "u1", 4)])


def read_splat_rows(path: Path) -> SplatFile:
    """Read a .splat: positions, scales, colours with opacities, and quaternions (w, x, y, z), without harmonics.

    Raises:
        ValueError: if the file's length is not a whole number of Gaussians.
    """
    size = path.stat().st_size
    if size == 0 or size % ROW.itemsize:
        raise ValueError(
            f"{path} is not a .splat file: it has {size} bytes, and a Gaussian takes {ROW.itemsize}. Export it again."
        )
    rows = np.fromfile(path, ROW)
    colours = rows["colours"] / 255
    gaussians = gaussians_of(
        rows["means"],
        rows["quats"].astype(np.float64) / 128 - 1,
        log(rows["scales"]),
        logit(colours[:, 3]),
        coefficients(colours[:, :3]),
    )
    return SplatFile(path, gaussians, "splat")
