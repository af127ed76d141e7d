"""Measure a student beside its teachers on the held-out photos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from distilled_splat.agreement import brought_in, psnr
from distilled_splat.checkpoints import write_json
from distilled_splat.gallery import unique_names
from distilled_splat.held_out import FinishedRun, open_run
from distilled_splat.losses import l1_and_ssim
from distilled_splat.pseudo_labels import TeacherEnsemble
from distilled_splat.readers import read_teacher
from distilled_splat.splatfacto import ply_megabytes


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        name: what was rendered.
        gaussians: number of Gaussians, of all teachers together for their mean.
        megabytes: size as an exported .ply, in 10^6 bytes.
        psnr: mean over the held-out photos, in dB.
        ssim: mean over the held-out photos.
        seconds: time that its training took; None where it is not known.
    """

    name: str
    gaussians: int
    megabytes: float
    psnr: float
    ssim: float
    seconds: Optional[float]


@dataclass(frozen=True)
class Comparison:
    """Rows and the pictures they were measured on: per photo, the images by row name, and the photo itself."""

    rows: list[Row]
    pictures: list[dict[str, Tensor]]


def compare(config_path: Path, teacher_paths: Optional[Sequence[Path]] = None) -> Comparison:
    """Render every held-out view with each teacher, with their mean and with the student.

    Args:
        config_path: the student's config.yml.
        teacher_paths: teachers; None takes those that the student was trained with.

    Raises:
        ValueError: if a teacher cannot be read, or the run is not one of our methods.
    """
    return compare_run(open_run(config_path), teacher_paths)


@torch.no_grad()
def compare_run(run: FinishedRun, teacher_paths: Optional[Sequence[Path]] = None) -> Comparison:
    """Compare the student of a run that is open; see `compare`."""
    model, record = run.model, run.record
    paths = [Path(path) for path in (record.get("teachers", ()) if teacher_paths is None else teacher_paths)]
    frame: Any = getattr(model.config, "teacher_frame", "auto")
    read = [read_teacher(path) for path in paths]
    teachers, _ = brought_in(read, run.datamanager, frame, -math.inf, model.device)
    ensemble = TeacherEnsemble(teachers, model.device)
    names = unique_names(teachers)

    scores: dict[str, list[tuple[float, float]]] = {}
    pictures = []
    for held in run.held_out():
        renders = ensemble.renders(held.view)
        images = {name: rendered.over(held.background) for name, rendered in zip(names, renders)}
        if images:
            images["mean of teachers"] = torch.stack(list(images.values())).mean(dim=0)
        images["student"] = run.image(held)
        for name, image in images.items():
            scores.setdefault(name, []).append((psnr(image, held.photo), float(l1_and_ssim(image, held.photo)[1])))
        pictures.append({"photo": held.photo, **images})

    counts = {name: len(teacher.gaussians) for name, teacher in zip(names, teachers)}
    megabytes = {
        name: ply_megabytes(len(teacher.gaussians), teacher.gaussians.sh_degree)
        for name, teacher in zip(names, teachers)
    }
    seconds = {name: teacher.seconds for name, teacher in zip(names, teachers)}
    if teachers:
        counts["mean of teachers"], megabytes["mean of teachers"] = (
            sum(counts.values()),
            sum(megabytes.values()),
        )
    counts["student"] = model.num_points
    megabytes["student"] = ply_megabytes(model.num_points, model.config.sh_degree)
    seconds["student"] = record.get("seconds")
    rows = []
    for name, values in scores.items():
        mean_psnr, mean_ssim = torch.tensor(values).mean(dim=0).tolist()
        rows.append(Row(name, counts[name], megabytes[name], mean_psnr, mean_ssim, seconds.get(name)))
    return Comparison(rows, pictures)


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print a comparison as one table."""
    table = Table("held-out views", *("Gaussians", "MB (.ply)", "PSNR", "SSIM", "seconds"))
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        table.add_row(
            row.name,
            f"{row.gaussians}",
            f"{row.megabytes:.2f}",
            f"{row.psnr:.2f}",
            f"{row.ssim:.4f}",
            seconds,
        )
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write a comparison's rows as JSON."""
    write_json(path, [asdict(row) for row in rows])
