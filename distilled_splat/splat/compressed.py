"""Read PlayCanvas' compressed .ply: 16 bytes per Gaussian relative to its chunk's bounds, a byte per coefficient."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distilled_splat.splat.ply_header import Header
from distilled_splat.splat.splat_file import SplatFile, coefficients, gaussians_of, logit

CHUNK = 256
"""Number of Gaussians that share one row of bounds."""
CHUNK_PROPERTIES = (12, 18)
"""Bounds of position and scale, and in newer files of colour: each has the minima of x, y, z, then the maxima."""
VERTEX = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
SH_PROPERTIES = (0, 9, 24, 45)
SH_RANGE = 8
"""Coefficients are between -4 and 4."""


def read_compressed_ply(path: Path, header: Header) -> SplatFile:
    """Read a compressed .ply, with or without bounds of colours, and with an element `sh` that may be empty.

    Args:
        path: the file.
        header: its header, which `read_header` has checked against the file's size.

    Raises:
        ValueError: if the file does not have the layout of the format.
    """
    names, count = list(header.elements), header.counts["vertex"]
    laid_out = names in (["chunk", "vertex"], ["chunk", "vertex", "sh"]) and header.byte_order == "<"
    if (
        not laid_out
        or header.counts["chunk"] != -(-count // CHUNK)
        or header.counts.get("sh", count) != count
        or header.properties("vertex") != VERTEX
        or len(header.properties("chunk")) not in CHUNK_PROPERTIES
        or len(header.properties("sh")) not in SH_PROPERTIES
        or any(header.kinds(name) - {kind} for name, kind in (("chunk", "f4"), ("vertex", "u4"), ("sh", "u1")))
    ):
        raise ValueError(f"{path} is not a valid compressed .ply: convert it to a plain .ply.")
    width, bands = len(header.properties("chunk")), len(header.properties("sh")) // 3
    with path.open("rb") as file:
        file.seek(header.size)
        chunks = np.fromfile(file, "<f4", header.counts["chunk"] * width).reshape(-1, width)
        packed = np.fromfile(file, "<u4", count * len(VERTEX)).reshape(count, -1)
        levels = np.fromfile(file, np.uint8, count * 3 * bands).reshape(count, 3, bands)
    bounds = chunks.astype(np.float64)[np.arange(count) // CHUNK]
    position, rotation, scale, colour = packed.T

    def between(place: int, fractions: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", over="ignore"):  # bounds that are not numbers are refused later
            return bounds[:, place : place + 3] * (1 - fractions) + bounds[:, place + 3 : place + 6] * fractions

    colours = unpacked(colour, 8, 8, 8, 8)
    gaussians = gaussians_of(
        between(0, unpacked(position, 11, 10, 11)),
        quaternions(rotation),
        between(6, unpacked(scale, 11, 10, 11)),
        logit(colours[:, 3]),
        coefficients(between(12, colours[:, :3]) if width == 18 else colours[:, :3]),
        SH_RANGE * (levels_of_harmonics(levels) - 0.5).transpose(0, 2, 1) if bands else None,
    )
    kind = "" if width == 18 else "without colour bounds"
    return SplatFile(path, gaussians, "compressed-ply", kind, antialiased=header.antialiased())


def unpacked(packed: np.ndarray, *bits: int) -> np.ndarray:
    """Unpack bit fields, the highest first, from 32-bit numbers, as fractions of the largest value of each field.

    Args:
        packed: [N], uint32.
        bits: number of bits of each field, at most 32 in total.

    Returns:
        [N, fields], in [0, 1].
    """
    widths = np.array(bits, np.int64)
    shifts = np.cumsum(widths[::-1])[::-1] - widths
    largest = (1 << widths) - 1
    return ((packed.astype(np.int64)[:, None] >> shifts) & largest) / largest


def quaternions(packed: np.ndarray) -> np.ndarray:
    """Unpack quaternions (w, x, y, z) without their largest component: its index, and the other three in order.

    Args:
        packed: two bits for the index and ten for each component, [N], uint32.

    Returns:
        [N, 4], of length 1.
    """
    others = np.sqrt(2) * (unpacked(packed & 0x3FFFFFFF, 2, 10, 10, 10)[:, 1:] - 0.5)
    return with_largest(others, packed >> 30)


def with_largest(others: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Insert the largest component of quaternions of length 1.

    Args:
        others: the other three components, [N, 3].
        place: index of the largest component among the four, [N].

    Returns:
        [N, 4].
    """
    largest = np.sqrt(np.maximum(1 - np.square(others).sum(axis=1), 0))
    quats = np.empty((len(others), 4))
    taken = np.arange(4) == place.astype(np.int64)[:, None]
    quats[taken], quats[~taken] = largest, others.ravel()
    return quats


def levels_of_harmonics(levels: np.ndarray) -> np.ndarray:
    """Return bytes as fractions: the middles of 256 steps, except 0 for the first step and 1 for the last."""
    return np.where(levels == 0, 0.0, np.where(levels == 255, 1.0, (levels + 0.5) / 256))
