"""The step benchmark with other numbers of threads and other code: environments, comparisons, and the real command."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from distilled_splat.benchmarks.variants import (
    Variant,
    comparison_table,
    measure_variant,
    rows_of,
    variants_of,
)


def figures(whole: float, lanes: int = 16) -> dict[str, Any]:
    scene = {"gaussians": 1000, "width": 40, "height": 30, "milliseconds": {"blend forward": whole / 2}}
    step = {"kind": "ours", "scene": "fox", "gaussians": 50, "width": 9, "height": 8}
    step["milliseconds"] = {"render": 1.0, "whole step": whole}  # type: ignore[assignment]
    return {"processor": "A processor", "lanes": lanes, "scenes": [scene], "training": [step]}


def test_every_code_runs_with_every_number_of_threads() -> None:
    found = variants_of(("native", "generic"), (1, 4))
    assert [variant.title for variant in found] == [
        "native, 1 thread", "native, 4 threads", "generic, 1 thread", "generic, 4 threads",
    ]  # fmt: skip


def test_the_environment_chooses_code_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CPU_NAME", "nehalem")
    native, generic = (Variant(code, 3).environment() for code in ("native", "generic"))
    assert "NUMBA_CPU_NAME" not in native and native["OMP_NUM_THREADS"] == "3"
    assert (generic["NUMBA_CPU_NAME"], generic["NUMBA_CPU_FEATURES"]) == ("generic", "")


@pytest.mark.parametrize("threads", [(0,), (2, -1)])
def test_threads_are_positive(threads: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="positive numbers"):
        variants_of(("native",), threads)


def test_efficiency_is_relative_to_the_fewest_threads_of_the_same_code() -> None:
    times = {("native", 1): 8.0, ("native", 4): 2.5, ("generic", 1): 40.0, ("generic", 4): 20.0}
    found = [(Variant(code, threads), figures(whole)) for (code, threads), whole in times.items()]  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=200)
    console.print(comparison_table(found))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    (line,) = [line for line in printed.splitlines() if "whole step, plain" in line]
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells == ["whole step, plain", "8.0", "2.5 (80%)", "40.0", "20.0 (50%)"]


def test_rows_name_scene_size_and_stage() -> None:
    assert rows_of(figures(8.0)) == {
        ("random, 1,000 at 40x30", "blend forward"): 4.0,
        ("fox, 50 at 9x8", "whole step, plain"): 8.0,
    }


def test_a_failed_process_is_quoted() -> None:
    with pytest.raises(ValueError, match=r"native, 1 thread failed: .*absent"):
        measure_variant(Variant("native", 1), ["--repeats", "1", "--data", "absent"])


@pytest.mark.slow
def test_the_command_compares_threads(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "distilled-splat"), "bench", "step", "--repeats", "1", "--no-training",
               "--threads", "1", "2", "--code", "native", "--json", "figures.json"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "native, 1 thread" in done.stdout and "efficiency" in done.stdout
    one, two = json.loads((tmp_path / "figures.json").read_text())
    assert (one["threads"], two["threads"], one["code"]) == (1, 2, "native") and one["scenes"][0]["milliseconds"]
