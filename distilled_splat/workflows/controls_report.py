"""Turn the measurements of the quality benchmark into a table and a rate-distortion plot."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from distilled_splat.evaluation.results import GEOMETRY
from distilled_splat.runs.files import write_beside

DEFAULT = "our default"
Key = tuple[str, Optional[float], str]


def grouped(results: Sequence[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """Group measurements that differ by their seed only, in the order of their first appearance."""
    groups: dict[Key, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["scene"], result["fraction"], result["row"]), []).append(result)
    return groups


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the measurements as a Markdown table, mean ± sample standard deviation over the seeds.

    Errors of the geometry are by the capture's depth maps where it has some, else by the teachers' mean.
    """
    heads = ("scene", "size", "row", "Gaussians", "MB", "PSNR", "SSIM", *GEOMETRY, "seconds", "runs")
    lines = [f"| {' | '.join(heads)} |".replace("_", " "), "|---" * len(heads) + "|"]
    for (scene, fraction, row), group in grouped(results).items():
        psnr, psnr_spread = summary([result["psnr"] for result in group])
        ssim, ssim_spread = summary([result["ssim"] for result in group])
        seconds = [result["seconds"] for result in group if result["seconds"] is not None]
        geometry = " | ".join(percents([result.get(name) for result in group]) for name in GEOMETRY)
        size = "" if fraction is None else f"{100 * fraction:g} %"
        time = f"{summary(seconds)[0]:.0f}" if seconds else ""
        lines.append(
            f"| {scene} | {size} | {row} | {group[0]['gaussians']} | {group[0]['megabytes']:.1f} "
            f"| {psnr:.2f} ± {psnr_spread:.2f} | {ssim:.4f} ± {ssim_spread:.4f} | {geometry} | {time} | {len(group)} |"
        )
    return "\n".join(lines) + "\n"


def percents(values: Sequence[Optional[float]]) -> str:
    """Return the mean of parts of 1 with its spread, as percentages; nothing if there are none."""
    known = [100 * value for value in values if value is not None]
    return "{:.2f} ± {:.2f} %".format(*summary(known)) if known else ""


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot PSNR over Gaussians and over megabytes, one row of axes per scene."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

    students = {result["row"] for result in results if result["fraction"] is not None}
    scenes = list(dict.fromkeys(result["scene"] for result in results))
    figure, axes = pyplot.subplots(len(scenes), 2, figsize=(14, 4 * len(scenes)), squeeze=False)
    for scene, (over_gaussians, over_megabytes) in zip(scenes, axes):
        rows: dict[str, list[tuple[float, float, float, float]]] = {}
        for (where, _, row), group in grouped(results).items():
            if where == scene:
                mean, spread = summary([result["psnr"] for result in group])
                rows.setdefault(row, []).append((group[0]["gaussians"], group[0]["megabytes"], mean, spread))
        for row, points in rows.items():
            gaussians, megabytes, means, spreads = zip(*sorted(points))
            style = {"marker": "o" if row in students else "s", "linewidth": 2.5 if row == DEFAULT else 1.2}
            for axis, sizes in ((over_gaussians, gaussians), (over_megabytes, megabytes)):
                axis.errorbar(sizes, means, yerr=spreads, markersize=5, capsize=3, label=row, **style)
        for axis, label in ((over_gaussians, "Gaussians"), (over_megabytes, "megabytes (.ply)")):
            axis.set(xscale="log", xlabel=label, ylabel="PSNR on held-out views, dB", title=scene)
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_minor_locator(NullLocator())
        over_gaussians.xaxis.set_major_formatter(EngFormatter(sep=""))
        over_megabytes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        over_megabytes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    write_beside(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))
    pyplot.close(figure)


def write_report(output: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write table.md and rate-distortion.png beside results.json."""
    write_beside(output / "table.md", lambda temporary: temporary.write_text(table(results), encoding="utf8"))
    plot(results, output / "rate-distortion.png")


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (0 for a single value)."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
