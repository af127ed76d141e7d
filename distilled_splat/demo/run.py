"""The demo: make a scene, train and export with nerfstudio's own commands, and compare in a table and a picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console

from distilled_splat.demo.scene import make_scene
from distilled_splat.runs.processes import child_environment


def nerfstudio(script: str, *arguments: str) -> None:
    """Print one of nerfstudio's commands, and run it in its own process.

    Raises:
        SystemExit: with the command's exit code, if it fails.
    """
    command = [sys.executable, "-m", f"nerfstudio.scripts.{script}", *arguments]
    name = {"train": "ns-train", "exporter": "ns-export"}[script]
    Console().print(f"[bold]$ {name} {' '.join(arguments)}", highlight=False, soft_wrap=True)
    done = subprocess.run(command, check=False, env=child_environment())
    if done.returncode != 0:
        raise SystemExit(done.returncode)


def newest_run(outputs: Path, scene: Path, method: str) -> Path:
    """Return the newest run of a method on a scene."""
    return max((outputs / scene.name / method).glob("*/config.yml"), key=lambda path: path.stat().st_mtime).parent


def run_demo(output: Path, iterations: int, layout: str = "still-life") -> None:
    """Make the scene, train teachers and student, export the student, and print and picture the comparison.

    Args:
        output: folder for all files. Finished steps in it are not repeated.
        iterations: steps for each of the four trainings.
        layout: name of the scene; see `layouts.LAYOUTS`.
    """
    console = Console()
    scene = make_scene(output / "scene", layout=layout)
    console.print(f"Scene: {scene}")
    nerfstudio(
        "train", "distilled-splatfacto",
        "--data", str(scene),
        "--output-dir", str(output / "runs"),
        "--max-num-iterations", str(iterations),
        "--vis", "tensorboard",
        "nerfstudio-data", "--eval-mode", "interval", "--eval-interval", "8",
    )  # fmt: skip
    config = newest_run(output / "runs", scene, "distilled-splatfacto") / "config.yml"
    nerfstudio("exporter", "gaussian-splat", "--load-config", str(config), "--output-dir", str(output))

    from distilled_splat.evaluation.compare import compare, print_table, write_rows
    from distilled_splat.evaluation.pictures import PICTURED_VIEWS, student_picture

    comparison = compare(config, pictured=PICTURED_VIEWS)
    write_rows(comparison.rows, output / "comparison.json")
    student_picture(comparison, output / "comparison.png")
    print_table(comparison, console)
    console.print(f"Splat of the student: {output / 'splat.ply'}\nPicture: {output / 'comparison.png'}")
