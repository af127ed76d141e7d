"""Read PlayCanvas' SOG, a bundled .sog or a folder of meta.json and pictures, with one pixel per Gaussian."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distilled_splat.runs.words import type_and_words, words_of
from distilled_splat.splat.archive import Archive
from distilled_splat.splat.compressed import with_largest
from distilled_splat.splat.splat_file import SplatFile, gaussians_of, logit

META = "meta.json"
LONGEST_META = 1 << 20
"""Bytes. A meta.json with its three codebooks has about 16 thousand."""
INFLATION = 10
"""Pictures of more than this many times the size of the file are refused. Real captures reach about 2."""
SMALLEST_BUDGET = 1 << 22
COEFFICIENTS = (0, 3, 8, 15)
PALETTE_COLUMNS = 64
TAG = 252
"""The alpha of a quaternion's pixel is this number plus the index of the largest component."""


class Pictures:
    """The pictures of one file, decoded one at a time, up to a total size that depends on the size of the file."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.budget = max(INFLATION * archive.size, SMALLEST_BUDGET)

    def pixels(self, name: object) -> np.ndarray:
        """Decode a picture.

        Returns:
            Red, green, blue and alpha, [H, W, 4], uint8.

        Raises:
            ValueError: if the picture is missing, cannot be decoded, or is too large.
        """
        content = self.archive.read(name, max(self.archive.size, SMALLEST_BUDGET))
        try:
            with Image.open(io.BytesIO(content), formats=("WEBP", "PNG")) as image:
                self.budget -= 4 * image.width * image.height
                if self.budget < 0:
                    raise ValueError(f"its pictures are larger than those of a splat of {self.archive.size} bytes")
                return np.asarray(image.convert("RGBA"))
        except Exception as error:  # Pillow passes on the errors of its decoders
            raise ValueError(f"{self.archive.path}: {name} cannot be read as a picture ({words_of(error)}).") from error


def read_sog(path: Path) -> SplatFile:
    """Read a SOG of version 1 or 2.

    Args:
        path: a .sog bundle, a meta.json beside its pictures, or the folder of both.

    Raises:
        ValueError: if the file is not a SOG, is damaged, or unpacks to too many bytes for its size.
    """
    archive = Archive(path.parent if path.name == META else path)
    try:
        meta = json.loads(archive.read(META, LONGEST_META))
        version = int(meta.get("version", 1))
        count = int(meta["count"] if version >= 2 else meta["means"]["shape"][0])
        if version not in (1, 2) or count < 0:
            raise ValueError(f"version {version} is unknown")
        gaussians = gaussians_of(*arrays_of(meta, version, count, Pictures(archive)))
        said = meta.get("antialias")
        return SplatFile(path, gaussians, "sog", f"{version}", antialiased=said if isinstance(said, bool) else None)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is a damaged SOG: its {META} is incomplete ({type_and_words(error)}).") from error
    except ValueError as error:
        if str(error).startswith(str(archive.path)):
            raise
        raise ValueError(f"{path} is a damaged SOG ({words_of(error)}). Export it again.") from error


def arrays_of(meta: dict[str, Any], version: int, count: int, pictures: Pictures) -> tuple[np.ndarray, ...]:
    """Decode means, quaternions, log scales, logit opacities and harmonics, as described by meta.json.

    Raises:
        ValueError: if a picture is too small for the Gaussians, or has an invalid rotation.
        IndexError: if a picture refers to a missing entry of a codebook.
    """

    def picture(name: str, place: int = 0) -> np.ndarray:
        pixels = pictures.pixels(meta[name]["files"][place]).reshape(-1, 4)
        if len(pixels) < count:
            raise ValueError(f"{count} Gaussians do not fit into the {len(pixels)} pixels of {name}")
        return pixels[:count]

    low, high = picture("means", 0)[:, :3].astype(np.int64), picture("means", 1)[:, :3].astype(np.int64)
    folded = between(meta["means"], (low | high << 8) / 65535)
    with np.errstate(over="ignore"):
        means = np.sign(folded) * np.expm1(np.abs(folded))
    quats = picture("quats")
    tags = quats[:, 3].astype(np.int64) - TAG
    if (tags < 0).any():
        raise ValueError("a pixel of quats is not a rotation")
    scales, colours = picture("scales"), picture("sh0")
    if version == 1:
        log_scales = between(meta["scales"], scales[:, :3] / 255)
        shades = between(meta["sh0"], colours / 255)
        sh_dc, logit_opacities = shades[:, :3], shades[:, 3]
    else:
        log_scales = entries(meta["scales"], scales[:, :3])
        sh_dc, logit_opacities = entries(meta["sh0"], colours[:, :3]), logit(colours[:, 3] / 255)
    rest = np.zeros((count, 0, 3))
    if "shN" in meta:
        labels = picture("shN", 1)[:, :2].astype(np.int64)
        palette = palette_of(meta["shN"], version, pictures.pixels(meta["shN"]["files"][0]))
        rest = palette[labels[:, 0] | labels[:, 1] << 8]
    rotations = with_largest((quats[:, :3] / 127.5 - 1) * np.sqrt(0.5), tags)
    return means, rotations, log_scales, logit_opacities, sh_dc, rest


def palette_of(meta: dict[str, Any], version: int, pixels: np.ndarray) -> np.ndarray:
    """Return the coefficients of all labels, [P, 3 | 8 | 15, 3]. A row of the picture has 64 sets side by side.

    Raises:
        ValueError: if the width of the picture does not match the degree.
    """
    height, width, _ = pixels.shape
    bands = width // PALETTE_COLUMNS
    if bands not in COEFFICIENTS[1:] or width % PALETTE_COLUMNS or meta.get("bands") not in (
        None, COEFFICIENTS.index(bands),
    ):  # fmt: skip
        raise ValueError(f"a picture of harmonics cannot be {width} pixels wide")
    values = between(meta, pixels[..., :3] / 255) if version == 1 else entries(meta, pixels[..., :3])
    return values.astype(np.float32).reshape(height * PALETTE_COLUMNS, bands, 3)


def between(meta: dict[str, Any], fractions: np.ndarray) -> np.ndarray:
    """Interpolate between meta.json's `mins` and `maxs`, which are single numbers or have one per channel.

    Raises:
        ValueError: if they are anything else. Nested lists would multiply the memory.
    """
    least, greatest = np.array(meta["mins"], np.float64), np.array(meta["maxs"], np.float64)
    if {least.shape, greatest.shape} - {(), fractions.shape[-1:]}:
        raise ValueError(f"its bounds have {least.size} and {greatest.size} numbers for {fractions.shape[-1]} channels")
    return least + fractions * (greatest - least)


def entries(meta: dict[str, Any], places: np.ndarray) -> np.ndarray:
    """Return the numbers of a codebook at these indices.

    Raises:
        IndexError: if the codebook is shorter.
        ValueError: if it is not a list of numbers.
    """
    codebook = np.array(meta["codebook"], np.float64)
    if codebook.ndim != 1:
        raise ValueError("a codebook is not a list of numbers")
    return codebook[places]
