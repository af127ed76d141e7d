"""A page in one file that shows splats in any browser, without a server and without Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from distilled_splat.evaluation.browser_splats import camera_at, page_data, splat_page, spz_of
from distilled_splat.runs.files import write_bytes
from distilled_splat.viewing.splats import Shown
from distilled_splat.viewing.start import Start

UNITS = 16.0
"""The page's units per unit of the unit frame. A .spz rounds places to 1/4096 of a unit, and holds up to 2048 units."""
MOST_SPLATS = 2
BACKGROUND = (0.0, 0.0, 0.0)


def check_page(path: Path, splats: Sequence[Path]) -> None:
    """Check a request for a page before anything is read.

    Raises:
        ValueError: if the page would be no .html file, its folder does not exist, or there are too many splats.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--page {path} is not a name for a web page: let it end in .html.")
    if not path.expanduser().absolute().parent.is_dir():
        raise ValueError(f"--page {path}: the folder {path.parent} does not exist.")
    if len(splats) > MOST_SPLATS:
        raise ValueError(f"A page shows one splat, or two side by side, not {len(splats)}.")


def write_page(path: Path, splats: Sequence[Shown], start: Start) -> float:
    """Write the page, and return its size in megabytes (10^6 bytes).

    Args:
        path: the .html file.
        splats: one splat, or two to show side by side, in the unit frame.
        start: the first camera.

    Raises:
        ValueError: if the extra `export`, which writes .spz, is missing.
    """
    packed = [
        spz_of(splat.name, splat.gaussians.to("cpu").centred(torch.zeros(3), 1 / UNITS), splat.antialiased)
        for splat in splats
    ]
    title = " and ".join(splat.name for splat in splats)
    view = start.view
    data = page_data(
        packed, [camera_at(view, start.distance, UNITS)], start.up.tolist(), view.width / view.height, BACKGROUND
    )
    content = splat_page(title, data).encode()
    write_bytes(path.expanduser(), content)
    return len(content) / 1e6
