"""What a file of a splat holds, in a line or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from rich.console import Console

from distilled_splat.splat.archive import Archive
from distilled_splat.splat.files import read_splat
from distilled_splat.splat.sog import META

FAINT, OPAQUE = 1 / 255, 0.99
"""Opacities below the first are never drawn; those above the second hide nearly all that is behind."""


@dataclass(frozen=True)
class Info:
    """What a file holds.

    Attributes:
        path: as it was given.
        format: its name.
        version: of the format, empty where it has none.
        gaussians: how many.
        sh_degree: of their harmonics.
        extent: sizes along x, y and z of the box around the centres, in the file's units.
        faint: part of the Gaussians whose opacity is below 1/255.
        opaque: part of those above 0.99.
        antialiased: whether it is to be rendered so, None where the file does not say.
        bytes: that the file takes, or all files of an unbundled SOG.
    """

    path: str
    format: str
    version: str
    gaussians: int
    sh_degree: int
    extent: tuple[float, float, float]
    faint: float
    opaque: float
    antialiased: Optional[bool]
    bytes: int


def info_of(path: Path) -> Info:
    """Read a file and say what it holds.

    Raises:
        ValueError: if it cannot be read as a splat.
    """
    found = read_splat(path)
    gaussians = found.gaussians
    opacities = gaussians.logit_opacities.sigmoid()
    x, y, z = (gaussians.means.amax(dim=0) - gaussians.means.amin(dim=0)).tolist()
    unbundled = path.is_dir() or path.name == META
    return Info(
        path=f"{path}",
        format=found.format,
        version=found.version,
        gaussians=len(gaussians),
        sh_degree=gaussians.sh_degree,
        extent=(x, y, z),
        faint=float((opacities < FAINT).float().mean()),
        opaque=float((opacities > OPAQUE).float().mean()),
        antialiased=found.antialiased,
        bytes=Archive(path if path.is_dir() else path.parent).size if unbundled else path.stat().st_size,
    )


def print_infos(paths: Sequence[Path], as_json: bool, console: Console) -> None:
    """Print what files hold, for people or as a list of JSON objects; whatever cannot be read is told at the end.

    Raises:
        ValueError: if there are no files, or with the reasons, a line for each file that cannot be read.
    """
    if not paths:
        raise ValueError("No file is given: give one or more splat files.")
    found: list[Info] = []
    refused: list[str] = []
    for path in paths:
        try:
            found.append(info_of(path.expanduser()))
        except ValueError as error:
            refused.append(str(error))
    if as_json:
        console.print_json(json.dumps([asdict(info) for info in found], allow_nan=False))
    else:
        for info in found:
            console.print(f"{info.path}\n  {words_of_info(info)}", markup=False)
    if refused:
        raise ValueError("\n".join(refused))


def words_of_info(info: Info) -> str:
    """Return what a file holds as a line for people."""
    mode = {None: "antialiasing unknown", True: "antialiased", False: "not antialiased"}[info.antialiased]
    size = " x ".join(f"{side:.3g}" for side in info.extent)
    return (
        f"{' '.join((info.format, info.version)).rstrip()}: {info.gaussians} Gaussians of degree {info.sh_degree}, "
        f"{size}; {info.faint:.1%} faint, {info.opaque:.1%} opaque; {mode}; {info.bytes} bytes"
    )
