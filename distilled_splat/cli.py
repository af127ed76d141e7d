"""The `distilled-splat` command: its subcommands and nothing else."""

import os

# before torch is imported: idle OpenMP threads would otherwise spin and take the cores from the rasterizer
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional, Union

import tyro

from distilled_splat.bench.quality import QualityBench
from distilled_splat.bench.step import StepBench
from distilled_splat.sweep.command import Sweep


@dataclass
class Compare:
    """Compare a student with its teachers on the held-out photos: size, PSNR, SSIM, seconds of training."""

    load_config: Path
    """config.yml of a run of distilled-splatfacto."""
    teachers: tuple[Path, ...] = ()
    """Teachers to compare with: run folders, config.yml or .ckpt files; the student's own if none are given."""
    json: Optional[Path] = None
    """Also write the rows to this file."""
    picture: Optional[Path] = None
    """Also write a picture to this file: photo, standard teacher, student and the student's error."""

    def run(self) -> None:
        """Print the table and write what was asked for."""
        from rich.console import Console

        from distilled_splat.compare import compare, print_table, write_rows

        comparison = compare(self.load_config, self.teachers or None)
        print_table(comparison.rows, Console())
        if self.json is not None:
            write_rows(comparison.rows, self.json)
        if self.picture is not None:
            from distilled_splat.picture import student_picture

            student_picture(comparison, self.picture)


@dataclass
class Demo:
    """Make a scene, distil it, and show what came of it; all on the CPU if there is no GPU."""

    output: Path = Path("demo-output")
    """Folder for the scene, the runs, the table, the picture and the student's .ply."""
    iterations: int = 1500
    """Steps to train each teacher and the student for."""

    def run(self) -> None:
        """Run the whole job."""
        from distilled_splat.demo.run import run_demo

        run_demo(self.output, self.iterations)


Bench = Annotated[
    Union[
        Annotated[StepBench, tyro.conf.subcommand("step")],
        Annotated[QualityBench, tyro.conf.subcommand("quality")],
    ],
    tyro.conf.subcommand("bench", description="Measure: the time of a training step, or the quality of students."),
]
Command = Union[
    Annotated[Demo, tyro.conf.subcommand("demo")],
    Annotated[Compare, tyro.conf.subcommand("compare")],
    Annotated[Sweep, tyro.conf.subcommand("sweep")],
    Bench,
]


def main() -> None:
    """Run the subcommand that the command line names; a refusal is one sentence, not a traceback."""
    command = tyro.cli(Command, prog="distilled-splat", description=__doc__)  # type: ignore[arg-type]
    try:
        command.run()
    except ValueError as error:
        raise SystemExit(str(error)) from None
