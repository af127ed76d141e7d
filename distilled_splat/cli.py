"""The `distilled-splat` command: its subcommands and nothing else."""

import os
import sys

# before torch is imported: idle OpenMP threads would otherwise spin and take the cores from the rasterizer
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional, Union

import tyro

from distilled_splat import __version__
from distilled_splat.benchmarks.memory import MemoryBench
from distilled_splat.benchmarks.step import StepBench
from distilled_splat.benchmarks.whole import TimeBench
from distilled_splat.doctor.command import Doctor
from distilled_splat.shrink.bench import ShrinkBench
from distilled_splat.shrink.command import Shrink
from distilled_splat.viewing.command import View
from distilled_splat.workflows.controls import QualityBench
from distilled_splat.workflows.sweep import Sweep


@dataclass
class Compare:
    """Compare a student with its teachers on the held-out photos: size, PSNR, SSIM, LPIPS, seconds of training."""

    load_config: Path
    """config.yml of a run of distilled-splatfacto."""
    teachers: tuple[Path, ...] = ()
    """Teachers to compare with: run folders, config.yml, .ckpt or exported files; without any, the student's own, where
    they were in training or in the same place beside the run."""
    data: Optional[Path] = None
    """The run's data; if not given, it is looked for where it was in training, and in the same place beside the run."""
    json: Optional[Path] = None
    """Also write the rows to this file."""
    picture: Optional[Path] = None
    """Also write a picture to this file: photo, standard teacher, student and the student's error."""
    perceptual: bool = True
    """Measure LPIPS (VGG) and FLIP, where they are installed; on a CPU that takes longer than all else."""

    def run(self) -> None:
        """Print the table and write what was asked for."""
        from rich.console import Console

        from distilled_splat.evaluation.compare import compare, print_table, write_rows
        from distilled_splat.evaluation.pictures import PICTURED_VIEWS, student_picture

        pictured = 0 if self.picture is None else PICTURED_VIEWS
        perceptual_of = None if self.perceptual else ()
        comparison = compare(self.load_config, self.teachers or None, pictured, self.data, perceptual_of)
        print_table(comparison, Console())
        if self.json is not None:
            write_rows(comparison.rows, self.json)
        if self.picture is not None:
            student_picture(comparison, self.picture)


@dataclass
class Export:
    """Write a trained splat as a file for viewers and editors, and measure what the format loses."""

    load_config: Path
    """config.yml of a run of distilled-splatfacto or splatfacto-teacher."""
    output_dir: Optional[Path] = None
    """Folder for splat.ply, splat.sog and so on; export/ in the run's folder if not given."""
    format: Optional[Literal["ply", "compressed-ply", "splat", "spz", "sog", "glb", "all"]] = None
    """Format of the file; all writes every one. Without it: ply, or with --target-mb whichever loses least."""
    sh_degree: Literal[0, 1, 2, 3, 4] = 4
    """Leave out the spherical harmonics above this degree. A .splat holds none, the compressed formats up to 3."""
    target_mb: Optional[float] = None
    """Write one file of at most this many megabytes (10^6 bytes): the format and the degree that lose least."""
    frame: Literal["upright", "nerfstudio", "capture"] = "upright"
    """World of the file: nerfstudio's, turned so that y points down, as viewers of splats expect (up in a .glb);
    nerfstudio's as it is, of ns-export, where z points up; or the capture's (COLMAP's) before nerfstudio moved it."""
    measure: bool = True
    """Read each file back and measure it on the held-out photos; --no-measure needs no photos."""
    data: Optional[Path] = None
    """The run's data; if not given, it is looked for where it was in training, and in the same place beside the run."""

    def run(self) -> None:
        """Write the files and print their table."""
        from rich.console import Console

        from distilled_splat.evaluation.export import export, export_within, print_files
        from distilled_splat.splat.formats import CHOSEN_FROM, FORMATS

        folder = self.output_dir or self.load_config.parent / "export"
        if self.format == "all":
            kinds = tuple(FORMATS)
        else:
            kinds = CHOSEN_FROM if self.format is None and self.target_mb is not None else (self.format or "ply",)
        console = Console(soft_wrap=True, highlight=False)
        if self.target_mb is None:
            files = export(self.load_config, folder, kinds, self.sh_degree, self.frame, self.measure, self.data)
            print_files(files, self.frame, console)
            for file in files:
                console.print(f"{file.path}")
            return
        if not self.target_mb > 0 or not self.measure:
            raise ValueError(
                "--target-mb takes a positive number of megabytes, and it cannot choose with --no-measure."
            )
        best, fitting = export_within(
            self.load_config, folder, kinds, self.sh_degree, self.frame, self.target_mb, self.data
        )
        print_files(fitting, self.frame, console)
        console.print(
            f"Of these {best.kind} with spherical harmonics of degree {best.sh_degree} loses least "
            f"({best.lost:.2f} dB, {best.megabytes:.3f} of {self.target_mb:g} MB): {best.path}"
        )


