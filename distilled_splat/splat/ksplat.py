"""Read mkkellogg's .ksplat: sections of Gaussians in full or in half precision, whose centres lie in buckets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from distilled_splat.splat.splat_file import SplatFile, coefficients, gaussians_of, log, logit

HEADER = struct.Struct("<BB2xIIIIH2x3f2f")
"""Version, places for sections, sections, places for Gaussians, Gaussians, compression, centre, range of harmonics."""
HEADER_BYTES = 4096
SECTION = struct.Struct("<IIIIfHxxI4xIIH")
"""Gaussians, places for them, size of a bucket, buckets, width of a bucket, bytes of a bucket, levels of half a width,
(bytes of the section,) full buckets, others, degree."""
SECTION_BYTES = 1024
DEFAULT_LEVELS = 32767
DEFAULT_RANGE = 1.5
COEFFICIENTS = (0, 3, 8)
FLOATS = {0: ("<f4", "<f4", "<f4"), 1: ("<u2", "<f2", "<f2"), 2: ("<u2", "<f2", "u1")}
"""By compression: how centres, scales with rotations, and harmonics are stored."""


@dataclass(frozen=True)
class Section:
    """Gaussians of one degree: how many are there, and where their numbers lie.

    Attributes:
        count: of Gaussians.
        row: of one of them.
        bucket_size: Gaussians in a full bucket.
        full: number of full buckets.
        step: of a centre, in world units.
        levels: the level of the middle of a bucket.
        degree: of the harmonics.
        buckets: byte at which the sizes of the other buckets, and then the middles of all begin.
        others: number of buckets that are not full.
        bucket_bytes: of one bucket's middle.
        num_buckets: of both kinds.
        rows: byte at which the Gaussians begin.
    """

    count: int
    row: np.dtype
    bucket_size: int
    full: int
    step: float
    levels: int
    degree: int
    buckets: int
    others: int
    bucket_bytes: int
    num_buckets: int
    rows: int


def row_of(compression: int, degree: int) -> np.dtype:
    """Return how one Gaussian is stored."""
    centre, number, harmonic = FLOATS[compression]
    return np.dtype(
        [
            ("means", centre, 3),
            ("scales", number, 3),
            ("quats", number, 4),
            ("colours", "u1", 4),
            ("harmonics", harmonic, 3 * COEFFICIENTS[degree]),
        ]
    )


def read_ksplat(path: Path) -> SplatFile:
    """Read a .ksplat of version 0.x, of any compression and of degree 0 to 2.

    Raises:
        ValueError: if it is not one, is truncated, or contradicts itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(HEADER.size)
        if len(start) < HEADER.size or size < HEADER_BYTES:
            raise ValueError(f"{path} is not a .ksplat file: it is too short for a header.")
        major, minor, places, _, _, _, compression, *_, least, greatest = HEADER.unpack(start)
        if major != 0 or compression not in FLOATS:
            raise ValueError(f"{path} is not a .ksplat file of version 0: convert it to a plain .ply.")
        if HEADER_BYTES + places * SECTION_BYTES > size:
            raise ValueError(f"{path} declares {places} sections, but has {size} bytes: it is truncated or damaged.")
        sections = list(sections_of(path, file, places, compression, size))
        span = (least or -DEFAULT_RANGE, greatest or DEFAULT_RANGE)
        highest = max((section.degree for section in sections), default=0)
        parts = [part_of(path, file, section, span, highest) for section in sections]
    if not parts:
        raise ValueError(f"{path} has no Gaussians: give another file.")
    joined = [np.concatenate(arrays) for arrays in zip(*parts)]
    return SplatFile(path, gaussians_of(*joined), "ksplat", f"{major}.{minor}")


def sections_of(path: Path, file: BinaryIO, places: int, compression: int, size: int) -> Iterator[Section]:
    """Go through the headers of the sections that hold Gaussians, each held against the file's size.

    Raises:
        ValueError: if one declares more than the file holds, or a degree that there is not.
    """
    begin = HEADER_BYTES + places * SECTION_BYTES
    for place in range(places):
        file.seek(HEADER_BYTES + place * SECTION_BYTES)
        count, room, bucket_size, num_buckets, width, bucket_bytes, levels, full, others, degree = SECTION.unpack(
            file.read(SECTION.size)
        )
        if degree >= len(COEFFICIENTS):
            raise ValueError(f"{path} is a damaged .ksplat file: {degree} is not a valid degree of harmonics.")
        row = row_of(compression, degree)
        rows = begin + 4 * others + bucket_bytes * num_buckets
        end = rows + row.itemsize * room
        if count > room or end > size:
            raise ValueError(
                f"{path} declares {count} Gaussians, {end} bytes, but has {size}: it is truncated or damaged. "
                "Export it again."
            )
        if count:
            levels = levels or DEFAULT_LEVELS
            yield Section(
                count, row, bucket_size, full, width / 2 / levels, levels, degree,
                begin, others, bucket_bytes, num_buckets, rows,
            )  # fmt: skip
        begin = end


def part_of(
    path: Path, file: BinaryIO, section: Section, span: tuple[float, float], degree: int
) -> tuple[np.ndarray, ...]:
    """Read one section's means, quaternions, log scales, logit opacities, and harmonics of degree 0 and above.

    Args:
        path: names the file in refusals.
        file: where to read.
        section: where the numbers lie.
        span: least and greatest coefficient that a byte stands for.
        degree: of the harmonics to return.

    Raises:
        ValueError: if a Gaussian lies in a bucket that is not there.
    """
    file.seek(section.rows)
    rows = np.fromfile(file, section.row, section.count)
    means = rows["means"].astype(np.float64)
    if rows["means"].dtype == np.uint16:
        means = (means - section.levels) * section.step + middles(path, file, section)
    colours = rows["colours"] / 255
    harmonics = rows["harmonics"].astype(np.float64)
    if rows["harmonics"].dtype == np.uint8:
        harmonics = span[0] + harmonics / 255 * (span[1] - span[0])
    rest = np.zeros((section.count, COEFFICIENTS[degree], 3))
    for band in range(1, section.degree + 1):  # each band has all of red, then green, then blue
        chosen = slice(COEFFICIENTS[band - 1], COEFFICIENTS[band])
        values = harmonics[:, 3 * chosen.start : 3 * chosen.stop]
        rest[:, chosen] = values.reshape(section.count, 3, -1).transpose(0, 2, 1)
    return means, rows["quats"], log(rows["scales"]), logit(colours[:, 3]), coefficients(colours[:, :3]), rest


def middles(path: Path, file: BinaryIO, section: Section) -> np.ndarray:
    """Return the middle of the bucket of each Gaussian, [N, 3].

    Raises:
        ValueError: if a Gaussian lies in a bucket that is not there.
    """
    file.seek(section.buckets)
    sizes = np.fromfile(file, "<u4", section.others).astype(np.int64)
    table = np.fromfile(file, np.uint8, section.num_buckets * section.bucket_bytes)
    in_full = section.full * section.bucket_size
    places = np.arange(section.count)
    bucket = section.full + np.searchsorted(in_full + np.cumsum(sizes), places, side="right")
    if in_full:
        bucket = np.where(places < in_full, places // max(section.bucket_size, 1), bucket)
    if section.bucket_bytes < 12 or int(bucket.max()) >= section.num_buckets:
        raise ValueError(f"{path} is a damaged .ksplat file: a Gaussian is not in any bucket. Export it again.")
    table = table.reshape(section.num_buckets, section.bucket_bytes)[:, :12]
    return np.ascontiguousarray(table).view("<f4").astype(np.float64)[bucket]
