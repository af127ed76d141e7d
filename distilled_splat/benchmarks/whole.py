"""`distilled-splat bench time`: the stages of a whole `ns-train distilled-splatfacto`, and the time to good quality."""

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
"""Distances below the last PSNR, in dB."""


@dataclass(frozen=True)
class Quality:
    """The step and the time at which a training came near its last PSNR on the held-out photos."""

    run: str
    end: float
    """PSNR after the last step, in dB."""
    margin: float
    """Distance below the end that counts as near, in dB."""
    step: int
    seconds: float
    """Wall time since the start of the process, without the time of measuring."""
    processor_seconds: float


@dataclass
class TimeBench:
    """Time the stages of a whole `ns-train distilled-splatfacto`, from its first import to its report."""

    output: Path = Path("time")
    """Folder for the runs. It must not contain runs yet."""
    data: Optional[Path] = None
    """A capture in nerfstudio's format. By default the demo's still life, made before the timing starts."""
    iterations: int = 300
    """Training steps of each teacher and of the student."""
    evaluations: int = 0
    """How many times each training measures all held-out photos, to show when it reaches good quality. 0: never."""
    json: Optional[Path] = None
    """Also write the figures to this JSON file."""

    def run(self) -> None:
        """Train, print the tables, and write the JSON file if it is wanted.

        Raises:
            ValueError: if the folder already contains runs.
            SystemExit: with the exit code of the training, if the training fails.
        """
        from distilled_splat.demo.scene import make_scene
        from distilled_splat.runs.files import write_json

        runs = self.output / "runs"
        if runs.exists():
            raise ValueError(f"{runs} already has runs, which would not be trained again: give another --output.")
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
        """Return the command. With evaluations, one extra step puts the last measurement at the end of the run."""
        each = self.iterations // self.evaluations if self.evaluations else 0
        return [
            sys.executable, "-m", "nerfstudio.scripts.train", METHOD, "--data", f"{scene}", "--output-dir", f"{runs}",
            "--max-num-iterations", f"{self.iterations + (each > 0)}", "--vis", "tensorboard",
            *(["--steps-per-eval-all-images", f"{each}"] if each else []),
            "nerfstudio-data", "--eval-mode", "interval", "--eval-interval", "8",
        ]  # fmt: skip


def timed(command: Sequence[str]) -> Times:
    """Run a command to its end. Return its wall time, and the processor time of the command and its child processes.

    Raises:
        SystemExit: with the command's exit code, if the command fails.
    """
    begun, before = time.time(), processor_seconds()
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise SystemExit(code)
    return time.time() - begun, processor_seconds() - before


def processor_seconds() -> float:
    """Return the processor time of all child processes that have ended; 0 on Windows, which does not report it."""
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
    """Return the time of each stage of a finished run."""
    from distilled_splat.runs.record import read_record

    return {name: (times[0], times[1]) for name, times in read_record(run)["stages"].items()}


def qualities(name: str, run: Path) -> list[Quality]:
    """Return when a training came near its last PSNR, for each margin; empty with fewer than two measurements."""
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
    """Return the table's rows: each stage by process and in total, the time outside of stages, all, all but steps.

    A student waits for its teachers, whose times have columns of their own. The wall time of this wait does not count.
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
    table = Table("wall / processor seconds", *stages, "all", title="A whole command with one slot")
    for name, row in rows_of(stages, whole).items():
        table.add_row(name, *("" if run not in row else words(row[run]) for run in (*stages, "all")))
    for column in table.columns[1:]:
        column.justify = "right"
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)


def print_qualities(found: Sequence[Quality]) -> None:
    """Print when each training is nearly as good as at its end."""
    heads = ("run", "final PSNR, dB", "within, dB", "step", "wall / processor seconds")
    table = Table(*heads, title="Time to quality of each training, without the time of the evaluations")
    for quality in found:
        times = words((quality.seconds, quality.processor_seconds))
        table.add_row(quality.run, f"{quality.end:.2f}", f"{quality.margin:g}", f"{quality.step}", times)
    Console().print(table)


def words(times: Times) -> str:
    """Format two times."""
    return f"{times[0]:.1f} / {times[1]:.1f}"
