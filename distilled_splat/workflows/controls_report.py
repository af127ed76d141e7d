"""The tables and the rate-distortion plot of the quality benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from distilled_splat.evaluation.paired import TITLES, paired_differences
from distilled_splat.evaluation.results import GEOMETRY, PERCEPTUAL
from distilled_splat.runs.files import write_beside
from distilled_splat.workflows.control_kinds import DEFAULT, STANDARD_TEACHER, control_of

Key = tuple[str, Optional[float], str]


def grouped(results: Sequence[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """Group the measurements that differ only in their seed, in the order of first appearance."""
    groups: dict[Key, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["scene"], result["fraction"], result["row"]), []).append(result)
    return groups


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the measurements as a Markdown table: mean ± sample standard deviation over the seeds.

    The reference of the geometry errors is the capture's depth maps, or without depth maps the teachers' mean.
    """
    looks = [name for name in PERCEPTUAL if any(result.get(name) is not None for result in results)]
    heads = (
        "scene",
        "size",
        "row",
        "Gaussians",
        "MB",
        "PSNR",
        "SSIM",
        *(TITLES[name] for name in looks),
        *GEOMETRY,
        "seconds",
        "processor s",
        "runs",
    )
    lines = [f"| {' | '.join(heads)} |".replace("_", " "), "|---" * len(heads) + "|"]
    for (scene, fraction, row), group in grouped(results).items():
        psnr, psnr_spread = summary([result["psnr"] for result in group])
        ssim, ssim_spread = summary([result["ssim"] for result in group])
        times = [whole_seconds([result.get(name) for result in group]) for name in ("seconds", "processor_seconds")]
        perceptual = [decimals([result.get(name) for result in group]) for name in looks]
        geometry = [percents([result.get(name) for result in group]) for name in GEOMETRY]
        more = " | ".join([*perceptual, *geometry, *times])
        size = "" if fraction is None else f"{100 * fraction:g} %"
        lines.append(
            f"| {scene} | {size} | {row} | {group[0]['gaussians']} | {group[0]['megabytes']:.1f} "
            f"| {psnr:.2f} ± {psnr_spread:.2f} | {ssim:.4f} ± {ssim_spread:.4f} | {more} | {len(group)} |"
        )
    return "\n".join(lines) + "\n"


def differences_table(results: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of each row's difference, by photo, from its control without labels and from the teacher.

    The table has means with 95 % intervals; see `paired_difference`. It is empty if there are no measurements by photo.
    """
    groups = grouped(results)
    names = [name for name in TITLES if any(name in (result.get("photos") or {}) for result in results)]
    lines = []
    for (scene, fraction, row), group in groups.items():
        for against, size in ((control_of(row), fraction), (STANDARD_TEACHER, None)):
            other = groups.get((scene, size, against), [])
            ours, theirs = ([run["photos"] for run in runs if run.get("photos")] for runs in (group, other))
            found = paired_differences(ours, theirs) if ours and theirs and row != against else {}
            if found:
                words = (found[name].words(name) if name in found else "" for name in names)
                size_words = "" if fraction is None else f"{100 * fraction:g} %"
                count = next(iter(found.values())).photos
                lines.append(f"| {scene} | {size_words} | {row} | {against} | {' | '.join(words)} | {count} |")
    if not lines:
        return ""
    heads = ("scene", "size", "row", "minus", *(TITLES[name] for name in names), "photos")
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]) + "\n"


def decimals(values: Sequence[Optional[float]]) -> str:
    """Format the mean and the spread of numbers; empty without numbers."""
    known = [value for value in values if value is not None]
    return "{:.4f} ± {:.4f}".format(*summary(known)) if known else ""


def whole_seconds(values: Sequence[Optional[float]]) -> str:
    """Format the mean of times in seconds; empty without numbers."""
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.0f}" if known else ""


def percents(values: Sequence[Optional[float]]) -> str:
    """Format the mean and the spread of fractions as percentages; empty without numbers."""
    known = [100 * value for value in values if value is not None]
    return "{:.2f} ± {:.2f} %".format(*summary(known)) if known else ""


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot PSNR against Gaussians and against megabytes, a row of axes for each scene."""
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
    tables = "\n".join(part for part in (table(results), differences_table(results)) if part)
    write_beside(output / "table.md", lambda temporary: temporary.write_text(tables, encoding="utf8"))
    plot(results, output / "rate-distortion.png")


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (0 for a single value)."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
