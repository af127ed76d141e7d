"""The report's page: table, plots and pictures in one HTML file that loads nothing else."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from markupsafe import Markup
from PIL import Image

from distilled_splat.evaluation.templates import template

Row = tuple[str, int, float, float, float, Optional[float], Optional[float]]
JPEG_QUALITY = 88
WIDEST_PICTURE = 960
MOST_POINTS = 400
"""Largest number of points in a curve; more points would look the same."""
FEW_POINTS = 40
"""A curve with fewer points than this has a marker at each point."""


@dataclass(frozen=True)
class Facts:
    """Texts of the page: names, the length of the run, and the commands and versions that produced it."""

    scene: str
    method: str
    run: str
    steps: int
    commands: Sequence[str]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Points:
    """Points of the rate-distortion plot: name, megabytes, PSNR in dB."""

    points: Sequence[tuple[str, float, float]]


@dataclass(frozen=True)
class Table:
    """A table of texts: headings, rows (without rows the page leaves the table out), and an explanation."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


@dataclass(frozen=True)
class Series:
    """One curve: its name and its (step, value) pairs."""

    name: str
    values: Sequence[tuple[int, float]]


def page(
    facts: Facts,
    rows: Sequence[Row],
    points: Points,
    curves: Mapping[str, Sequence[Series]],
    views: Sequence[Mapping[str, np.ndarray]],
    geometry: Table,
    splats: Optional[Mapping[str, Any]] = None,
) -> str:
    """Return the whole page as HTML.

    Args:
        facts: the texts.
        rows: for everything measured: name, Gaussians, megabytes, PSNR, SSIM, LPIPS (VGG) and seconds of training. PSNR
            and SSIM are NaN without held-out photos; LPIPS is None if it was not measured.
        points: the rate-distortion plot.
        curves: training curves by title.
        views: for each pictured view its pictures by name, including `photo` and `student`, in [0, 1], [H, W, 3].
        geometry: the geometry measures.
        splats: the splats for the 3D view, from `report_splats.splats_of`; None: without a 3D view.
    """
    shown = [shown_row(*row) for row in rows]
    pictured: dict[str, Any] = {}
    if views:
        names, (height, width) = list(views[0]), views[0]["photo"].shape[:2]
        pictured = {
            "views": [{name: data_uri(picture) for name, picture in view.items()} for view in views],
            "names": [(name, name) for name in names],
            "numbers": [(f"{place}", f"{place + 1} of {len(views)}") for place in range(len(views))],
            "beside": next((name for name in ("mean of teachers", "photo") if name in names), names[0]),
            "aspect": width / height,
        }
    # all texts are escaped except the plots, which are our own
    return template("report.html.jinja").render(
        facts=facts,
        rows=shown,
        has_lpips=any(row["lpips"] for row in shown),
        geometry=geometry,
        splats=splats,
        student=next(row for row in shown if row["name"] == "student"),
        rate_distortion=Markup(rate_distortion(points)) if points.points else None,
        plots=[Markup(curve_plot(name, series)) for name, series in curves.items()],
        **pictured,
    )


def shown_row(
    name: str,
    gaussians: int,
    megabytes: float,
    psnr: float,
    ssim: float,
    lpips: Optional[float],
    seconds: Optional[float],
) -> dict[str, Any]:
    """Return a row by the names of its columns. Values that were not measured are empty."""
    time = "" if seconds is None else f"{seconds:,.0f}"
    sizes = {"name": name, "gaussians": gaussians, "megabytes": megabytes}
    looks = {"psnr": measured(psnr, 2), "ssim": measured(ssim, 4), "lpips": "" if lpips is None else f"{lpips:.4f}"}
    return {**sizes, **looks, "seconds": time}


def measured(value: float, digits: int) -> str:
    """Format a number; empty for NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def svg(figure: Any) -> str:
    """Return a figure as an SVG element."""
    content = io.StringIO()
    figure.savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    return text[text.index("<svg") :]


def rate_distortion(points: Points) -> str:
    """Plot PSNR against megabytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots()
    for name, megabytes, psnr in points.points:
        marker = {"student": "*", "mean of teachers": "D"}.get(name, "o")
        axes.plot(megabytes, psnr, marker, markersize=13 if name == "student" else 7, label=name)
    axes.set(xscale="log", xlabel="megabytes (.ply)", ylabel="PSNR on held-out photos, dB")
    axes.grid(alpha=0.3)
    for formatted in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatted("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize=8)
    axes.legend(fontsize=8, ncols=2 if len(points.points) > 6 else 1)
    return svg(figure)


def curve_plot(title: str, series: Sequence[Series]) -> str:
    """Plot curves against the training step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3))
    axes = figure.subplots()
    for curve in series:
        values = np.array(curve.values[:: max(len(curve.values) // MOST_POINTS, 1)])
        axes.plot(
            values[:, 0], values[:, 1], label=curve.name, marker="." if len(values) < FEW_POINTS else "", linewidth=1.2
        )
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return svg(figure)


def data_uri(picture: np.ndarray) -> str:
    """Return a picture in [0, 1], [H, W, 3], as a data URI with a JPEG."""
    image = Image.fromarray(np.round(255 * picture).astype(np.uint8))
    image.thumbnail((WIDEST_PICTURE, WIDEST_PICTURE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
