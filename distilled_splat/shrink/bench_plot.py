"""The plot of `distilled-splat bench shrink`: PSNR to the original over Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilled_splat.runs.files import write_beside

PANELS = (("psnr_to_original", "at the held-out photos' cameras"), ("psnr_elsewhere", "at invented views"))


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot PSNR to the original against Gaussians, a line per method and a row of axes per scene."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    scenes = list(dict.fromkeys(result["scene"] for result in results))
    rows = list(dict.fromkeys(result["row"] for result in results if result["fraction"] is not None))
    figure, axes = pyplot.subplots(len(scenes), len(PANELS), figsize=(13, 4 * len(scenes)), squeeze=False)
    for scene, panels in zip(scenes, axes):
        for axis, (name, words) in zip(panels, PANELS):
            for row in rows:
                points = sorted(
                    (result["gaussians"], result[name])
                    for result in results
                    if (result["scene"], result["row"]) == (scene, row) and result.get(name) is not None
                )
                if points:
                    axis.plot(*zip(*points), marker="o", markersize=5, label=row)
            axis.set(xscale="log", xlabel="Gaussians", ylabel="PSNR to the original, dB", title=f"{scene}, {words}")
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        lines, names = panels[0].get_legend_handles_labels()
        panels[-1].legend(lines, names, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    write_beside(path, lambda temporary: figure.savefig(temporary, format="png", dpi=100))
    pyplot.close(figure)
