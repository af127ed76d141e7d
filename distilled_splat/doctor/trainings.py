"""`doctor --full`: train three teachers and a student on every device with the real commands, and stock splatfacto."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from rich.console import Console
from rich.table import Table

from distilled_splat.runs.processes import child_environment

SPLIT = ("nerfstudio-data", "--eval-mode", "interval", "--eval-interval", "8")


@dataclass(frozen=True)
class Training:
    """One line of the table.

    Attributes:
        name: name of the training.
        device: cuda or cpu.
        run: the run folder.
        gigabytes: peak memory, of the GPU as torch counts it, or of the computer for the CPU; None if it is unknown.
        code: exit code of the command.
    """

    name: str
    device: str
    run: Path
    gigabytes: Optional[float]
    code: int


def train(name: str, device: str, output: Path, scene: Path, steps: int, *arguments: str) -> Training:
    """Train one method with ns-train, with its output in a log beside its run.

    Args:
        name: name of the training.
        device: cuda or cpu.
        output: folder for the run.
        scene: folder of the capture.
        steps: length of the training.
        arguments: the method and its options.
    """
    from distilled_splat.ops.free_memory import release_memory

    release_memory()
    named = f"{device}-{time.strftime('%Y-%m-%d_%H%M%S')}"  # a run of its own at every call
    words = [
        sys.executable, "-m", "nerfstudio.scripts.train", *arguments[:1],
        "--data", f"{scene}", "--output-dir", f"{output}", "--experiment-name", name, "--timestamp", named,
        "--vis", "tensorboard", "--max-num-iterations", f"{steps}", "--machine.device-type", device,
        *arguments[1:], *SPLIT,
    ]  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    with (output / f"{name}-{device}.log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=child_environment())
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            held = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
        else:
            process.wait()
            held = None
    run = output / name / arguments[0] / named
    gigabytes = held if device == "cpu" else gpu_gigabytes(run)
    return Training(name, device, run, gigabytes, process.returncode)


def logged(run: Path, name: str) -> list[tuple[float, int, float]]:
    """Return the log of one number in a run's tensorboard files: time in seconds, step and value; empty without any."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for path in sorted(run.glob("events.out.tfevents.*")):
        events = EventAccumulator(f"{path}", size_guidance={"scalars": 0}).Reload()
        if name in events.Tags()["scalars"]:
            found += [(event.wall_time, event.step, event.value) for event in events.Scalars(name)]
    return found


def gpu_gigabytes(run: Path) -> Optional[float]:
    """Return the peak GPU memory in a run's log, in 10^9 bytes; None if the log has none."""
    return max((value * 1024**2 / 1e9 for _, _, value in logged(run, "GPU Memory (MB)")), default=None)


def steps_per_second(run: Path) -> Optional[float]:
    """Return the steps per second of a run between its first and last logged steps; None with fewer than two."""
    points = logged(run, "Train Loss")
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return None
    return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])


def full_table(devices: Sequence[str], output: Path, steps: int, console: Console) -> bool:
    """Train everything on every device, and print the table. Return whether all our trainings were successful.

    Args:
        devices: cuda, cpu or both.
        output: folder for the scene, the runs and the logs.
        steps: length of each training.
        console: where to print.
    """
    from distilled_splat.demo.scene import make_scene
    from distilled_splat.evaluation.compare import compare
    from distilled_splat.teachers.kinds import VARIANTS

    scene = make_scene(output / "scene")
    table = Table(f"{steps} steps", "device", "Gaussians", "steps/s", "peak GB", "PSNR")
    for column in table.columns[2:]:
        column.justify = "right"
    whole = True
    for device in devices:
        teachers = [
            train(
                f"{kind}-teacher", device, output, scene, steps, "splatfacto-teacher", "--pipeline.model.variant", kind
            )
            for kind in VARIANTS
        ]
        stock = [train("stock", device, output, scene, steps, "splatfacto")] if device == "cuda" else []
        beside = [training for training in (*teachers, *stock) if training.code == 0]
        student = train(
            "student", device, output, scene, steps, "distilled-splatfacto", "--pipeline.model.teachers",
            *(f"{training.run}" for training in teachers), "--pipeline.model.min-teacher-psnr", "1",
        )  # fmt: skip
        rows = []
        if student.code == 0:
            rows = compare(student.run / "config.yml", [training.run for training in beside], perceptual_of=()).rows
        # compare's rows: the teachers in the order given, their mean, the student
        measured = dict(zip((training.name for training in beside), rows)) | {student.name: rows[-1] if rows else None}
        for training in (*stock, *teachers, student):
            row, pace = measured.get(training.name), steps_per_second(training.run)
            table.add_row(
                training.name,
                training.device,
                "" if row is None else f"{row.gaussians}",
                "" if pace is None else f"{pace:.1f}",
                "" if training.gigabytes is None else f"{training.gigabytes:.2f}",
                f"{row.psnr:.2f}" if row is not None else f"failed with exit code {training.code}",
            )
        whole = whole and all(training.code == 0 for training in (*teachers, student))
    console.print(table)
    console.print(f"Runs and logs: {output}", soft_wrap=True, highlight=False)
    return whole
