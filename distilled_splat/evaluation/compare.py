"""Compare a student with its teachers on the held-out photos."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from rich.console import Console
from rich.table import Table
from torch import Tensor

from distilled_splat.evaluation.geometry import floaters, mean_or_none
from distilled_splat.evaluation.held_out import FinishedRun, open_run
from distilled_splat.evaluation.measuring import MEAN, Measuring, Scores
from distilled_splat.evaluation.paired import TITLES, paired_differences
from distilled_splat.evaluation.results import GEOMETRY, PERCEPTUAL
from distilled_splat.evaluation.true_depth import TrueDepths, twice_as_far
from distilled_splat.ops.views import View
from distilled_splat.runs.files import write_json
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.ply import ply_megabytes
from distilled_splat.teachers.ensemble import standard_of
from distilled_splat.teachers.fit import brought_in
from distilled_splat.teachers.reading import Teacher, read_teacher

DEPTH_MAPS, TEACHERS_MEAN = "depth maps", "the teachers' mean"


@dataclass(frozen=True)
class Row:
    """One row of the comparison.

    The four geometry measures are fractions of 1, and None if there is no reference for them.

    Attributes:
        name: what was rendered.
        gaussians: number of Gaussians; for the teachers' mean, of all teachers together.
        megabytes: size as an exported .ply, in 10^6 bytes.
        psnr: mean over the held-out photos, in dB; NaN if there are none.
        ssim: mean SSIM over the held-out photos; NaN if there are none.
        seconds: training time; None if it is not known.
        depth_error: mean relative error of the expected depth at the held-out views; see `geometry.depth_error`.
        depth_error_beyond: the same error at views twice as far from the nearest camera.
        alpha_error: mean absolute error of alpha at the held-out views.
        floaters: visible fraction of the splat that lies where the teachers have nothing; see `geometry.floaters`.
        lpips_vgg: mean LPIPS (VGG) over the held-out photos; None if it was not measured.
        flip: mean FLIP over the held-out photos; None if it was not measured.
        photos: for each measure (psnr, ssim, and lpips_vgg and flip if measured) its values by photo, in order.
    """

    name: str
    gaussians: int
    megabytes: float
    psnr: float
    ssim: float
    seconds: Optional[float]
    depth_error: Optional[float] = None
    depth_error_beyond: Optional[float] = None
    alpha_error: Optional[float] = None
    floaters: Optional[float] = None
    lpips_vgg: Optional[float] = None
    flip: Optional[float] = None
    photos: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison, and pictures of some of the held-out views.

    Attributes:
        rows: one for each teacher, for their mean, and for the student.
        pictures: for each pictured view the images by row name, and the photo, on the CPU, [H, W, 3].
        depth_by: the reference of the depths: the capture's "depth maps", or "the teachers' mean".
        standard: name of the standard teacher's row; None without teachers.
        notes: sentences on what could not be measured.
    """

    rows: list[Row]
    pictures: list[dict[str, Tensor]]
    depth_by: str = TEACHERS_MEAN
    standard: Optional[str] = None
    notes: Sequence[str] = ()


def compare(
    config_path: Path,
    teacher_paths: Optional[Sequence[Path]] = None,
    pictured: int = 0,
    data: Optional[Path] = None,
    perceptual_of: Optional[Collection[str]] = None,
) -> Comparison:
    """Render every held-out view with each teacher, with the teachers' mean and with the student.

    Args:
        config_path: the student's config.yml.
        teacher_paths: teachers; None: those that the student was trained with.
        pictured: largest number of views to keep pictures of; they are spread over the held-out views.
        data: the student's data; see `open_run`.
        perceptual_of: names of the rows to measure LPIPS and FLIP of; None: all. See `perceptual_measures`.

    Raises:
        ValueError: if a teacher cannot be read, the run is not of one of our methods, or it has no held-out photos.
    """
    run = open_run(config_path, data, teacher_paths)
    run.check_held_out()
    return compare_run(run, pictured, perceptual_of)


@torch.no_grad()
def compare_run(run: FinishedRun, pictured: int = 0, perceptual_of: Optional[Collection[str]] = None) -> Comparison:
    """Compare the student of an open run with its teachers; see `compare`."""
    teachers = teachers_of(run)
    measuring = Measuring(run, teachers, perceptual_of)
    pictures, cameras, views = [], [], []
    every = math.ceil(len(run.datamanager.eval_dataset) / pictured) if pictured else 0
    for held in run.held_out():
        images = measuring.see(held)
        cameras.append(held.camera)
        views.append(held.view)
        if pictured and held.place % every == 0:
            pictures.append({name: image.cpu() for name, image in {"photo": held.photo, **images}.items()})
    for view, depth in views_further(run, measuring.truth, cameras, measuring.has_maps):
        measuring.see_beyond(view, depth)
        views.append(view)

    rows = [
        row_of(name, measuring.scores[name], *size_of(teacher.gaussians), teacher.seconds)
        for name, teacher in zip(measuring.names, teachers)
    ]
    if rows:
        together = sum(row.gaussians for row in rows), sum(row.megabytes for row in rows)
        rows.append(row_of(MEAN, measuring.scores[MEAN], *together, None))
    student = run.model.gaussians()
    row = row_of("student", measuring.scores["student"], *size_of(student), run.record.get("seconds"))
    if teachers and views:
        antialiased = run.model.config.rasterize_mode == "antialiased"
        row = replace(row, floaters=floaters(student, measuring.ensemble.members, views, antialiased))
    rows.append(row)
    standard = next((name for name, one in zip(measuring.names, teachers) if one is standard_of(teachers)), None)
    depth_by = DEPTH_MAPS if measuring.has_maps else TEACHERS_MEAN
    return Comparison(rows, pictures, depth_by, standard, measuring.notes)


