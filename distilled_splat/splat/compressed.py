"""Read compressed splats, PlayCanvas' compressed .ply and Niantic's .spz, with gsply where it is installed.

gsply's decoders check no bounds and inflate whatever they are given; so the sizes are checked here first.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilled_splat.runs.words import words_of
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.ply_header import Header

CHUNK = 256
"""Gaussians that share one row of bounds in a compressed .ply."""
SH_PROPERTIES = (9, 24, 45)
SPZ_MAGIC = 0x5053474E
SPZ_HEADER = struct.Struct("<IIIBBBB")
SPZ_COEFFICIENTS = (0, 3, 8, 15)
INFLATION = 40
"""A .spz that inflates to more than this many times its size is refused; captures reach about 2."""
SMALLEST_BUDGET = 1 << 20


def gsply_or_refusal(path: Path) -> Any:
    """Import gsply.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import gsply
    except ImportError as error:
        raise ValueError(
            f"{path} is compressed, and its reader is not installed: pip install gsply, or convert the file to a "
            "plain .ply."
        ) from error
    return gsply


def read_compressed_ply(path: Path, header: Header) -> Gaussians:
    """Read a compressed .ply.

    Args:
        path: the file.
        header: its header, which `ply.read_header` has held against the file's size.

    Raises:
        ValueError: if gsply is missing or the file is not laid out as the format says.
    """
    gsply = gsply_or_refusal(path)
    names, count = list(header.elements), header.counts["vertex"]
    laid_out = names in (["chunk", "vertex"], ["chunk", "vertex", "sh"]) and header.byte_order == "<"
    if (
        not laid_out
        or len(header.properties("chunk")) != 18
        or len(header.properties("vertex")) != 4
        or header.counts["chunk"] != -(-count // CHUNK)
        or ("sh" in names and (header.counts["sh"] != count or len(header.properties("sh")) not in SH_PROPERTIES))
    ):
        raise ValueError(f"{path} is not laid out as a compressed .ply is: convert it to a plain .ply.")
    return from_gsply(path, gsply.plyread)


def read_spz(path: Path) -> Gaussians:
    """Read a .spz of versions 1 to 3.

    Raises:
        ValueError: if gsply is missing, or the file is damaged, inflates without measure or is of another version.
    """
    gsply = gsply_or_refusal(path)
    inflated, start = inflated_size(path)
    if len(start) < SPZ_HEADER.size:
        raise ValueError(f"{path} is not a .spz file: it is too short for a header.")
    magic, version, count, degree, *_ = SPZ_HEADER.unpack(start)
    if magic != SPZ_MAGIC or version not in (1, 2, 3) or degree >= len(SPZ_COEFFICIENTS):
        raise ValueError(f"{path} is not a .spz file of versions 1 to 3: convert it to a plain .ply.")
    needed = SPZ_HEADER.size + count * (16 + (4 if version >= 3 else 3) + 3 * SPZ_COEFFICIENTS[degree])
    if needed > inflated:
        raise ValueError(f"{path} declares {count} Gaussians, {needed} bytes, and holds {inflated}: it is damaged.")
    return from_gsply(path, gsply.read_spz)


def inflated_size(path: Path) -> tuple[int, bytes]:
    """Measure what a gzip file inflates to, without keeping it, and return that size with the first 16 bytes.

    Raises:
        ValueError: if it is not a gzip file, is damaged, or inflates without measure.
    """
    budget = max(INFLATION * path.stat().st_size, SMALLEST_BUDGET)
    inflater = zlib.decompressobj(wbits=31)
    size, start = 0, b""
    try:
        with path.open("rb") as file:
            while (data := file.read(1 << 16)) and not inflater.eof:
                while data and not inflater.eof:
                    piece = inflater.decompress(data, 1 << 20)
                    data = inflater.unconsumed_tail
                    size += len(piece)
                    start = (start + piece)[: SPZ_HEADER.size]
                    if size > budget:
                        raise ValueError(f"{path} inflates to more than {budget} bytes: it is not a splat.")
        if not inflater.eof or inflater.unused_data:
            raise ValueError(
                f"{path} is not a .spz file, or a damaged one: its gzip stream does not end with the file."
            )
    except zlib.error as error:
        raise ValueError(
            f"{path} is not a .spz file of versions 1 to 3, or a damaged one ({words_of(error)})."
        ) from error
    return size, start


def from_gsply(path: Path, read: Any) -> Gaussians:
    """Read with one of gsply's readers.

    Raises:
        ValueError: if gsply does not take the file.
    """
    try:
        data = read(str(path))
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({words_of(error)}).") from error
    count = len(data.means)
    rest = np.zeros((count, 0, 3)) if data.shN is None else np.asarray(data.shN).reshape(count, -1, 3)
    arrays = (data.means, data.quats, data.scales, np.reshape(data.opacities, count), np.reshape(data.sh0, (-1, 3)))
    return Gaussians(*(torch.from_numpy(np.array(array, dtype=np.float32)) for array in (*arrays, rest)))
