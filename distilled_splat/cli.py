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
from distilled_splat.runs.processes import EXIT_INTERRUPTED
from distilled_splat.shrink.bench import ShrinkBench
from distilled_splat.shrink.command import Shrink
from distilled_splat.viewing.command import View
from distilled_splat.workflows.controls import QualityBench
from distilled_splat.workflows.sweep import Sweep


@dataclass
class Compare:
    """Compare a student with its teachers on the held-out photos: size, PSNR, SSIM, LPIPS, seconds of training."""

    load_config: Path
    """config.yml of the student's run (distilled-splatfacto)."""
    teachers: tuple[Path, ...] = ()
    """Teachers to compare with: run folders, config.yml, .ckpt or exported files. By default the student's own
    teachers, at their paths in training or at the same place relative to a run that was moved."""
    data: Optional[Path] = None
    """Folder of the run's data. By default its path in training, or the same place relative to a run that was moved."""
    json: Optional[Path] = None
    """Also write the rows to this JSON file."""
    picture: Optional[Path] = None
    """Also write a picture to this file: photo, standard teacher, student, and the student's error."""
    perceptual: bool = True
    """Measure LPIPS (VGG) and FLIP, if they are installed. On a CPU this takes longer than everything else together."""

    def run(self) -> None:
        """Print the table, and write the JSON file and the picture if their options are given."""
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
    """Export a trained splat as a file for viewers and editors, and measure the loss of quality in the format."""

    load_config: Path
    """config.yml of a run of distilled-splatfacto or splatfacto-teacher."""
    output_dir: Optional[Path] = None
    """Folder for splat.ply, splat.sog and so on. By default export/ in the run's folder."""
    format: Optional[Literal["ply", "compressed-ply", "splat", "spz", "sog", "glb", "all"]] = None
    """Format of the file; all writes every format. By default ply, or with --target-mb the format that loses least."""
    sh_degree: Literal[0, 1, 2, 3, 4] = 4
    """Remove the spherical harmonics above this degree. A .splat has none, compressed formats at most degree 3."""
    target_mb: Optional[float] = None
    """Write one file of at most this many megabytes (10^6 bytes), in the format and degree that lose least."""
    frame: Literal["upright", "nerfstudio", "capture"] = "upright"
    """Coordinate frame of the file. upright: nerfstudio's frame, turned so that y points down (up in a .glb), as
    viewers expect. nerfstudio: the frame that ns-export writes; z points up. capture: the frame of the original poses
    (COLMAP's), before nerfstudio moved them."""
    measure: bool = True
    """Read each file back and measure it on the held-out photos. --no-measure needs no photos."""
    data: Optional[Path] = None
    """Folder of the run's data. By default its path in training, or the same place relative to a run that was moved."""

    def run(self) -> None:
        """Write the files and print their table."""
        from rich.console import Console

        from distilled_splat.evaluation.export import export, export_within, print_files
        from distilled_splat.splat.formats import CHOSEN_FROM, FORMATS

        run = self.load_config if self.load_config.is_dir() else self.load_config.parent
        folder = self.output_dir or run / "export"
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
                "--target-mb needs a positive number of megabytes, and it needs --measure to choose the best file."
            )
        best, fitting = export_within(
            self.load_config, folder, kinds, self.sh_degree, self.frame, self.target_mb, self.data
        )
        print_files(fitting, self.frame, console)
        console.print(
            f"{best.kind} with spherical harmonics of degree {best.sh_degree} loses least "
            f"({best.lost:.2f} dB, {best.megabytes:.3f} of {self.target_mb:g} MB): {best.path}"
        )


@dataclass
class Lod:
    """Write splats of one scene as levels of detail (PlayCanvas' streamed SOG), and measure the error of each chunk."""

    splats: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Splats of one scene in several sizes, all in one frame: run folders, config.yml or exported files."""
    output: Path = Path("lod")
    """Folder for lod-meta.json and the chunks. It must be new or empty."""
    chunk_gaussians: int = 65536
    """Largest number of Gaussians in a chunk, at the finest level. A viewer loads and switches a chunk as a whole."""
    frame: Literal["upright", "nerfstudio", "capture"] = "upright"
    """Coordinate frame for the splats of runs, as in `export`. Exported files keep their frame."""

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
    """Describe splat files in any format that can be read: size, extent, opacities, antialiasing."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Splat files, exported by any trainer or editor."""
    json: bool = False
    """Print a list of JSON objects instead of lines."""

    def run(self) -> None:
        """Print the description of each file."""
        from rich.console import Console

        from distilled_splat.splat.info import print_infos

        print_infos(self.files, self.json, Console(soft_wrap=True, highlight=False))


@dataclass
class Report:
    """Write one HTML page about a run: table, plots, pictures to compare with a slider, and the splats in 3D."""

    load_config: Path
    """config.yml of the student's run (distilled-splatfacto)."""
    results: Optional[Path] = None
    """results.json of `bench quality`. The page shows the controls of the same scene beside the student."""
    output: Optional[Path] = None
    """File to write. By default report.html in the run's folder."""
    teachers: tuple[Path, ...] = ()
    """Teachers to show. By default the student's own teachers, at their paths in training or at the same place relative
    to a run that was moved."""
    data: Optional[Path] = None
    """Folder of the run's data. By default its path in training, or the same place relative to a run that was moved."""
    perceptual: bool = True
    """Measure LPIPS (VGG) and FLIP, if they are installed. On a CPU this takes longer than everything else together."""

    splats_mb: float = 8.0
    """Largest size of the 3D splats in the page, in megabytes (10^6 bytes) of .spz files. If student and teacher
    together are larger, the page has only the student; if the student is larger, neither. 0: neither."""

    def run(self) -> None:
        """Write the page and print its path."""
        from rich.console import Console

        from distilled_splat.evaluation.report import write_report
        from distilled_splat.runs.files import check_writable

        if self.output is not None:
            check_writable(self.output)
        perceptual_of = None if self.perceptual else ()
        path = write_report(
            self.load_config, self.results, self.output, self.data, self.teachers or None, perceptual_of, self.splats_mb
        )
        Console(soft_wrap=True, highlight=False).print(f"Report: {path}")


@dataclass
class Demo:
    """Make a scene, train teachers and a student on it, and compare them. Uses the CPU if there is no GPU."""

    output: Path = Path("demo-output")
    """Folder for the scene, the runs, the table, the picture and the student's .ply."""
    iterations: int = 1500
    """Training steps of each teacher and of the student."""
    layout: Literal["still-life", "tower", "hall"] = "still-life"
    """The scene. still-life: objects in a room. tower: an object without background. hall: a long room that the camera
    walks through."""
    only_scene: bool = False
    """Only make the scene, directly in the output folder."""

    def run(self) -> None:
        """Make the scene, and run the demo unless only the scene is wanted."""
        from distilled_splat.demo.run import run_demo
        from distilled_splat.demo.scene import make_scene

        if self.only_scene:
            print(f"Scene: {make_scene(self.output, layout=self.layout)}")
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
        "bench", description="Measure speed, memory, the quality of students, and other ways to shrink a splat."
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
    """Run the subcommand that the command line names. Bad input and Ctrl-C end in a sentence instead of a traceback."""
    if sys.argv[1:] == ["--version"]:
        print(f"distilled-splat {__version__}")
        return
    command = tyro.cli(Command, prog="distilled-splat", description=PURPOSE)  # type: ignore[arg-type]
    try:
        command.run()
    except ValueError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        if error.filename is None:
            raise
        raise SystemExit(f"{error.filename} cannot be read or written ({error.strerror}).") from None
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
