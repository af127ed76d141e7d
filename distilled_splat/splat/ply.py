"""Read a Gaussian .ply of any trainer: numbers only, with memory only after a check of the file's size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distilled_splat.runs.words import words_of
from distilled_splat.splat.compressed import read_compressed_ply
from distilled_splat.splat.mip import fused
from distilled_splat.splat.ply_header import SHAPE, Header, read_header
from distilled_splat.splat.splat_file import SplatFile, coefficients, gaussians_of

REST_COUNTS = (0, 9, 24, 45, 72)
"""Numbers of f_rest properties for degrees 0 to 4."""
LOG_FLATNESS = np.log(1e-3)
"""Logarithm of the ratio of a 2D Gaussian's thickness to its smaller width."""


def read_columns(path: Path, header: Header) -> dict[str, np.ndarray]:
    """Read the properties of the vertices, each [N].

    Raises:
        ValueError: if the rows do not match the header.
    """
    names, count, before = header.properties("vertex"), header.counts["vertex"], header.before("vertex")
    if header.byte_order is not None:
        offset = header.size + sum(header.counts[name] * header.row_bytes(name) for name in before)
        rows = np.fromfile(path, header.elements["vertex"].dtype(header.byte_order), count, offset=offset)
        return {name: rows[name] for name in names}
    if count == 0:
        return {name: np.zeros(0) for name in names}
    with path.open("rb") as file:
        file.seek(header.size)
        for _ in range(sum(header.counts[name] for name in before)):
            file.readline()
        table = np.loadtxt(file, dtype=np.float64, max_rows=count, ndmin=2, comments=None)
    if table.shape != (count, len(names)):
        raise ValueError(f"{table.shape} numbers instead of {(count, len(names))}")
    return dict(zip(names, table.T))


def read_ply(path: Path) -> SplatFile:
    """Read an exported splat as Inria, gsplat, nerfstudio, Brush, OpenSplat and Mip-Splatting write it.

    The file is binary in either byte order, or ascii. It has spherical harmonics of degree 0 to 4, or plain colours
    (red, green, blue). Other properties, such as normals, are ignored. Opacities are logits, scales are logarithms, and
    f_rest has all of red, then green, then blue. Without a third scale they are 2D Gaussians, flat along their third
    axis. Mip-Splatting's `filter_3D` is fused into scales and opacities. A compressed .ply has its own reader.

    Raises:
        ValueError: if the file is not such a splat, is truncated, or declares more than it has.
    """
    header = read_header(path)
    names = header.properties("vertex")
    if "packed_position" in names:
        return read_compressed_ply(path, header)
    rest = [name for name in names if re.fullmatch(r"f_rest_\d+", name)]
    if len(rest) not in REST_COUNTS or set(rest) != {f"f_rest_{i}" for i in range(len(rest))}:
        raise ValueError(
            f"{path} has {len(rest)} f_rest properties: degrees 0 to 4 of harmonics have 0, 9, 24, 45 or 72."
        )
    flat = {"scale_0", "scale_1"} <= set(names) and "scale_2" not in names
    plain = not any(name in names for name in ("f_dc_0", *rest)) and "red" in names
    colours = ("red", "green", "blue") if plain else ("f_dc_0", "f_dc_1", "f_dc_2")
    position, rotation, scale, opacity = SHAPE
    groups = (position, rotation, scale[:2] if flat else scale, opacity, colours)
    missing = [name for group in groups for name in group if name not in names]
    if missing:
        raise ValueError(f"{path} is a .ply without Gaussians: it lacks {', '.join(missing[:4])}.")
    try:
        rows = read_columns(path, header)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a .ply ({words_of(error)}): export it again.") from error

    def columns(names: Sequence[str]) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.stack([rows[name].astype(np.float32) for name in names], axis=1)

    means, quats, log_scales, logit_opacities, sh_dc = (columns(group) for group in groups)
    if flat:
        log_scales = np.append(log_scales, log_scales.min(axis=1, keepdims=True) + LOG_FLATNESS, axis=1)
    sh_rest = None
    if bands := len(rest) // 3:
        numbers = columns([f"f_rest_{i}" for i in range(3 * bands)])
        sh_rest = numbers.reshape(len(means), 3, bands).transpose(0, 2, 1)
    gaussians = gaussians_of(
        means, quats, log_scales, logit_opacities[:, 0], coefficients(sh_dc / 255) if plain else sh_dc, sh_rest
    )
    filtered = "filter_3D" in names
    if filtered:
        gaussians = fused(gaussians, columns(["filter_3D"])[:, 0])
    kind = "Mip-Splatting" if filtered else "2D Gaussians" if flat else ""
    return SplatFile(path, gaussians, "ply", kind, antialiased=True if filtered else header.antialiased())


def ply_megabytes(count: int, sh_degree: int) -> float:
    """Return the size of an exported .ply in 10^6 bytes: 14 floats per Gaussian and all coefficients."""
    return count * 4 * (14 + 3 * (sh_degree + 1) ** 2) / 1e6