@dataclass
class Lod:
    """Write levels of detail of splats of one scene as PlayCanvas' streamed SOG, each chunk with its measured error."""

    splats: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Splats of one scene at several sizes: run folders or config.yml, or exported files, all in one frame."""
    output: Path = Path("lod")
    """Folder to write lod-meta.json and the chunks into; it must be new or empty."""
    chunk_gaussians: int = 65536
    """Gaussians of the largest splat in a chunk at most: that many are loaded and exchanged as one."""
    frame: Literal["upright", "nerfstudio", "capture"] = "upright"
    """World of runs, as of `export`; files are taken as they are."""

    def run(self) -> None:
        """Write the levels and print their table."""
        from rich.console import Console

        from distilled_splat.evaluation.lod import print_levels, write_levels
        from distilled_splat.splat.streamed_sog import LOD_META

        console = Console(soft_wrap=True, highlight=False)
        paths = tuple(path.expanduser() for path in self.splats)
        print_levels(write_levels(paths, self.output, self.chunk_gaussians, self.frame), console)
        console.print(f"{self.output / LOD_META}")


@dataclass
class Info:
    """Say what files of splats hold, in any format that is read: size, extent, opacities, antialiasing."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Exported files of any trainer or editor."""
    json: bool = False
    """Print a list of JSON objects instead of lines."""

    def run(self) -> None:
        """Print what is in them."""
        from rich.console import Console

        from distilled_splat.splat.info import print_infos

        print_infos(self.files, self.json, Console(soft_wrap=True, highlight=False))


@dataclass
class Report:
    """Write one HTML page about a run: table, plots, pictures to slide over, and the splats to look around in."""

    load_config: Path
    """config.yml of a run of distilled-splatfacto."""
    results: Optional[Path] = None
    """results.json of `bench quality`: its controls of the same scene are shown beside the student."""
    output: Optional[Path] = None
    """File to write; report.html in the run's folder if not given."""
    teachers: tuple[Path, ...] = ()
    """Teachers to show; without any, the student's own, where they were in training or in the same place beside the
    run."""
    data: Optional[Path] = None
    """The run's data; if not given, it is looked for where it was in training, and in the same place beside the run."""
    perceptual: bool = True
    """Measure LPIPS (VGG) and FLIP, where they are installed; on a CPU that takes longer than all else."""

    splats_mb: float = 8.0
    """Student and teacher are put into the page, to be seen from anywhere, if they have no more megabytes than this
    as .spz files; the teacher is left out first. 0 leaves out both."""

    def run(self) -> None:
        """Write the page and say where it is."""
        from rich.console import Console

        from distilled_splat.evaluation.report import write_report

        perceptual_of = None if self.perceptual else ()
        path = write_report(
            self.load_config, self.results, self.output, self.data, self.teachers or None, perceptual_of, self.splats_mb
        )
        Console(soft_wrap=True, highlight=False).print(f"The report: {path}")


@dataclass
class Demo:
    """Make a scene, distil it, and show what came of it; all on the CPU if there is no GPU."""

    output: Path = Path("demo-output")
    """Folder for the scene, the runs, the table, the picture and the student's .ply."""
    iterations: int = 1500
    """Steps to train each teacher and the student for."""
    layout: Literal["still-life", "tower", "hall"] = "still-life"
    """Which scene: things in a room, an object without background, or a long room that is walked through."""
    only_scene: bool = False
    """Only make the scene, in the output folder itself."""

    def run(self) -> None:
        """Run the whole job."""
        from distilled_splat.demo.run import run_demo
        from distilled_splat.demo.scene import make_scene

        if self.only_scene:
            print(f"The scene: {make_scene(self.output, layout=self.layout)}")
        else:
            run_demo(self.output, self.iterations, self.layout)


Bench = Annotated[
    Union[
        Annotated[StepBench, tyro.conf.subcommand("step")],
        Annotated[MemoryBench, tyro.conf.subcommand("memory")],
        Annotated[TimeBench, tyro.conf.subcommand("time")],
        Annotated[QualityBench, tyro.conf.subcommand("quality")],
        Annotated[ShrinkBench, tyro.conf.subcommand("shrink")],
    ],
    tyro.conf.subcommand(
        "bench", description="Measure: a step's or a command's time, a training's memory, students, shrunk splats."
    ),
]
Command = Union[
    Annotated[Demo, tyro.conf.subcommand("demo")],
    Annotated[Shrink, tyro.conf.subcommand("shrink")],
    Annotated[Compare, tyro.conf.subcommand("compare")],
    Annotated[Export, tyro.conf.subcommand("export")],
    Annotated[Lod, tyro.conf.subcommand("lod")],
    Annotated[Info, tyro.conf.subcommand("info")],
    Annotated[View, tyro.conf.subcommand("view")],
    Annotated[Report, tyro.conf.subcommand("report")],
    Annotated[Sweep, tyro.conf.subcommand("sweep")],
    Annotated[Doctor, tyro.conf.subcommand("doctor")],
    Bench,
]


PURPOSE = """Make small Gaussian splats as good as big ones: shrink a splat without its photos, export, compare.

To train a small splat from photos: ns-train distilled-splatfacto --data my-capture"""


def main() -> None:
    """Run the subcommand that the command line names; a refusal is one sentence, not a traceback."""
    if sys.argv[1:] == ["--version"]:
        print(f"distilled-splat {__version__}")
        return
    command = tyro.cli(Command, prog="distilled-splat", description=PURPOSE)  # type: ignore[arg-type]
    try:
        command.run()
    except ValueError as error:
        raise SystemExit(str(error)) from None
