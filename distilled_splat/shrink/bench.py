"""`distilled-splat bench shrink`: the quality of shrinking without photos, measured on held-out photos."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from rich.console import Console

SHRINK, TRUE_CAMERAS, PHOTOS = "shrink", "shrink --cameras (the true ones)", "student with the photos"
OPACITY, IMPORTANCE = "highest opacity", "importance at the true cameras, no refit"
MERGING, ADAPTIVE = "splat-transform --decimate", "splat-transform --decimate-adaptive"
ORIGINAL = "the original"
ROWS = (OPACITY, IMPORTANCE, MERGING, ADAPTIVE, SHRINK, TRUE_CAMERAS, PHOTOS)
VIEWS, SEED = 200, 1
"""The invented views to measure at are the test views of this many views with this seed. `shrink` trains with another
seed."""


@dataclass
class ShrinkBench:
    """Shrink trained splats, and compare the results with other methods.

    Every result is measured at the held-out photos of the splat's run, and at invented views of the whole splat.
    Writes results.json, a table and a plot. Files that exist are kept, so an interrupted command can be given again.
    """

    load_config: tuple[Path, ...]
    """config.yml of runs of splatfacto-teacher: their splats are shrunk and measured on their held-out photos."""
    output: Path = Path("shrunk")
    """Folder for the files and the results."""
    fractions: tuple[float, ...] = (0.5, 0.25, 0.1, 0.05)
    """Sizes as fractions of each splat's Gaussians."""
    iterations: int = 3000
    """Training steps of each refit, and of the student with photos."""
    rows: tuple[str, ...] = ()
    """Methods to compare, by their names in the table. By default all."""
    splat_transform: Optional[Path] = None
    """Path of PlayCanvas' command (npm install @playcanvas/splat-transform, 3.7). By default its rows are left out."""

    def run(self) -> None:
        """Make the missing files, measure all files, and write results.json, table.md and sizes.png.

        Raises:
            ValueError: if --rows names an unknown row.
        """
        from distilled_splat.runs.files import write_bytes, write_json
        from distilled_splat.shrink.bench_plot import plot

        for row in self.rows:
            if row not in ROWS:
                raise ValueError(f"There is no row {row!r}: choose from {', '.join(map(repr, ROWS))}.")
        results: list[dict[str, Any]] = []
        for config in self.load_config:
            for result in self.results_of(config):
                results.append(result)
                write_json(self.output / "results.json", results)
        words = table(results)
        write_bytes(self.output / "table.md", words.encode())
        plot(results, self.output / "sizes.png")
        Console(soft_wrap=True).print(words, highlight=False, markup=False)

    def wanted(self, row: str) -> bool:
        """Return whether a row is wanted and can be made."""
        return (not self.rows or row in self.rows) and (
            row not in (MERGING, ADAPTIVE) or self.splat_transform is not None
        )

    def results_of(self, config: Path) -> list[dict[str, Any]]:
        """Make and measure all rows of one splat."""
        from distilled_splat.evaluation.held_out import open_run
        from distilled_splat.runs.files import write_bytes
        from distilled_splat.splat.files import read_splat
        from distilled_splat.splat.formats import FORMATS

        run = open_run(config, teachers=())
        original = run.model.gaussians().detach().to("cpu")
        scene = Path(run.record.get("data", run.config.get_base_dir().parent.parent)).name
        folder = self.output / f"{scene}-{run.folder.name}"
        big = folder / "big.ply"
        measure = Measure(run, original)
        if not big.exists():
            write_bytes(big, FORMATS["ply"].file_of(original, measure.antialiased))
        results = [{"scene": scene, "row": ORIGINAL, "fraction": None, "seconds": 0.0, **measure.photos(original)}]
        for fraction in self.fractions:
            count = max(round(fraction * len(original)), 1)
            for row, make in self.ways(run, original, big, count).items():
                if not self.wanted(row):
                    continue
                path = folder / f"{ROWS.index(row)}-{count}.ply"
                began = time.monotonic()
                if not path.exists():
                    Console().print(f"{scene}, {count} Gaussians: {row}", highlight=False)
                    make(path)
                seconds = time.monotonic() - began
                found = measure.of(read_splat(path).gaussians)
                results.append({"scene": scene, "row": row, "fraction": fraction, "seconds": seconds, **found})
        return results

    def ways(self, run: Any, original: Any, big: Path, count: int) -> dict[str, Callable[[Path], None]]:
        """Return, for each row, the function that writes its file."""
        import torch

        from distilled_splat.ops.importance import importance
        from distilled_splat.ops.views import view_of
        from distilled_splat.runs.files import write_bytes
        from distilled_splat.splat.formats import FORMATS

        antialiased = run.model.config.rasterize_mode == "antialiased"

        def kept(weights: torch.Tensor, path: Path) -> None:
            chosen = weights.topk(count).indices.sort().values
            content = FORMATS["ply"].encode(original[chosen.cpu()])
            write_bytes(path, content)

        def by_importance(path: Path) -> None:
            views = [view_of(camera) for camera in run.datamanager.single_cameras]
            here = original.to(run.model.device)
            kept(importance(here, views, lambda: torch.rand(3, device=run.model.device), antialiased=antialiased), path)

        def shrunk(path: Path, *more: str) -> None:
            command(path.with_suffix(".log"), "distilled_splat", "shrink", str(big), "--output", str(path),
                    "--num-gaussians", str(count), "--iterations", str(self.iterations), *more)  # fmt: skip

        def merged(path: Path, option: str) -> None:
            part = path.with_name(f"part-{path.name}")
            succeed([str(self.splat_transform), "-w", "-g", "cpu", str(big), option, str(count), str(part)])
            part.rename(path)

        return {
            OPACITY: lambda path: kept(original.logit_opacities, path),
            IMPORTANCE: by_importance,
            MERGING: lambda path: merged(path, "--decimate"),
            ADAPTIVE: lambda path: merged(path, "--decimate-adaptive"),
            SHRINK: shrunk,
            TRUE_CAMERAS: lambda path: shrunk(path, "--cameras", str(run.folder)),
            PHOTOS: lambda path: self.student(run, path, count),
        }

    def student(self, run: Any, path: Path, count: int) -> None:
        """Train a student on the photos, with the splat as its teacher."""
        from distilled_splat.runs.files import write_bytes
        from distilled_splat.splat.formats import FORMATS
        from distilled_splat.teachers.reading import read_teacher
        from distilled_splat.training.photos import dataparser_words

        data = Path(run.datamanager.config.data)
        command(
            path.with_suffix(".log"), "nerfstudio.scripts.train", "distilled-splatfacto", "--data", str(data),
            "--output-dir", str(path.parent / "runs"), "--timestamp", path.stem, "--vis", "tensorboard",
            "--max-num-iterations", str(self.iterations),
            "--steps-per-eval-image", "1000000", "--steps-per-eval-all-images", "1000000",
            "--pipeline.model.num-gaussians", str(count), "--pipeline.model.teachers", str(run.folder),
            "--pipeline.model.rasterize-mode", run.model.config.rasterize_mode,
            *dataparser_words(data),
        )  # fmt: skip
        student = path.parent / "runs" / data.name / "distilled-splatfacto" / path.stem
        content = FORMATS["ply"].encode(read_teacher(student).gaussians)
        write_bytes(path, content)


