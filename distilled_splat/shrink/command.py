"""`distilled-splat shrink`: make a small splat from a big one, without its photos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import tyro

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""Endings of the pictures that `--preview` writes."""


@dataclass
class Shrink:
    """Make a small splat from a big one without its photos: .ply, compressed .ply, .splat, .spz, .sog or .glb."""

    splats: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The splat to shrink: a file of any trainer (.ply, .spz, .splat, .ksplat, .sog, .glb, .pt), or a run folder.
    Further splats of the same scene, in the same frame, become additional teachers of the small splat."""
    output: Path = Path("small.ply")
    """File to write; its ending sets the format. With several sizes, each file name ends in -<number of Gaussians>."""
    keep_fraction: tuple[float, ...] = ()
    """Sizes as fractions of the splat's Gaussians. Without any size option: 0.1."""
    num_gaussians: tuple[int, ...] = ()
    """Sizes as numbers of Gaussians."""
    target_mb: tuple[float, ...] = ()
    """Sizes of the file in megabytes (10^6 bytes)."""
    sh_degree: int = 4
    """Remove the spherical harmonics above this degree. A .ply of degree 0 has about a quarter of the size."""
    cameras: Optional[Path] = None
    """Cameras of the original photos, if you have them: transforms.json, a COLMAP model, Inria's cameras.json, or a run
    of nerfstudio. By default the command invents views."""
    views: int = 200
    """Largest number of views to invent. Ignored with --cameras."""
    iterations: int = 3000
    """Training steps for each size."""
    minutes: Optional[float] = None
    """Time for the whole command, in minutes. The command chooses the number of steps, and of views if necessary, to
    finish in this time. Replaces --iterations."""
    seed: int = 0
    """Seed of all random numbers."""
    preview: Optional[Path] = None
    """Also write a picture to this file: some of the views, and a plan of all cameras."""
    report: Optional[Path] = None
    """Also write a report of the (smallest) result to this file: an HTML page with pictures to compare with a
    slider."""
    json: Optional[Path] = None
    """Also write the table to this JSON file."""
    keep_work: bool = False
    """Keep the work folder beside the output: the views, the runs and their checkpoints."""

    def run(self) -> None:
        """Shrink the splat, print the table, and print the path of each file.

        Raises:
            ValueError: if an option cannot be fulfilled; then nothing is written.
            SystemExit: if a training fails or is interrupted; the same command resumes it.
        """
        from rich.console import Console

        from distilled_splat.runs.files import check_writable, write_json
        from distilled_splat.shrink.measure import print_rows
        from distilled_splat.shrink.shrinking import Shrinking
        from distilled_splat.shrink.sizes import sizes_of
        from distilled_splat.splat.formats import FORMATS, check_library

        if self.iterations < 10 or self.views < 2:
            raise ValueError("--iterations must be at least 10, and --views at least 2.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ValueError(f"--minutes {self.minutes:g} is invalid: give a positive number.")
        if not 0 <= self.sh_degree <= 4:
            raise ValueError(f"--sh-degree {self.sh_degree} is invalid: give a degree of harmonics from 0 to 4.")
        kinds = sorted(FORMATS, key=lambda kind: -len(FORMATS[kind].ending))  # .compressed.ply before .ply
        kind = next((kind for kind in kinds if self.output.name.endswith(FORMATS[kind].ending)), None)
        if kind is None or self.output.is_dir():
            endings = ", ".join(form.ending for form in FORMATS.values())
            raise ValueError(f"--output {self.output} is not a file name in a known format: end it with {endings}.")
        form = FORMATS[kind]
        check_library(form)
        self.check_apart(self.output, self.preview, self.report, self.json)
        if self.preview is not None and self.preview.suffix.lower() not in PICTURES:
            raise ValueError(f"--preview {self.preview} is not a picture: end it with {', '.join(PICTURES)}.")
        for file in (self.output, self.preview, self.report, self.json):
            if file is not None:
                check_writable(file)

        console = Console(soft_wrap=True, highlight=False)
        job = Shrinking(self.splats, self.output, form, self.sh_degree, console)
        nothing = not (self.keep_fraction or self.num_gaussians or self.target_mb)
        fractions = (0.1,) if nothing else self.keep_fraction
        sizes = sizes_of(
            job.frame.out_of(job.original), fractions, self.num_gaussians, self.target_mb, form, job.sh_degree
        )
        self.check_apart(*(job.path_of(count, sizes) for count in sizes))
        rows, views = job.run(
            sizes,
            self.cameras,
            self.views,
            self.iterations,
            self.minutes,
            self.seed,
            self.preview,
            self.report,
            self.keep_work,
        )
        print_rows(rows, views, console)
        if self.json is not None:
            write_json(self.json, {"views": views, "rows": [vars(row) for row in rows]})

    def check_apart(self, *written: Optional[Path]) -> None:
        """Check that no file to write is one that is read.

        Raises:
            ValueError: if it is, by whatever path, link or spelling.
        """
        for path in written:
            for given in (*self.splats, *(() if self.cameras is None else (self.cameras,))):
                if path is not None and is_same(path.expanduser(), given.expanduser()):
                    raise ValueError(f"{path} would overwrite {given}, which is read: give another name.")


def is_same(one: Path, other: Path) -> bool:
    """Return whether two paths are one file, or would be."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))
