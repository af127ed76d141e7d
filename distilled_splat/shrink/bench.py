"""`distilled-splat bench shrink`: the quality of shrinking without photos, measured on held-out photos."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from rich.console import Console
from rich.table import Table

SHRINK, TRUE_CAMERAS, PHOTOS = "shrink", "shrink --cameras (the true ones)", "student with the photos"
OPACITY, IMPORTANCE = "highest opacity", "importance at the true cameras, no refit"
MERGING, ADAPTIVE = "splat-transform --decimate", "splat-transform --decimate-adaptive"
ROWS = (OPACITY, IMPORTANCE, MERGING, ADAPTIVE, SHRINK, TRUE_CAMERAS, PHOTOS)


@dataclass
class ShrinkBench:
    """Shrink trained splats, and compare the results with other methods on the held-out photos of the splats' runs.

    Files that exist are kept, so an interrupted command can be given again.
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
        """Make the missing files, measure all files, and write results.json.

        Raises:
            ValueError: if --rows names an unknown row.
        """
        from distilled_splat.runs.files import write_json

        for row in self.rows:
            if row not in ROWS:
                raise ValueError(f"There is no row {row!r}: choose from {', '.join(map(repr, ROWS))}.")
        results: list[dict[str, Any]] = []
        for config in self.load_config:
            for result in self.results_of(config):
                results.append(result)
                write_json(self.output / "results.json", results)
        print_results(results, Console())

    def wanted(self, row: str) -> bool:
        """Return whether a row is wanted and can be made."""
        return (not self.rows or row in self.rows) and (
            row not in (MERGING, ADAPTIVE) or self.splat_transform is not None
        )

    def results_of(self, config: Path) -> list[dict[str, Any]]:
        """Make and measure all rows of one splat."""
        from distilled_splat.evaluation.held_out import open_run
        from distilled_splat.runs.files import write_bytes
        from distilled_splat.splat.formats import FORMATS

        run = open_run(config, teachers=())
        original = run.model.gaussians().detach().to("cpu")
        scene = Path(run.record.get("data", run.config.get_base_dir().parent.parent)).name
        folder = self.output / f"{scene}-{run.folder.name}"
        big = folder / "big.ply"
        if not big.exists():
            write_bytes(big, FORMATS["ply"].encode(original))
        results = [self.measured(run, scene, "the original", None, big, 0.0)]
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
                results.append(self.measured(run, scene, row, fraction, path, time.monotonic() - began))
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
            command("distilled_splat", "shrink", str(big), "--output", str(path), "--num-gaussians", str(count),
                    "--iterations", str(self.iterations), *more)  # fmt: skip

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
            "nerfstudio.scripts.train", "distilled-splatfacto", "--data", str(data),
            "--output-dir", str(path.parent / "runs"), "--timestamp", path.stem, "--vis", "tensorboard",
            "--max-num-iterations", str(self.iterations),
            "--steps-per-eval-image", "1000000", "--steps-per-eval-all-images", "1000000",
            "--pipeline.model.num-gaussians", str(count), "--pipeline.model.teachers", str(run.folder),
            *dataparser_words(data),
        )  # fmt: skip
        student = path.parent / "runs" / data.name / "distilled-splatfacto" / path.stem
        content = FORMATS["ply"].encode(read_teacher(student).gaussians)
        write_bytes(path, content)

    def measured(
        self, run: Any, scene: str, row: str, fraction: Optional[float], path: Path, seconds: float
    ) -> dict[str, Any]:
        """Measure a file against the held-out photos, and against the original's renders at their cameras."""
        from distilled_splat.ops.losses import l1_and_ssim, psnr
        from distilled_splat.ops.render import render
        from distilled_splat.splat.files import read_splat

        gaussians = read_splat(path).gaussians.to(run.model.device)
        antialiased = run.model.config.rasterize_mode == "antialiased"
        photos, pictures, likeness = [], [], []
        for held in run.held_out():
            image = render(gaussians, held.view, antialiased=antialiased).over(held.background)
            true = run.image(held)
            photos.append(psnr(image, held.photo))
            pictures.append(psnr(image, true))
            likeness.append(float(l1_and_ssim(image, true)[1]))
        return {
            "scene": scene, "row": row, "fraction": fraction, "gaussians": len(gaussians), "seconds": seconds,
            "psnr_to_photos": sum(photos) / len(photos),
            "psnr_to_original": None if fraction is None else sum(pictures) / len(pictures),
            "ssim_to_original": None if fraction is None else sum(likeness) / len(likeness),
        }  # fmt: skip


def command(module: str, *arguments: str) -> None:
    """Run a Python module in a process of its own, without showing its output."""
    succeed([sys.executable, "-m", module, *arguments])


def succeed(words: Sequence[str]) -> None:
    """Run a command, without showing its output.

    Raises:
        SystemExit: with the end of its output, if the command fails.
    """
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed: {(done.stdout + done.stderr).strip()[-1000:]}")


def print_results(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the results as a table."""
    table = Table("scene", "size", "", "Gaussians", "PSNR to the original", "SSIM", "PSNR to the photos", "s")
    for result in results:
        fraction, to = result["fraction"], result["psnr_to_original"]
        table.add_row(
            result["scene"], "" if fraction is None else f"{fraction:.0%}", result["row"], f"{result['gaussians']}",
            "" if to is None else f"{to:.2f}", "" if to is None else f"{result['ssim_to_original']:.4f}",
            f"{result['psnr_to_photos']:.2f}", f"{result['seconds']:.0f}",
        )  # fmt: skip
    for column in table.columns[3:]:
        column.justify = "right"
    console.print(table)
