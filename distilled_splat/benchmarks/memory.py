"""`distilled-splat bench memory`: the memory of a teacher and of a student at a given size, stage by stage."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Optional

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # nerfstudio takes seconds to import; other subcommands do without it
    from distilled_splat.benchmarks.stages import Stage


@dataclass
class MemoryBench:
    """Train a teacher, and a student of three teachers, for a few steps, and print the memory of each stage.

    The capture is synthetic: random Gaussians, six renders of them, and copies of these six for the other cameras.
    """

    gaussians: int = 1_000_000
    """Number of Gaussians of each teacher, and of the student at its start."""
    width: int = 1920
    """Width of the photos, in pixels."""
    height: int = 1080
    """Height of the photos, in pixels."""
    photos: int = 300
    """Number of photos. About eight of them are held out; a student's report measures all teachers on them."""
    cache_images: Literal["gpu", "disk"] = "gpu"
    """Where to keep the photos: in memory (gpu), or only in their files (disk)."""
    label_cache_megabytes: float = 4096
    """Largest cache of pseudo labels in megabytes."""
    learners: tuple[Literal["teacher", "student"], ...] = ("teacher", "student")
    """Trainings to measure. The student's teachers are three copies of its first Gaussians."""
    json: Optional[Path] = None
    """Also write the figures to this JSON file."""

    def run(self) -> None:
        """Measure each training in a process of its own, print the tables, and write the JSON file if it is wanted."""
        from distilled_splat.benchmarks.captures import untouched_parser, write_start
        from distilled_splat.benchmarks.stages import measure_training
        from distilled_splat.benchmarks.training import alone
        from distilled_splat.runs.files import write_json

        if min(self.gaussians, self.width, self.height) < 16 or self.photos < 9:
            raise ValueError("--photos must be at least 9, and --width, --height and --gaussians at least 16.")
        found: dict[str, list[Stage]] = {}
        with tempfile.TemporaryDirectory() as folder:
            output, size = Path(folder), (self.width, self.height)
            start = alone(write_start, self.gaussians, *size, output / "capture", self.photos)
            parser = untouched_parser(output / "capture")
            parser.eval_mode, parser.eval_interval = "interval", max(self.photos // 8, 2)
            for learner in self.learners:
                teachers = (start,) * 3 if learner == "student" else ()
                arguments = (parser, start, output / learner, self.cache_images, teachers, self.label_cache_megabytes)
                found[learner], _ = alone(measure_training, *arguments)
                print_stages(learner, found[learner])
        if self.json is not None:
            figures = {learner: [dataclasses.asdict(stage) for stage in stages] for learner, stages in found.items()}
            content = {"gaussians": self.gaussians, "size": size, "photos": self.photos, **figures}
            write_json(self.json, content)


def print_stages(learner: str, stages: list[Stage]) -> None:
    """Print the stages of a training, one line each, and its peak."""
    table = Table(learner, "MB at the end", "peak MB", "seconds", "processor seconds")
    for stage in stages:
        times = f"{stage.seconds:.2f}", f"{stage.processor_seconds:.2f}"
        table.add_row(stage.name, f"{stage.held:.0f}", f"{stage.peak:.0f}", *times)
    for column in table.columns:
        column.no_wrap, column.justify = True, "left" if column is table.columns[0] else "right"
    console = Console(highlight=False)
    console.width = max(console.width, 100)
    console.print(table)
    console.print(f"Peak memory of the {learner}: {max(stage.peak for stage in stages) / 1e3:.2f} GB.")
