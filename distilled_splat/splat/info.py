"""Describe splat files in one line each or as JSON."""

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
"""Opacities below `FAINT` are never drawn. Opacities above `OPAQUE` hide nearly everything behind them."""


@dataclass(frozen=True)
class Info:
    """The description of a file.

    Attributes:
        path: the path as given.
        format: name of the format.
        version: version of the format; empty if it has none.
        gaussians: number of Gaussians.
        sh_degree: degree of the spherical harmonics.
        extent: sizes along x, y and z of the box around the centres, in the file's units.
        faint: fraction of the Gaussians with an opacity below 1/255.
        opaque: fraction of the Gaussians with an opacity above 0.99.
        antialiased: whether the splat needs antialiased rendering; None if the file does not say.
        bytes: size of the file, or of all files of an unbundled SOG.
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
    """Read and describe a file.

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
    """Print the descriptions of files, as lines or as a list of JSON objects; report unreadable files at the end.

    Raises:
        ValueError: if there are no files, or if files cannot be read; then the message has a line for each.
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
    """Return the description of a file as one line."""
    mode = {None: "antialiasing unknown", True: "antialiased", False: "not antialiased"}[info.antialiased]
    size = " x ".join(f"{side:.3g}" for side in info.extent)
    return (
        f"{' '.join((info.format, info.version)).rstrip()}: {info.gaussians} Gaussians of degree {info.sh_degree}, "
        f"{size}; {info.faint:.1%} faint, {info.opaque:.1%} opaque; {mode}; {info.bytes} bytes"
    )
