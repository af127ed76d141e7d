"""A run's report: one self-contained HTML file that works offline."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

from distilled_splat.evaluation.compare import GEOMETRY_CAPTION, compare_run, geometry_table
from distilled_splat.evaluation.held_out import FinishedRun, open_run
from distilled_splat.evaluation.report_page import Facts, Points, Series, Table, page
from distilled_splat.evaluation.report_splats import MOST_MEGABYTES, splats_of
from distilled_splat.evaluation.results import read_results
from distilled_splat.runs.files import write_beside
from distilled_splat.runs.record import read_record

REPORT_NAME = "report.html"
PACKAGES = ("distilled-splat", "nerfstudio", "gsplat", "torch", "numba", "numpy")
PICTURED_VIEWS = 4
CURVES = {
    "PSNR on a held-out photo, dB": "Eval Images Metrics/psnr",
    "PSNR against the ensemble, dB": "Eval Images Metrics/psnr_ensemble",
    "loss on the photo": "Train Loss Dict/main_loss",
    "loss on the pseudo label": "Train Loss Dict/kd_loss",
    "loss on the teachers' depth": "Train Loss Dict/depth_loss",
    "structural loss": "Train Loss Dict/structure_loss",
    "Gaussians": "Train Metrics Dict/gaussian_count",
}
"""Titles of the training curves, and nerfstudio's names for them in tensorboard."""


def write_report(
    config_path: Path,
    results_path: Optional[Path] = None,
    output: Optional[Path] = None,
    data: Optional[Path] = None,
    teachers: Optional[Sequence[Path]] = None,
    perceptual_of: Optional[Collection[str]] = None,
    most_megabytes: float = MOST_MEGABYTES,
) -> Path:
    """Write the report of a finished run.

    Args:
        config_path: the run's config.yml.
        results_path: results.json of `distilled-splat bench quality`; the report also shows its rows of the same scene.
        output: file to write; None: report.html in the run's folder.
        data: the run's data; see `open_run`.
        teachers: the run's teachers; see `open_run`.
        perceptual_of: see `compare`.
        most_megabytes: largest size of the splats in the page; see `splats_of`.

    Returns:
        The path of the report.

    Raises:
        ValueError: if the run or the results cannot be read.
    """
    controls = () if results_path is None else read_results(results_path)
    run = open_run(config_path, data, teachers)
    return write_report_of(run, controls, output, perceptual_of, most_megabytes)


def write_report_of(
    run: FinishedRun,
    controls: Sequence[dict[str, Any]] = (),
    output: Optional[Path] = None,
    perceptual_of: Optional[Collection[str]] = None,
    most_megabytes: float = MOST_MEGABYTES,
) -> Path:
    """Write the report of an open run; see `write_report` and `compare`."""
    comparison = compare_run(run, PICTURED_VIEWS, perceptual_of)
    scene = Path(str(run.config.data or run.datamanager.config.data or run.folder.parents[1])).name
    controls = [row for row in controls if row["scene"] == scene]
    rows = [
        (row.name, row.gaussians, row.megabytes, row.psnr, row.ssim, row.lpips_vgg, row.seconds)
        for row in comparison.rows
    ]
    rows += [
        (
            control_name(row), row["gaussians"], row["megabytes"],
            row["psnr"], row["ssim"], row.get("lpips_vgg"), row["seconds"],
        )
        for row in controls
    ]  # fmt: skip
    content = page(
        Facts(
            scene=scene,
            method=f"{run.config.method_name}",
            run=f"{run.folder}",
            steps=run.config.max_num_iterations,
            commands=commands(run),
            versions=versions(run),
        ),
        rows,
        Points([(name, megabytes, psnr) for name, _, megabytes, psnr, *_ in rows if not math.isnan(psnr)]),
        curves(run),
        [{name: image.clamp(0, 1).numpy() for name, image in view.items()} for view in comparison.pictures],
        Table(*geometry_table(comparison), GEOMETRY_CAPTION),
        splats_of(run, most_megabytes),
    )
    path = output or run.folder / REPORT_NAME
    write_beside(path, lambda temporary: temporary.write_text(content, encoding="utf8"))
    return path


def report_of_trainer(trainer: Any) -> Path:
    """Write the report of a training that has just ended, with its model.

    This report leaves out LPIPS, which takes 1.5 seconds a picture on a CPU. `distilled-splat report` measures it.
    """
    trainer.flush_logs()  # the report reads its curves from the logs
    pipeline = trainer.pipeline
    record = {**read_record(trainer.base_dir), "seconds": trainer.seconds_trained()}
    teachers = tuple(map(Path, record.get("teachers", ())))
    pipeline.eval()
    try:
        return write_report_of(
            FinishedRun(trainer.base_dir, trainer.config, pipeline.model, pipeline.datamanager, record, teachers),
            perceptual_of=(),
        )
    finally:
        pipeline.train()


def control_name(row: dict[str, Any]) -> str:
    """Return a row's name as in the table of the quality benchmark."""
    size = "" if row["fraction"] is None else f", {100 * row['fraction']:g} %"
    return f"{row['row']}{size}, seed {row['seed']}"


def commands(run: FinishedRun) -> list[str]:
    """Return the command of the run, and of each teacher if it is known."""
    folders = [run.folder, *run.teachers]
    records = [read_record(folder if folder.is_dir() else folder.parent) for folder in folders]
    return list(dict.fromkeys(record["command"] for record in records if isinstance(record.get("command"), str)))


def versions(run: FinishedRun) -> dict[str, str]:
    """Return the versions of the software, and the device."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {**found, "Python": platform.python_version(), "device": f"{run.model.device}, {platform.machine()}"}


def curves(run: FinishedRun) -> dict[str, list[Series]]:
    """Return the training curves of the run and of its teachers from tensorboard's files, by title."""
    runs = {"student": run.folder}
    for path in run.teachers:
        folder = path.parent if path.is_file() else path
        kind = f"{read_record(folder).get('variant', folder.name)} teacher"
        runs[kind if kind not in runs else f"{kind} {len(runs)}"] = folder
    logs = {name: scalars(folder) for name, folder in runs.items()}
    found = {
        title: [Series(name, log[tag]) for name, log in logs.items() if log.get(tag)] for title, tag in CURVES.items()
    }
    return {title: series for title, series in found.items() if series}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return all numbers in a run's tensorboard files: steps and values by name. A repeated step keeps the latest."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        events = EventAccumulator(f"{path}", size_guidance={"scalars": 0, "images": 1}).Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    return {name: sorted(values.items()) for name, values in found.items()}
