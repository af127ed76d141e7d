"""`distilled-splat bench time`: where the time of a whole `ns-train distilled-splatfacto` goes, and when it is good."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from distilled_splat.runs.stages import Times

METHOD = "distilled-splatfacto"
ALL_PHOTOS = "Eval Images Metrics Dict (all images)/psnr"
"""Name under which nerfstudio logs the mean PSNR on the held-out photos."""
LEFT_OUT = "ends of processes"
MARGINS = (0.5, 0.1)
"""dB below the end."""


@dataclass(frozen=True)
class Quality:
    """When a training came near to its last PSNR on the held-out photos."""

    run: str
    end: float
    """PSNR after the last step, in dB."""
    margin: float
    """How far below the end counts as near, in dB."""
    step: int
    seconds: float
    """By the clock since the process began, without measuring."""
    processor_seconds: float


@dataclass
class TimeBench:
    """Time a whole `ns-train distilled-splatfacto` by stages, from its first import to its report."""

    output: Path = Path("time")
    """Folder for the runs, which must not hold any yet."""
    data: Optional[Path] = None
    """A capture in nerfstudio's format; if not given, the demo's still life is made, before the clock starts."""
    iterations: int = 300
    """Steps of each teacher and of the student."""
    evaluations: int = 0
    """Times that each training measures all held-out photos: enough of them show how soon it is good."""
    json: Optional[Path] = None
    """Also write the figures to this file."""

    def run(self) -> None:
        """Train, print the tables, and write the file if one was asked for.

        Raises:
            ValueError: if there are runs already.
            SystemExit: with the exit code of the training, if it fails.
        """
        from distilled_splat.demo.scene import make_scene
        from distilled_splat.runs.files import write_json

        runs = self.output / "runs"
        if runs.exists():
            raise ValueError(f"{runs} holds runs already, which would not be trained again: give another --output.")
        scene = self.data or make_scene(self.output / "scene")
        whole = timed(self.command(scene, runs))
        (student,) = runs.glob(f"*/{METHOD}/*")
        folders = {folder.name.partition("-")[0]: folder for folder in teachers_of(student)} | {"student": student}
        stages = {name: stages_of(folder) for name, folder in folders.items()}
        found = [quality for name, folder in folders.items() for quality in qualities(name, folder)]
        print_stages(stages, whole)
        if found:
            print_qualities(found)
        if self.json is not None:
            figures = {"stages": stages, "whole": whole, "quality": [asdict(quality) for quality in found]}
            write_json(self.json, figures)

    def command(self, scene: Path, runs: Path) -> list[str]:
        """Return the command; one step more than asked for lets the last measurement be of the last step but one."""
        each = self.iterations // self.evaluations if self.evaluations else 0
        return [
            sys.executable, "-m", "nerfstudio.scripts.train", METHOD, "--data", f"{scene}", "--output-dir", f"{runs}",
            "--max-num-iterations", f"{self.iterations + (each > 0)}", "--vis", "tensorboard",
            *(["--steps-per-eval-all-images", f"{each}"] if each else []),
            "nerfstudio-data", "--eval-mode", "interval", "--eval-interval", "8",
        ]  # fmt: skip


def timed(command: Sequence[str]) -> Times:
    """Run a command to its end; return the seconds by the clock, and of the processors in it and all that it starts.

    Raises:
        SystemExit: with its exit code, if it fails.
    """
    begun, before = time.time(), processor_seconds()
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise SystemExit(code)
    return time.time() - begun, processor_seconds() - before


def processor_seconds() -> float:
    """Return the processors' seconds of all processes that were waited for; 0 on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def teachers_of(student: Path) -> list[Path]:
    """Return the folders of a student's teachers, in their order."""
    from distilled_splat.runs.record import read_record

    return [Path(path) for path in read_record(student)["teachers"]]


def stages_of(run: Path) -> dict[str, Times]:
    """Return where the time of a finished run went."""
    from distilled_splat.runs.record import read_record

    return {name: (times[0], times[1]) for name, times in read_record(run)["stages"].items()}


def qualities(name: str, run: Path) -> list[Quality]:
    """Return when a training came near to its end, for each margin, if it has measured twice or more."""
    from distilled_splat.evaluation.report import scalars
    from distilled_splat.runs.record import read_record

    clocks = {entry["step"]: entry for entry in read_record(run)["evaluations"]}
    measured = [(step, psnr) for step, psnr in scalars(run).get(ALL_PHOTOS, ()) if step in clocks]
    if len(measured) < 2:
        return []
    found = []
    for margin in MARGINS:
        end = measured[-1][1]
        step = next(step for step, psnr in measured if psnr >= end - margin)
        clock = clocks[step]
        found.append(Quality(name, end, margin, step, clock["seconds"], clock["processor_seconds"]))
    return found


def rows_of(stages: Mapping[str, Mapping[str, Times]], whole: Times) -> dict[str, dict[str, Times]]:
    """Return the table's rows: each stage by process and in all, what lies outside of stages, all, and all but steps.

    A student waits for its teachers, whose time is in their own columns: by the clock its waiting does not count.
    """
    from distilled_splat.runs.stages import total

    names = dict.fromkeys(name for times in stages.values() for name in times)
    rows: dict[str, dict[str, Times]] = {}
    for name in names:
        row = {run: times[name] for run, times in stages.items() if name in times}
        if name == "teachers":
            row = {run: (0.0, times[1]) for run, times in row.items()}
        rows[name] = {**row, "all": total(row)}
    inside = total({name: row["all"] for name, row in rows.items()})
    rows[LEFT_OUT] = {"all": (whole[0] - inside[0], whole[1] - inside[1])}
    rows["whole command"] = {"all": whole}
    steps = rows["steps"]["all"]
    rows["all but steps"] = {"all": (whole[0] - steps[0], whole[1] - steps[1])}
    return rows


def print_stages(stages: Mapping[str, Mapping[str, Times]], whole: Times) -> None:
    """Print a row for each stage, a column for each process."""
    table = Table("seconds by the clock / of the processors", *stages, "all", title="A whole command, one slot")
    for name, row in rows_of(stages, whole).items():
        table.add_row(name, *("" if run not in row else words(row[run]) for run in (*stages, "all")))
    for column in table.columns[1:]:
        column.justify = "right"
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)


def print_qualities(found: Sequence[Quality]) -> None:
    """Print how soon each training is nearly as good as at its end."""
    heads = ("run", "dB at the end", "within, dB", "step", "seconds, clock / processors")
    table = Table(*heads, title="Time to quality, each training by itself, without the time of measuring")
    for quality in found:
        times = words((quality.seconds, quality.processor_seconds))
        table.add_row(quality.run, f"{quality.end:.2f}", f"{quality.margin:g}", f"{quality.step}", times)
    Console().print(table)


def words(times: Times) -> str:
    """Write two times."""
    return f"{times[0]:.1f} / {times[1]:.1f}"
