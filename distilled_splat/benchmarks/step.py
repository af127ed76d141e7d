"""`distilled-splat bench step`: the median time of rasterization's stages and of whole training steps on the CPU."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional

from rich.console import Console
from rich.table import Table

from distilled_splat.benchmarks.variants import Code, comparison_table, measure_variant, variants_of

if TYPE_CHECKING:  # numba and nerfstudio take seconds to import; other subcommands do without them
    from distilled_splat.benchmarks.rasterizer import Measurement
    from distilled_splat.benchmarks.step_times import AtOneSize, StepTimes


@dataclass
class StepBench:
    """Time each stage of rasterization, and whole training steps, on this processor."""

    json: Optional[Path] = None
    """Also write the figures to this JSON file."""
    repeats: int = 20
    """Number of runs of each stage, and of timed steps; the table shows the median."""
    rounds: int = 1
    """Number of processes that time each training, one after the other; the table shows the median. Two processes can
    differ by a fifth in the same training."""
    data: Optional[Path] = None
    """A capture in nerfstudio's format, to time whole training steps at several sizes. By default random scenes
    only."""
    compare: Optional[Literal["torch"]] = None
    """Also time each training step with splatfacto's own loss and Adam."""
    training: bool = True
    """Also time whole training steps."""
    threads: tuple[int, ...] = ()
    """Compare these numbers of threads, each in a process of its own. By default one per processor."""
    code: tuple[Code, ...] = ()
    """Compare kernels that are compiled for these processors: native (this one), avx2 (x86-64 without AVX-512, as in
    most laptops), generic (any). The first time, each takes a minute to compile."""

    def run(self) -> None:
        """Measure, print the tables, and write the JSON file if it is wanted.

        Raises:
            ValueError: if threads or code cannot be compared here.
        """
        if self.threads or self.code:
            self.compare_variants()
        else:
            self.measure()

    def compare_variants(self) -> None:
        """Measure with every number of threads and every code, and print one table."""
        from distilled_splat.ops.processor import num_threads

        variants = variants_of(self.code or ("native",), self.threads or (num_threads(),))
        arguments = ["--repeats", f"{self.repeats}", "--rounds", f"{self.rounds}"]
        arguments += ["--training" if self.training else "--no-training"]
        arguments += [] if self.data is None else ["--data", str(self.data.expanduser())]
        arguments += [] if self.compare is None else ["--compare", self.compare]
        found = [(variant, measure_variant(variant, arguments)) for variant in variants]
        console = Console()
        console.width = max(console.width, 140)
        console.print(comparison_table(found))
        if self.json is not None:
            content = [{"code": variant.code, **figures} for variant, figures in found]
            self.json.write_text(json.dumps(content, indent=2) + "\n")

    def measure(self) -> None:
        """Measure in this process."""
        from distilled_splat.benchmarks.rasterizer import SIZES, measure
        from distilled_splat.benchmarks.step_times import exponents, side_by_side
        from distilled_splat.benchmarks.training import training_steps
        from distilled_splat.benchmarks.workload import measure_peak
        from distilled_splat.cpu.simd import LANES
        from distilled_splat.ops.processor import num_threads, processor_name

        peak = measure_peak()
        machine = {"processor": processor_name(), "threads": num_threads(), "lanes": LANES, "peak_gflops": peak}
        measurements = [measure(*size, repeats=self.repeats, peak=peak) for size in SIZES]
        print_table(machine, measurements)
        steps: list[StepTimes] = []
        growth: dict[str, float] = {}
        if self.training:
            steps = training_steps(self.data, SIZES, self.compare, self.repeats, self.rounds)
            growth = exponents(steps)
            print_steps(steps)
            print_side_by_side(side_by_side(steps), growth)
        if self.json is not None:
            write_json(self.json, machine, measurements, steps, growth)


def print_table(machine: dict[str, Any], measurements: list[Measurement]) -> None:
    """Print the stages of all scenes, a column for each scene."""
    title = (
        f"{machine['processor']}, {machine['threads']} threads, {machine['lanes']} lanes, "
        f"FMA peak {machine['peak_gflops']:.0f} GFLOP/s per core"
    )
    table = Table(title=title)
    table.add_column("median milliseconds")
    for m in measurements:
        table.add_column(f"{m.gaussians:,} Gaussians\n{m.width}x{m.height}", justify="right")
    for name in measurements[0].milliseconds:
        table.add_row(name, *(f"{m.milliseconds[name]:.2f}" for m in measurements))
    table.add_section()
    table.add_row("Gaussians per pixel", *(f"{m.contributions_per_pixel:.1f}" for m in measurements))
    for name in measurements[0].peak_shares:
        table.add_row(f"fraction of peak, {name}", *(f"{m.peak_shares[name]:.1%}" for m in measurements))
    Console().print(table)


def print_steps(steps: list[StepTimes]) -> None:
    """Print whole training steps and their stages, one line each."""
    names = list(steps[0].milliseconds)
    console = Console()
    console.width = max(console.width, 140)
    table = Table("whole training step, ms", "Gaussians", "pixels", *names)
    for step in steps:
        milliseconds = (f"{step.milliseconds[name]:.1f}" for name in names)
        table.add_row(f"{step.scene}, {step.kind}", f"{step.gaussians:,}", f"{step.width}x{step.height}", *milliseconds)
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)


def print_side_by_side(rows: list[AtOneSize], growth: dict[str, float]) -> None:
    """Print plain, student's and stock steps in one table, and how the time of plain steps grows with the size."""
    table = Table("ms per step", "Gaussians", "pixels", "plain", "student", "/ plain", "stock", "/ plain", "MB")
    for row in rows:
        stock = ("", "") if row.stock is None else (f"{row.stock:.1f}", f"{row.stock / row.plain:.2f}")
        student = (f"{row.plain:.1f}", f"{row.student:.1f}", f"{row.student / row.plain:.2f}")
        size = (f"{row.gaussians:,}", f"{row.width}x{row.height}")
        table.add_row(row.scene, *size, *student, *stock, f"{row.peak_megabytes:.0f}")
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    Console().print(table)
    for name, value in growth.items():
        Console().print(f"{name}: {value:.2f}")


def write_json(
    path: Path,
    machine: dict[str, Any],
    measurements: list[Measurement],
    steps: list[StepTimes],
    growth: dict[str, float],
) -> None:
    """Write machine and figures to a JSON file."""
    scenes = [dataclasses.asdict(m) for m in measurements]
    figures = {**machine, "scenes": scenes, "training": [dataclasses.asdict(step) for step in steps], "growth": growth}
    path.write_text(json.dumps(figures, indent=2) + "\n")
