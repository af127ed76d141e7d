"""Export a trained splat, and measure the cost of each file: megabytes, and decibels on the held-out photos."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Optional

import torch
from rich.console import Console
from rich.table import Table

from distilled_splat.evaluation.held_out import open_run
from distilled_splat.ops.render import render
from distilled_splat.runs.files import write_bytes
from distilled_splat.splat.files import read_splat
from distilled_splat.splat.formats import FORMATS, with_degree
from distilled_splat.splat.frames import UPRIGHT, Move, inverse, moved
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.teachers.reading import Teacher, read_teacher

FrameName = Literal["upright", "nerfstudio", "capture"]
FRAMES: dict[FrameName, str] = {
    "upright": "nerfstudio's frame, turned so that y points down (up in a .glb), as splat viewers expect",
    "nerfstudio": "the frame of ns-export: z points up",
    "capture": "the frame of the original poses, before nerfstudio moved them",
}
"""Coordinate frames of exported files, with a description for people."""


@dataclass(frozen=True)
class Exported:
    """One exported file.

    Attributes:
        kind: its format.
        sh_degree: degree of its spherical harmonics.
        path: its path.
        megabytes: its size in 10^6 bytes.
        psnr: PSNR of the file, read back, on the held-out photos, in dB; None if it was not measured.
        lost: how far this PSNR is below the checkpoint's, in dB.
    """

    kind: str
    sh_degree: int
    path: Path
    megabytes: float
    psnr: Optional[float] = None
    lost: Optional[float] = None


def splat_of(config_path: Path) -> Teacher:
    """Read a run's splat.

    Raises:
        ValueError: if the run does not exist, or has no valid Gaussians.
    """
    if not config_path.expanduser().exists():
        raise ValueError(
            f"{config_path} does not exist: give the config.yml that ns-train wrote into the run's folder."
        )
    return read_teacher(config_path)


def move_into(splat: Teacher, frame: FrameName) -> Move:
    """Return the move from the run's frame (nerfstudio's, in training) to a frame of exported files.

    Raises:
        ValueError: if the run has not recorded how its capture was moved and scaled.
    """
    if frame != "capture":
        return UPRIGHT if frame == "upright" else torch.eye(4)[:3], 1.0
    if splat.frame is None:
        raise ValueError(
            f"The run of {splat.path} has no dataparser_transforms.json, so the capture's frame is unknown: export "
            "with --frame upright."
        )
    return inverse(*splat.frame)


def into_frame(splat: Teacher, frame: FrameName) -> Gaussians:
    """Return a run's Gaussians in a frame of exported files.

    Raises:
        ValueError: if the run has not recorded how its capture was moved and scaled.
    """
    return splat.gaussians if frame == "nerfstudio" else moved(splat.gaussians, *move_into(splat, frame))


def written(gaussians: Gaussians, kind: str, sh_degree: int, folder: Path, antialiased: bool) -> Exported:
    """Write one file, whole or not at all. The format limits the degree of the spherical harmonics.

    Formats that can do so record that the splat needs antialiased rendering.
    """
    form = FORMATS[kind]
    degree = min(sh_degree, gaussians.sh_degree, form.highest_degree)
    content = form.file_of(with_degree(gaussians, degree), antialiased)
    path = folder / f"splat{form.ending}"
    write_bytes(path, content)
    return Exported(kind, degree, path, len(content) / 1e6)


def measure_of(
    config_path: Path, splat: Teacher, frame: FrameName, data: Optional[Path] = None
) -> Callable[[Exported], Exported]:
    """Return a function that reads an exported file back and measures it on the run's held-out photos.

    The file is rendered as a viewer would: antialiased only if the file says so.

    Raises:
        ValueError: if the run's photos are missing, or it has no held-out photos.
    """
    run = open_run(config_path, data, teachers=())
    run.check_held_out("export it with --no-measure")

    def psnr_of(gaussians: Gaussians, antialiased: bool) -> float:
        here = gaussians.to(run.model.device)
        return run.mean_psnr(lambda held: render(here, held.view, antialiased=antialiased).over(held.background))

    best = psnr_of(splat.gaussians, splat.antialiased)

    def measured(file: Exported) -> Exported:
        found = read_splat(file.path)
        back = inverse(*move_into(splat, frame))
        gaussians = found.gaussians if frame == "nerfstudio" else moved(found.gaussians, *back)
        psnr = psnr_of(gaussians, bool(found.antialiased))
        return replace(file, psnr=psnr, lost=best - psnr)

    return measured


def export(
    config_path: Path,
    folder: Path,
    kinds: tuple[str, ...],
    sh_degree: int,
    frame: FrameName,
    measure: bool,
    data: Optional[Path] = None,
) -> list[Exported]:
    """Write a run's splat in several formats.

    Args:
        config_path: the run's config.yml.
        folder: folder for splat.ply, splat.sog and so on.
        kinds: names of FORMATS.
        sh_degree: spherical harmonics above this degree are removed.
        frame: the frame of the files.
        measure: whether to read each file back and measure it on the held-out photos.
        data: the run's data; see `open_run`.

    Raises:
        ValueError: if the run cannot be read, or a format's library is missing.
    """
    splat = splat_of(config_path)
    gaussians = into_frame(splat, frame)
    measured = measure_of(config_path, splat, frame, data) if measure else None
    files = [written(gaussians, kind, sh_degree, folder, splat.antialiased) for kind in kinds]
    return files if measured is None else [measured(file) for file in files]


def export_within(
    config_path: Path,
    folder: Path,
    kinds: tuple[str, ...],
    sh_degree: int,
    frame: FrameName,
    target_megabytes: float,
    data: Optional[Path] = None,
) -> tuple[Exported, list[Exported]]:
    """Write the one file that loses least among those that are small enough.

    Only the highest fitting degree of each format is measured; a lower degree would lose more.

    Args:
        target_megabytes: the largest size, in 10^6 bytes. The other arguments are those of `export`.

    Returns:
        The chosen file, and all files that were small enough, as measured.

    Raises:
        ValueError: if no file is small enough, and for the reasons of `export`.
    """
    splat = splat_of(config_path)
    gaussians = into_frame(splat, frame)
    measured = measure_of(config_path, splat, frame, data)
    with tempfile.TemporaryDirectory() as scratch:
        fitting: list[Exported] = []
        smallest: list[Exported] = []
        for kind in kinds:
            for degree in range(min(sh_degree, gaussians.sh_degree, FORMATS[kind].highest_degree), -1, -1):
                file = written(gaussians, kind, degree, Path(scratch), splat.antialiased)
                if file.megabytes <= target_megabytes:
                    fitting.append(measured(file))
                    break
            else:
                smallest.append(file)
        if not fitting:
            least = min(smallest, key=lambda file: file.megabytes)
            raise ValueError(
                f"{len(gaussians)} Gaussians do not fit into {target_megabytes:g} MB: the smallest file, {least.kind} "
                f"of degree {least.sh_degree}, has {least.megabytes:.3g} MB. Raise --target-mb, or train a smaller "
                "student (--pipeline.model.num-gaussians)."
            )
        best = min(fitting, key=lambda file: (round(file.lost or 0.0, 2), file.megabytes))
        content = best.path.read_bytes()
    path = folder / best.path.name
    write_bytes(path, content)
    return replace(best, path=path), fitting


def print_files(files: list[Exported], frame: FrameName, console: Console) -> None:
    """Print the files as one table, and their frame below it."""
    table = Table("format", *("SH degree", "MB", "PSNR", "lost, dB"))
    for file in files:
        psnr = "" if file.psnr is None else f"{file.psnr:.2f}"
        lost = "" if file.lost is None else f"{round(file.lost, 3) + 0.0:.3f}"  # no "-0.000"
        table.add_row(file.kind, f"{file.sh_degree}", f"{file.megabytes:.3f}", psnr, lost)
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    console.print(f"The frame is {frame}: {FRAMES[frame]}.")