class Measure:
    """Measures splats against an original: at its run's held-out photos, and at invented views of all its parts."""

    def __init__(self, run: Any, original: Any) -> None:
        """Render the original everywhere.

        Args:
            run: the opened run of the original.
            original: its Gaussians.
        """
        from distilled_splat.shrink.measure import pictures
        from distilled_splat.shrink.unit_frame import UnitFrame
        from distilled_splat.shrink.viewpoints import invented_views

        self.run = run
        self.antialiased = run.model.config.rasterize_mode == "antialiased"
        self.frame = UnitFrame.of([original])
        here = self.frame.into(original).to(run.model.device)
        try:
            self.views = invented_views(here, VIEWS, SEED).test
        except ValueError:  # no view can be invented of a splat that shows little
            self.views = []
        self.elsewhere = pictures(here, self.views, self.antialiased)

    def photos(self, gaussians: Any) -> dict[str, Any]:
        """Return the number of Gaussians, and the mean PSNR to the held-out photos in dB."""
        found = self.of(gaussians)
        return {name: found[name] for name in ("gaussians", "psnr_to_photos")}

    def of(self, gaussians: Any) -> dict[str, Any]:
        """Return the number of Gaussians, and mean PSNR (dB) and SSIM to the photos and to the original's renders."""
        import torch

        from distilled_splat.ops.losses import l1_and_ssim, psnr
        from distilled_splat.ops.render import render
        from distilled_splat.shrink.measure import compared, pictures

        gaussians = gaussians.to(self.run.model.device)
        photos, renders, likeness = [], [], []
        with torch.no_grad():
            for held in self.run.held_out():
                image = render(gaussians, held.view, antialiased=self.antialiased).over(held.background)
                true = self.run.image(held)
                photos.append(psnr(image, held.photo))
                renders.append(psnr(image, true))
                likeness.append(float(l1_and_ssim(image, true)[1]))
        elsewhere = None
        if self.views:
            shown = pictures(self.frame.into(gaussians), self.views, self.antialiased)
            elsewhere = compared("", shown, self.elsewhere, len(gaussians), None).psnr
        return {
            "gaussians": len(gaussians),
            "psnr_to_photos": sum(photos) / len(photos),
            "psnr_to_original": sum(renders) / len(renders),
            "ssim_to_original": sum(likeness) / len(likeness),
            "psnr_elsewhere": elsewhere,
        }


def command(log: Path, module: str, *arguments: str) -> None:
    """Run a Python module in a process of its own, with its output in a log.

    Raises:
        SystemExit: with the end of its output, if the command fails.
    """
    from distilled_splat.jobs.command import last_words, run_job
    from distilled_splat.jobs.graph import Job
    from distilled_splat.ops.free_memory import release_memory

    release_memory()
    job = Job(module, ("-m", module, *arguments), log, lambda: False)
    if run_job(job) != 0:
        raise SystemExit(f"{' '.join(job.argv)} failed: {last_words(job)}")


def succeed(words: Sequence[str]) -> None:
    """Run a command, without showing its output.

    Raises:
        SystemExit: with the end of its output, if the command fails.
    """
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed: {(done.stdout + done.stderr).strip()[-1000:]}")


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    heads = (
        "scene", "size", "row", "Gaussians", "PSNR to the original", "SSIM", "at invented views", "PSNR to the photos",
        "seconds",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for result in results:
        fraction = result["fraction"]
        cells = (
            result["scene"], "" if fraction is None else f"{fraction:.0%}", result["row"], f"{result['gaussians']}",
            decimals(result.get("psnr_to_original"), 2), decimals(result.get("ssim_to_original"), 4),
            decimals(result.get("psnr_elsewhere"), 2), decimals(result["psnr_to_photos"], 2),
            f"{result['seconds']:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def decimals(value: Optional[float], places: int) -> str:
    """Format a number; empty without one."""
    return "" if value is None else f"{value:.{places}f}"
