"""Read and check the header of an untrusted .ply, before its numbers are read."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from plyfile import PlyData, PlyElement, PlyListProperty

from distilled_splat.runs.words import words_of

LONGEST_HEADER = 1 << 16
"""Bytes. The header of a splat of degree 4 has about 2000."""
SHAPE = (
    ("x", "y", "z"),
    ("rot_0", "rot_1", "rot_2", "rot_3"),
    ("scale_0", "scale_1", "scale_2"),
    ("opacity",),
)
"""Properties of means, quaternions (w, x, y, z), logarithms of scales, and logits of opacities."""
COUNT = re.compile(rb"^(element[ \t]+\S+[ \t]+)(\d{1,18})(?=\s*$)", re.MULTILINE)
RENDER_MODE = re.compile(
    rb"^comment[ \t]+(?:SplatRenderMode:[ \t]*(?P<brush>\w+)|postshot\.anti_aliasing=(?P<postshot>\d))", re.MULTILINE
)
"""Comments on the rendering of a splat: Brush's is `mip` if antialiased, Postshot's is 1."""
REMARK = re.compile(rb"^(comment|obj_info).*\n", re.MULTILINE)


@dataclass(frozen=True)
class Header:
    """The declarations of a .ply.

    Attributes:
        elements: the elements by name, in the file's order, without any rows.
        counts: the declared number of rows of each.
        byte_order: byte order of binary numbers, < or >; None if the numbers are text.
        size: length of the header in bytes.
        text: the header without its last line.
    """

    elements: dict[str, PlyElement]
    counts: dict[str, int]
    byte_order: Optional[str]
    size: int
    text: bytes

    def properties(self, element: str) -> tuple[str, ...]:
        """Return the names of an element's properties; empty if there is no such element."""
        return tuple(item.name for item in self.elements[element].properties) if element in self.elements else ()

    def kinds(self, element: str) -> set[str]:
        """Return NumPy's names of the types of an element's properties; empty if there is no such element."""
        found = self.elements[element].properties if element in self.elements else ()
        return {str(item.dtype("<")).removeprefix("<") for item in found}

    def antialiased(self) -> Optional[bool]:
        """Return whether the splat needs antialiased rendering; None if the header does not say."""
        found = RENDER_MODE.search(self.text)
        return None if found is None else found["brush"] == b"mip" or found["postshot"] == b"1"

    def row_bytes(self, element: str) -> int:
        """Return the least bytes of an element's row: in a text a line end, a digit and a space for each number."""
        if self.byte_order is None:
            return max(2 * len(self.properties(element)), 1)
        return self.elements[element].dtype(self.byte_order).itemsize

    def before(self, element: str) -> list[str]:
        """Return the names of the elements before this element."""
        names = list(self.elements)
        return names[: names.index(element)]


def read_header(path: Path) -> Header:
    """Read a .ply's header, and check that the file is long enough for the declared rows.

    Raises:
        ValueError: if the file is not a .ply, declares more than it has, or has lists.
    """
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    head, end, _ = start.partition(b"end_header")
    if not start.startswith(b"ply") or not end:
        raise ValueError(f"{path} is not a .ply file: it does not begin with a .ply header.")
    newline = start[3:5] if start[3:5] == b"\r\n" else start[3:4]
    counts = [int(count) for _, count in COUNT.findall(head)]
    # the same header without rows, and without comments, which may be in any encoding
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
            head,
        )
        lists = any(isinstance(item, PlyListProperty) for element in parsed.elements for item in element.properties)
        needed = 0 if lists else sum(header.counts[name] * header.row_bytes(name) for name in names)
    except Exception as error:
        raise ValueError(f"{path} has a damaged .ply header ({words_of(error)}).") from error
    if lists:
        raise ValueError(f"{path} has lists of numbers (a mesh?): a Gaussian .ply has only plain numbers.")
    there = max(path.stat().st_size - header.size, 0)
    if needed > there + (header.byte_order is None):  # the last number of a text needs no space after it
        raise ValueError(
            f"{path} declares {header.counts.get('vertex', 0)} Gaussians, at least {needed} bytes, but has {there}: "
            "it is truncated or damaged. Export it again."
        )
    return header
