"""Read Niantic's .spz of versions 1 to 4: compressed with gzip, uncompressed, or in zstd streams."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from distilled_splat.splat.compressed import with_largest
from distilled_splat.splat.frames import RIGHT_UP_BACK
from distilled_splat.splat.inflation import budget_of, gunzipped, unzstd
from distilled_splat.splat.splat_file import SplatFile, gaussians_of, logit

MAGIC = b"NGSP"
GZIP = b"\x1f\x8b"
HEADER = struct.Struct("<4sIIBBBB")
"""Magic, version, Gaussians, degree, fractional bits, flags, and in version 4 the number of streams."""
HEADER_4 = 32
"""Bytes. The position of the table of contents follows the number of streams; the rest is unused."""
ANTIALIASED = 1
COEFFICIENTS = (0, 3, 8, 15, 24)
COLOUR_RANGE = 0.15
"""Coefficients of degree 0 are between -0.5 and 0.5 divided by this number."""
LARGEST_FRACTION = 24


@dataclass(frozen=True)
class Header:
    """The declarations of a .spz: version, Gaussians, degree of harmonics, fractional bits, flags and streams."""

    version: int
    count: int
    degree: int
    fraction: int
    flags: int
    streams: int

    @property
    def sections(self) -> dict[str, int]:
        """The sizes of positions, alphas, colours, scales, rotations and harmonics in bytes, in the file's order."""
        each = {
            "positions": 6 if self.version == 1 else 9,
            "alphas": 1,
            "colours": 3,
            "scales": 3,
            "rotations": 4 if self.version >= 3 else 3,
            "harmonics": 3 * COEFFICIENTS[self.degree],
        }
        return {name: self.count * size for name, size in each.items()}


def read_spz(path: Path) -> SplatFile:
    """Read a .spz.

    Raises:
        ValueError: if the file is damaged, inflates to too many bytes, or has another version, or if it has version 4
            and no zstd decoder is installed.
    """
    with path.open("rb") as file:
        start = file.read(HEADER.size)
        file.seek(0)
        budget = budget_of(path)
        if start.startswith(GZIP):
            content = gunzipped(path, file, budget)
            header = header_of(path, content, (1, 2, 3))
        else:
            header = header_of(path, start, (1, 2, 3, 4))
            content = file.read()
    size = sum(header.sections.values())
    if header.version == 4:
        sections = streams(path, content, header, budget)
    else:
        if HEADER.size + size > len(content):
            raise declares_more(path, header, HEADER.size + size, len(content))
        ends = HEADER.size + np.cumsum([0, *header.sections.values()])
        sections = [memoryview(content)[begin:end] for begin, end in pairwise(ends.tolist())]
    return decoded(path, header, sections)


def header_of(path: Path, start: bytes, versions: tuple[int, ...]) -> Header:
    """Read the header.

    Raises:
        ValueError: if the file does not have one of these versions.
    """
    if len(start) < HEADER.size:
        raise ValueError(f"{path} is not a .spz file: it is too short for a header.")
    magic, version, count, degree, fraction, flags, streams = HEADER.unpack_from(start)
    if magic != MAGIC or version not in versions or degree >= len(COEFFICIENTS) or fraction > LARGEST_FRACTION:
        raise ValueError(
            f"{path} is not a .spz file of versions {versions[0]} to {versions[-1]}: convert it to a plain .ply."
        )
    return Header(version, count, degree, fraction, flags, streams)


def declares_more(path: Path, header: Header, needed: int, there: int) -> ValueError:
    """Return the error for a file that is shorter than its header says."""
    return ValueError(
        f"{path} declares {header.count} Gaussians, {needed} bytes, but has {there}: it is truncated or damaged. "
        "Export it again."
    )


def streams(path: Path, content: bytes, header: Header, budget: int) -> list[memoryview]:
    """Inflate the streams of version 4 one by one. Empty sections have no stream; a table of contents has the sizes.

    Raises:
        ValueError: if the table contradicts the header or the file, or a stream contradicts the table.
    """
    sections = list(header.sections.values())
    wanted = [size for size in sections if size > 0]
    if sum(wanted) > budget:
        raise declares_more(path, header, sum(wanted), len(content))
    (place,) = struct.unpack_from("<I", content, HEADER.size) if len(content) >= HEADER_4 else (0,)
    if place < HEADER_4 or place + 16 * header.streams > len(content) or header.streams != len(wanted):
        raise ValueError(f"{path} is a damaged .spz file: its table of contents is missing. Export it again.")
    table = [struct.unpack_from("<QQ", content, place + 16 * i) for i in range(header.streams)]
    if [inflated for _, inflated in table] != wanted:
        raise ValueError(f"{path} is a damaged .spz file: its streams do not match its header. Export it again.")
    begins = place + 16 * header.streams + np.cumsum([0, *(packed for packed, _ in table)], dtype=object)
    if begins[-1] > len(content):
        raise ValueError(f"{path} is truncated: a stream ends after the end of the file. Export it again.")
    found = (
        unzstd(path, content[begin : begin + packed], inflated) for begin, (packed, inflated) in zip(begins, table)
    )
    return [memoryview(next(found) if size else b"") for size in sections]


def decoded(path: Path, header: Header, sections: list[memoryview]) -> SplatFile:
    """Decode the six sections, which have the lengths in the header."""
    positions, alphas, colours, scales, rotations, harmonics = (np.frombuffer(part, np.uint8) for part in sections)
    count, smallest_three = header.count, header.version >= 3
    if header.version == 1:
        means = positions.view("<f2").reshape(count, 3).astype(np.float64)
    else:
        low, middle, high = positions.reshape(count, 3, 3).astype(np.int64).transpose(2, 0, 1)
        means = ((low | middle << 8 | high << 16) ^ 0x800000) - 0x800000
        means = means / 2.0**header.fraction
    rest = harmonics.reshape(count, COEFFICIENTS[header.degree], 3)
    xyzw = packed_quaternions(rotations.view("<u4")) if smallest_three else three_of_four(rotations.reshape(count, 3))
    gaussians = gaussians_of(
        means,
        np.roll(xyzw, 1, axis=1),
        scales.reshape(count, 3) / 16 - 10,
        logit(alphas / 255),
        (colours.reshape(count, 3) / 255 - 0.5) / COLOUR_RANGE,
        (rest.astype(np.float64) - 128) / 128,
    )
    antialiased = bool(header.flags & ANTIALIASED)
    return SplatFile(path, gaussians, "spz", f"{header.version}", antialiased, other_axes={"rub": RIGHT_UP_BACK})


def packed_quaternions(packed: np.ndarray) -> np.ndarray:
    """Unpack quaternions of versions 3 and 4: the index of the largest component, and sign and size of the others.

    Args:
        packed: two bits for the index, then a sign bit and nine bits per component, the last component in the lowest
            bits, [N], uint32.

    Returns:
        x, y, z, w, of length 1, [N, 4].
    """
    fields = packed[:, None] >> np.array([20, 10, 0], np.uint32)
    sizes = (fields & 511) / 511 * np.sqrt(0.5)
    return with_largest(np.where(fields & 512, -sizes, sizes), packed >> 30)


def three_of_four(parts: np.ndarray) -> np.ndarray:
    """Unpack quaternions of versions 1 and 2 from the bytes of x, y, z [N, 3]; return x, y, z, w, [N, 4]."""
    return with_largest(parts / 127.5 - 1, np.full(len(parts), 3))
