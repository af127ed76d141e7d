"""Measure a student beside its teachers on the held-out photos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.utils.eval_utils import eval_setup
from rich.console import Console
from rich.table import Table
from torch import Tensor

from distilled_splat.agreement import in_frame, psnr
from distilled_splat.checkpoints import write_json
from distilled_splat.losses import l1_and_ssim
from distilled_splat.pseudo_labels import TeacherEnsemble
from distilled_splat.readers import Teacher, read_teacher
from distilled_splat.render import view_of
from distilled_splat.runs import read_record
from distilled_splat.splatfacto import PortableSplatfactoModel, ply_megabytes


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


@torch.no_grad()
def compare(config_path: Path, teacher_paths: Optional[Sequence[Path]] = None) -> Comparison:
    """Render every held-out view with each teacher, with their mean and with the student.

    Args:
        config_path: the student's config.yml.
        teacher_paths: teachers; None takes those that the student was trained with.

    Raises:
        ValueError: if a teacher cannot be read, or the run is not one of our methods.
    """
    _, pipeline, _, _ = eval_setup(config_path, test_mode="test")
    model: Any = pipeline.model
    if not isinstance(model, PortableSplatfactoModel):
        raise ValueError(f"{config_path} is a run of {type(model).__name__}: give one of distilled-splatfacto.")
    run = config_path.parent
    record = read_record(run)
    paths = [Path(path) for path in (record.get("teachers", ()) if teacher_paths is None else teacher_paths)]
    datamanager: Any = pipeline.datamanager
    frame: Any = getattr(model.config, "teacher_frame", "auto")
    teachers = [in_frame(read_teacher(path), datamanager, frame, -math.inf, model.device) for path in paths]
    ensemble = TeacherEnsemble(teachers, model.device)
    names = unique_names(teachers)

    scores: dict[str, list[tuple[float, float]]] = {}
    pictures = []
    for camera, batch in datamanager.fixed_indices_eval_dataloader:
        outputs = model.get_outputs_for_camera(camera)
        background = outputs["background"]
        photo = model.photo(batch, background)
        images = {name: rendered.over(background) for name, rendered in zip(names, ensemble.renders(view_of(camera)))}
        if images:
            images["mean of teachers"] = torch.stack(list(images.values())).mean(dim=0)
        images["student"] = outputs["rgb"]
        for name, image in images.items():
            scores.setdefault(name, []).append((psnr(image, photo), float(l1_and_ssim(image, photo)[1])))
        pictures.append({"photo": photo, **images})

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


def unique_names(teachers: Sequence[Teacher]) -> list[str]:
    """Name teachers by their kind, with a number where a kind comes more than once."""
    kinds = [teacher.variant for teacher in teachers]
    return [
        f"{kind} teacher" + (f" {kinds[: place + 1].count(kind)}" if kinds.count(kind) > 1 else "")
        for place, kind in enumerate(kinds)
    ]


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