def size_of(gaussians: Gaussians) -> tuple[int, float]:
    """Return the number of Gaussians, and their size as an exported .ply, in 10^6 bytes."""
    return len(gaussians), ply_megabytes(len(gaussians), gaussians.sh_degree)


def row_of(name: str, scores: Scores, gaussians: int, megabytes: float, seconds: Optional[float]) -> Row:
    """Return one splat's row: the means of its scores."""
    mean_psnr, mean_ssim = (sum(each) / len(each) if each else math.nan for each in (scores.psnr, scores.ssim))
    return Row(
        name,
        gaussians,
        megabytes,
        mean_psnr,
        mean_ssim,
        seconds,
        depth_error=mean_or_none(scores.depth),
        depth_error_beyond=mean_or_none(scores.depth_beyond),
        alpha_error=mean_or_none(scores.alpha),
        **{name: mean_or_none(scores.perceptual[name]) for name in PERCEPTUAL if name in scores.perceptual},
        photos=scores.by_photo(),
    )


def teachers_of(run: FinishedRun) -> list[Teacher]:
    """Return a run's teachers in the run's frame: those that its training has in memory, or read from their files.

    Raises:
        ValueError: if a teacher is missing or cannot be read.
    """
    gallery = getattr(run.model, "gallery", None)
    if gallery is not None and gallery.is_complete and gallery.paths == run.teachers:
        return list(gallery.ensemble.teachers)
    for path in run.teachers:
        if not path.expanduser().exists():
            raise ValueError(
                f"The teacher {path} of the run {run.folder} does not exist: give the run's teachers with --teachers."
            )
    frame: Any = getattr(run.model.config, "teacher_frame", "auto")
    read = [read_teacher(path) for path in run.teachers]
    return list(brought_in(read, run.datamanager, frame, -math.inf, run.model.device)[0])


def views_further(
    run: FinishedRun, truth: TrueDepths, cameras: Sequence[Cameras], has_maps: bool
) -> Iterator[tuple[View, Optional[Tensor]]]:
    """Yield views beyond the cameras, with their depth maps if the capture has some.

    Args:
        run: the run to measure.
        truth: the capture's depth maps.
        cameras: of the held-out photos, [1] each.
        has_maps: whether the held-out photos have depth maps; if so, only views with depth maps are yielded.
    """
    if has_maps:
        data = Path(run.datamanager.config.data or run.datamanager.config.dataparser.data)
        yield from truth.beyond(data, cameras[0])
    else:
        for camera in cameras:
            yield twice_as_far(camera, run.datamanager.train_dataset.cameras), None


def print_table(comparison: Comparison, console: Console) -> None:
    """Print a comparison as a table, and the geometry measures as another table."""
    measured = [name for name in PERCEPTUAL if any(getattr(row, name) is not None for row in comparison.rows)]
    heads = ["Gaussians", "MB (.ply)", "PSNR", "SSIM", *(TITLES[name] for name in measured), "seconds"]
    table = Table("held-out views", *heads)
    for row in comparison.rows:
        figures = [f"{row.gaussians}", f"{row.megabytes:.2f}", f"{row.psnr:.2f}", f"{row.ssim:.4f}"]
        values = [getattr(row, name) for name in measured]
        figures += ["" if value is None else f"{value:.4f}" for value in values]
        table.add_row(row.name, *figures, "" if row.seconds is None else f"{row.seconds:.0f}")
    print_right_aligned(table, console)
    for sentence in (*paired_sentence(comparison), *comparison.notes):
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    heads, rows = geometry_table(comparison)
    if rows:
        table = Table(*heads, caption=GEOMETRY_CAPTION)
        for row in rows:
            table.add_row(*row)
        print_right_aligned(table, console)


def paired_sentence(comparison: Comparison) -> Iterator[str]:
    """Yield a sentence on the photo-by-photo difference of student and standard teacher; nothing without a teacher."""
    rows = {row.name: row for row in comparison.rows}
    if comparison.standard is not None:
        found = paired_differences([rows["student"].photos], [rows[comparison.standard].photos])
        if found:
            words = ", ".join(f"{TITLES[name]} {difference.words(name)}" for name, difference in found.items())
            count = next(iter(found.values())).photos
            yield f"student minus {comparison.standard}: {words} (mean and 95 % interval over {count} photos)"


def print_right_aligned(table: Table, console: Console) -> None:
    """Print a table with all columns but the first aligned to the right."""
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)


GEOMETRY_CAPTION = "beyond: twice as far from the cameras; floaters: seen in voxels where no teacher has a Gaussian"


def geometry_table(comparison: Comparison) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the headings and the rows of the table of geometry measures; no rows if nothing was measured."""
    heads = [f"geometry, by {comparison.depth_by}", *(name.replace("_", " ") for name in GEOMETRY)]
    rows = [(row.name, *(as_percent(getattr(row, name)) for name in GEOMETRY)) for row in comparison.rows]
    return heads, [row for row in rows if any(row[1:])]


def as_percent(part: Optional[float]) -> str:
    """Format a fraction of 1 as a percentage; empty if it is not known."""
    return "" if part is None else f"{100 * part:.2f} %"


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write a comparison's rows as JSON."""
    write_json(path, [asdict(row) for row in rows])
