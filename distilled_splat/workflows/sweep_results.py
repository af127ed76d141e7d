"""The results of a sweep, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from distilled_splat.workflows.sweep_plan import Student


def results_of(students: Sequence[Student], output: Path) -> list[dict[str, Any]]:
    """Return the measurements: for each scene the teachers and their mean once, then the scene's students.

    Args:
        students: the students of the sweep; students without a comparison are left out.
        output: folder of the sweep; the paths of the runs are relative to it.
    """
    results: list[dict[str, Any]] = []
    seen: set[str] = set()
    for student in students:
        if student.comparison.exists():
            for row in json.loads(student.comparison.read_text(encoding="utf8")):
                if row["name"] == "student":
                    run = student.run.relative_to(output).as_posix()
                    results.append({"scene": student.scene, "fraction": student.fraction, **row, "run": run})
                elif student.scene not in seen:
                    results.append({"scene": student.scene, "fraction": None, **row, "run": None})
            seen.add(student.scene)
    return results


def results_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return the measurements as one table."""
    table = Table("scene", "held-out views", "size", "Gaussians", "MB (.ply)", "PSNR", "SSIM", "seconds")
    for cells in table_cells(results):
        table.add_row(*cells)
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def table_cells(results: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield the cells of each measurement's row."""
    for result in results:
        yield [
            result["scene"],
            result["name"],
            "" if result["fraction"] is None else f"{100 * result['fraction']:g} %",
            f"{result['gaussians']}",
            f"{result['megabytes']:.2f}",
            f"{result['psnr']:.2f}",
            f"{result['ssim']:.4f}",
            "" if result["seconds"] is None else f"{result['seconds']:.0f}",
        ]
