"""The step benchmark with other numbers of threads, and with kernels that are compiled for other processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

Code = Literal["native", "avx2", "generic"]
"""native: code for this processor. avx2: for x86-64 processors without AVX-512, as in most laptops. generic: for any
processor of this kind."""

ENVIRONMENTS: dict[Code, dict[str, str]] = {
    "native": {},
    "avx2": {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.1,+sse4.2,+ssse3",
    },
    "generic": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}


@dataclass(frozen=True)
class Variant:
    """One way to run the benchmark.

    Attributes:
        code: the processors that the kernels are compiled for.
        threads: number of threads.
    """

    code: Code
    threads: int

    @property
    def title(self) -> str:
        """The name for people."""
        return f"{self.code}, {self.threads} thread{'s' * (self.threads > 1)}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a process that runs so."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU_")}
        return {**kept, **ENVIRONMENTS[self.code], "OMP_NUM_THREADS": f"{self.threads}"}


def variants_of(codes: Sequence[Code], threads: Sequence[int]) -> list[Variant]:
    """Return every combination, each code with the numbers of threads in this order.

    Raises:
        ValueError: if a number of threads is not positive, or this processor cannot run AVX2 code.
    """
    from llvmlite import binding

    if any(number < 1 for number in threads):
        raise ValueError(f"--threads {' '.join(map(str, threads))}: give positive numbers.")
    if "avx2" in codes and not binding.get_host_cpu_features().get("avx2"):
        raise ValueError("--code avx2: this processor cannot run AVX2 code. Leave avx2 out.")
    return [Variant(code, number) for code, number in product(codes, threads)]


def measure_variant(variant: Variant, arguments: Sequence[str]) -> dict[str, Any]:
    """Run `bench step` in a process of its own, and return what its JSON file holds.

    Args:
        variant: how to run it.
        arguments: other options of `bench step`.

    Raises:
        ValueError: if the process fails; the error has the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "distilled_splat", "bench", "step", "--json", str(path), *arguments]
        done = subprocess.run(
            command, env=variant.environment(), text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode:
            last = done.stdout.strip().splitlines()[-1:] or ["It printed nothing."]
            raise ValueError(f"The benchmark with {variant.title} failed: {last[0]}")
        return json.loads(path.read_text())


def rows_of(figures: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Return the milliseconds of the rasterizer's stages and of whole training steps, by scene and stage."""
    rows = {}
    for scene in figures["scenes"]:
        size = f"random, {scene['gaussians']:,} at {scene['width']}x{scene['height']}"
        rows.update({(size, stage): time for stage, time in scene["milliseconds"].items()})
    for step in figures["training"]:
        size = f"{step['scene']}, {step['gaussians']:,} at {step['width']}x{step['height']}"
        kind = "plain" if step["kind"] == "ours" else step["kind"]
        rows[size, f"whole step, {kind}"] = step["milliseconds"]["whole step"]
    return rows


def comparison_table(found: Sequence[tuple[Variant, dict[str, Any]]]) -> Table:
    """Return a table with a column for each variant. Each cell has the milliseconds, and the efficiency in brackets.

    The efficiency is the time with the fewest threads, divided by the time of this variant and by how many times more
    threads it has.
    """
    rows = {variant: rows_of(figures) for variant, figures in found}
    table = Table("", title=f"{found[0][1]['processor']}, milliseconds (efficiency of the threads)")
    for variant, figures in found:
        table.add_column(f"{variant.title}\n{figures['lanes']} lanes", justify="right", no_wrap=True)
    last = ""
    for size, stage in sorted(rows[found[0][0]], key=lambda row: row[0]):
        if size != last:
            table.add_section()
            table.add_row(f"[bold]{size}")
            last = size
        cells = []
        for variant in rows:
            time = rows[variant][size, stage]
            fewest = min((other for other in rows if other.code == variant.code), key=lambda other: other.threads)
            more = variant.threads / fewest.threads
            efficiency = f" ({rows[fewest][size, stage] / (time * more):.0%})" if more > 1 else ""
            cells.append(f"{time:.1f}{efficiency}")
        table.add_row(stage, *cells)
    return table
