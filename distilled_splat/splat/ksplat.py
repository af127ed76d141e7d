"""Read mkkellogg's .ksplat: sections of Gaussians in full or half precision, with centres relative to buckets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from distilled_splat.splat.splat_file import SplatFile, coefficients, gaussians_of, log, logit

HEADER = struct.Struct("<BB2xIIIIH2x3f2f")
"""Version, largest and actual number of sections, largest and actual number of Gaussians, compression, centre, range
of harmonics."""
HEADER_BYTES = 4096
SECTION = struct.Struct("<IIIIfHxxI4xIIH")
"""Number of Gaussians, largest number of Gaussians, Gaussians in a bucket, buckets, width of a bucket, bytes of a
bucket, levels of half a width, (bytes of the section,) full buckets, other buckets, degree."""
SECTION_BYTES = 1024
DEFAULT_LEVELS = 32767
DEFAULT_RANGE = 1.5
COEFFICIENTS = (0, 3, 8)
FLOATS = {0: ("<f4", "<f4", "<f4"), 1: ("<u2", "<f2", "<f2"), 2: ("<u2", "<f2", "u1")}
"""Types of centres, of scales and rotations, and of harmonics, by compression."""


@dataclass(frozen=True)
class Section:
    """A section: Gaussians of one degree, and the positions of their numbers in the file.

    Attributes:
        count: number of Gaussians.
        row: type of one Gaussian's row.
        bucket_size: number of Gaussians in a full bucket.
        full: number of full buckets.
        step: step of a centre's coordinate, in world units.
        levels: level of the middle of a bucket.
        degree: degree of the harmonics.
        buckets: first byte of the sizes of the other buckets, which the middles of all buckets follow.
        others: number of buckets that are not full.
        bucket_bytes: bytes of one bucket's middle.
        num_buckets: number of all buckets.
        rows: first byte of the Gaussians.
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
    """Return the type of one Gaussian's row."""
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
    """Read a .ksplat of version 0.x, of any compression, and of degree 0 to 2.

    Raises:
        ValueError: if the file is not a .ksplat, is truncated, or contradicts itself.
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
    """Yield the sections that have Gaussians, each checked against the file's size.

    Raises:
        ValueError: if a section declares more than the file has, or an invalid degree.
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
        path: path of the file, for messages.
        file: the open file.
        section: the section to read.
        span: coefficients for the bytes 0 and 255.
        degree: degree of the harmonics to return.

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
