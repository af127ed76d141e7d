"""Read a Gaussian .ply of any trainer: numbers only, and nothing is allocated before the file's size vouches for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distilled_splat.runs.words import words_of
from distilled_splat.splat.gaussians import SH_DEGREE_0, Gaussians
from distilled_splat.splat.ply_header import SHAPE, Header, read_header

REST_COUNTS = (0, 9, 24, 45, 72)
"""Numbers of f_rest properties for degrees 0 to 4."""


def read_columns(path: Path, header: Header) -> dict[str, np.ndarray]:
    """Read the vertices' properties, each [N].

    Raises:
        ValueError: if the rows are not what the header says.
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


def read_ply(path: Path) -> Gaussians:
    """Read an exported splat as Inria, gsplat, nerfstudio, Brush and OpenSplat write it.

    Binary of either byte order or ascii; degree 0 to 4 of spherical harmonics, or plain colours (red, green, blue);
    other properties, such as normals, are passed over. Opacities are logits, scales logarithms, and f_rest holds all
    of red, then green, then blue. A compressed .ply is handed to `packed.read_compressed_ply`.

    Raises:
        ValueError: if the file is not such a splat, is truncated, or declares more than it holds.
    """
    header = read_header(path)
    names = header.properties("vertex")
    if "packed_position" in names:
        from distilled_splat.splat.compressed import read_compressed_ply

        return read_compressed_ply(path, header)
    rest = [name for name in names if re.fullmatch(r"f_rest_\d+", name)]
    if len(rest) not in REST_COUNTS or set(rest) != {f"f_rest_{i}" for i in range(len(rest))}:
        raise ValueError(
            f"{path} has {len(rest)} f_rest properties: 0, 9, 24, 45 or 72 belong to degrees 0 to 4 of harmonics."
        )
    plain = not any(name in names for name in ("f_dc_0", *rest)) and "red" in names
    colours = ("red", "green", "blue") if plain else ("f_dc_0", "f_dc_1", "f_dc_2")
    groups = (*SHAPE, colours)
    missing = [name for group in groups for name in group if name not in names]
    if missing:
        raise ValueError(f"{path} is a .ply, but holds no Gaussians: it lacks {', '.join(missing[:4])}.")
    try:
        rows = read_columns(path, header)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a .ply ({words_of(error)}): export it again.") from error

    def columns(names: Sequence[str]) -> Tensor:
        with np.errstate(over="ignore", invalid="ignore"):
            values = [rows[name].astype(np.float32) for name in names]
        return torch.from_numpy(np.stack(values, axis=1))

    means, quats, log_scales, logit_opacities, sh_dc = (columns(group) for group in groups)
    count, bands = len(means), len(rest) // 3
    sh_rest = torch.zeros(count, 0, 3)
    if bands:
        sh_rest = columns([f"f_rest_{i}" for i in range(3 * bands)]).reshape(count, 3, bands).transpose(1, 2)
    return Gaussians(
        means=means,
        quats=quats,
        log_scales=log_scales,
        logit_opacities=logit_opacities[:, 0],
        sh_dc=(sh_dc / 255 - 0.5) / SH_DEGREE_0 if plain else sh_dc,
        sh_rest=sh_rest.contiguous(),
    )


def ply_megabytes(count: int, sh_degree: int) -> float:
    """Return the size of an exported .ply in 10^6 bytes: 14 floats a Gaussian and its coefficients above degree 0."""
    return count * 4 * (14 + 3 * (sh_degree + 1) ** 2) / 1e6
