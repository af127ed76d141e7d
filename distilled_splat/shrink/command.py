"""`distilled-splat shrink`: a small splat of a big one, without its photos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import tyro


@dataclass
class Shrink:
    """Refit a small splat to a big one, without its photos: to .ply, compressed .ply, .splat, .spz, .sog or .glb."""

    splats: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The splat to shrink: a file of any trainer (.ply, .spz, .splat, .ksplat, .sog, .glb, .pt), or a run folder. More
    splats of the same scene, in the same frame, help to teach the small one."""
    output: Path = Path("small.ply")
    """File to write; its ending says the format. With several sizes their numbers of Gaussians are put before it."""
    keep_fraction: tuple[float, ...] = ()
    """Sizes as parts of the Gaussians; 0.1 if no size is given at all."""
    num_gaussians: tuple[int, ...] = ()
    """Sizes in Gaussians."""
    target_mb: tuple[float, ...] = ()
    """Sizes of the file in megabytes (10^6 bytes)."""
    sh_degree: int = 4
    """Leave out the spherical harmonics above this degree: without any, a file has a quarter of the size."""
    cameras: Optional[Path] = None
    """Where the photos were taken from, if that is known: transforms.json, a COLMAP model, Inria's cameras.json or a
    run of nerfstudio. Without it views are found by themselves."""
    views: int = 200
    """Number of views to find."""
    iterations: int = 3000
    """Steps of the refit."""
    minutes: Optional[float] = None
    """Time for the whole command: steps, and views if need be, are chosen so that it ends then; in place of
    --iterations."""
    seed: int = 0
    """Of all that is drawn by chance."""
    preview: Optional[Path] = None
    """Also write a picture of the views to this file: what some show, and where all stand."""
    report: Optional[Path] = None
    """Also write the report of the (smallest) refit to this file: a page with pictures to slide over."""
    json: Optional[Path] = None
    """Also write the table to this file."""
    keep_work: bool = False
    """Keep the folder of the work beside the output: the views, the runs and their checkpoints."""

    def run(self) -> None:
        """Shrink, print the table and name the files.

        Raises:
            ValueError: if something that is asked for cannot be; nothing is written then.
            SystemExit: if a training fails or is interrupted; the same command resumes it.
        """
        from rich.console import Console

        from distilled_splat.runs.files import write_json
        from distilled_splat.shrink.measure import print_rows
        from distilled_splat.shrink.shrinking import Shrinking
        from distilled_splat.shrink.sizes import counts_of
        from distilled_splat.splat.formats import FORMATS, check_library

        if self.iterations < 10 or self.views < 2:
            raise ValueError("--iterations must be at least 10, and --views at least 2.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ValueError(f"--minutes {self.minutes:g} is not a time: give a positive number.")
        if not 0 <= self.sh_degree <= 4:
            raise ValueError(f"--sh-degree {self.sh_degree} is not a degree of spherical harmonics: give 0 to 4.")
        kinds = sorted(FORMATS, key=lambda kind: -len(FORMATS[kind].ending))  # .compressed.ply before .ply
        kind = next((kind for kind in kinds if self.output.name.endswith(FORMATS[kind].ending)), None)
        if kind is None or self.output.is_dir():
            endings = ", ".join(form.ending for form in FORMATS.values())
            raise ValueError(f"--output {self.output} does not name a file that can be written: end it with {endings}.")
        form = FORMATS[kind]
        check_library(form)
        for path in self.splats:
            if path.expanduser().absolute() == self.output.expanduser().absolute():
                raise ValueError(f"--output {self.output} is the splat itself: give another name.")

        console = Console(soft_wrap=True, highlight=False)
        job = Shrinking(self.splats, self.output, form, self.sh_degree, console)
        nothing = not (self.keep_fraction or self.num_gaussians or self.target_mb)
        fractions = (0.1,) if nothing else self.keep_fraction
        counts = counts_of(
            job.teachers[0].gaussians, fractions, self.num_gaussians, self.target_mb, form, job.sh_degree
        )
        rows, views = job.run(
            counts,
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
