"""Read a Gaussian .ply of any trainer: numbers only, and nothing is allocated before the file's size vouches for it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyListProperty
from torch import Tensor

from distilled_splat.gaussians import SH_DEGREE_0, Gaussians

LONGEST_HEADER = 1 << 16
"""Bytes; the header of a splat of degree 4 has about 2000."""
REST_COUNTS = (0, 9, 24, 45, 72)
"""Numbers of f_rest properties for degrees 0 to 4."""
SHAPE = (
    ("x", "y", "z"),
    ("rot_0", "rot_1", "rot_2", "rot_3"),
    ("scale_0", "scale_1", "scale_2"),
    ("opacity",),
)
"""Properties of means, quaternions (w, x, y, z), logarithms of scales, and logits of opacities."""
COUNT = re.compile(rb"^(element[ \t]+\S+[ \t]+)(\d{1,18})(?=\s*$)", re.MULTILINE)
REMARK = re.compile(rb"^(comment|obj_info).*\n", re.MULTILINE)


@dataclass(frozen=True)
class Header:
    """What a .ply declares.

    Attributes:
        elements: the elements by name, in the file's order, without any rows.
        counts: the declared number of rows of each.
        byte_order: of binary numbers, < or >; None where numbers are text.
        size: length of the header in bytes.
    """

    elements: dict[str, PlyElement]
    counts: dict[str, int]
    byte_order: Optional[str]
    size: int

    def properties(self, element: str) -> tuple[str, ...]:
        """Return the names of an element's properties, empty if there is no such element."""
        return tuple(item.name for item in self.elements[element].properties) if element in self.elements else ()

    def row_bytes(self, element: str) -> int:
        """Return the bytes that a row of an element takes, at least: a number as text has a digit and a space."""
        if self.byte_order is None:
            return 2 * len(self.properties(element))
        return self.elements[element].dtype(self.byte_order).itemsize

    def before(self, element: str) -> list[str]:
        """Return the names of the elements whose rows come before those of this one."""
        names = list(self.elements)
        return names[: names.index(element)]


def read_header(path: Path) -> Header:
    """Read a .ply's header and see that the file is long enough for the rows that it declares.

    Raises:
        ValueError: if the file is no .ply, declares more than it holds, or holds lists.
    """
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    head, end, _ = start.partition(b"end_header")
    if not start.startswith(b"ply") or not end:
        raise ValueError(f"{path} is no .ply file: it does not begin with a .ply header.")
    newline = start[3:5] if start[3:5] == b"\r\n" else start[3:4]
    counts = [int(count) for _, count in COUNT.findall(head)]
    # the same header with no rows and no remarks, which may be in any encoding
    bare = COUNT.sub(rb"\g<1>0", REMARK.sub(b"", head)) + end + newline
    try:
        parsed = PlyData.read(io.BytesIO(bare))
        names = [element.name for element in parsed.elements]
        if len(counts) != len(names):
            raise ValueError("an element has no count")
        header = Header(
            dict(zip(names, parsed.elements)),
            dict(zip(names, counts)),
            None if parsed.text else parsed.byte_order,
            len(head + end + newline),
        )
        lists = any(isinstance(item, PlyListProperty) for element in parsed.elements for item in element.properties)
        needed = 0 if lists else sum(header.counts[name] * header.row_bytes(name) for name in names)
    except Exception as error:
        raise ValueError(f"{path} has a damaged .ply header ({summary(error)}).") from error
    if lists:
        raise ValueError(f"{path} holds lists of numbers (a mesh?): a Gaussian .ply has plain numbers only.")
    there = max(path.stat().st_size - header.size, 0)
    if needed > there + (header.byte_order is None):  # the last number of a text needs no space behind it
        raise ValueError(
            f"{path} declares {header.counts.get('vertex', 0)} Gaussians, at least {needed} bytes, and holds {there}: "
            "it is truncated or damaged. Export it again."
        )
    return header


def summary(error: BaseException) -> str:
    """Return an error's words on one line of bounded length."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


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
        ValueError: if the file is no such splat, is truncated, or declares more than it holds.
    """
    header = read_header(path)
    names = header.properties("vertex")
    if "packed_position" in names:
        from distilled_splat.packed import read_compressed_ply

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
        raise ValueError(f"{path} cannot be read as a .ply ({summary(error)}): export it again.") from error

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
