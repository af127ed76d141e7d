"""The report as a page: table, plots and pictures in one HTML file that fetches nothing."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Optional

import numpy as np
from PIL import Image

Row = tuple[str, int, float, float, float, Optional[float]]
JPEG_QUALITY = 88
WIDEST_PICTURE = 960
MOST_POINTS = 400
"""Points of a curve; more cannot be told apart on a page."""

STYLE = """
:root { --ink: #1d2330; --dim: #5d6678; --line: #dfe3ea; --mark: #c2410c; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 0 auto; padding: 1.2rem;
  max-width: 62rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .4rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p { margin: .4rem 0; } .dim { color: var(--dim); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } tr.student td { font-weight: 650; color: var(--mark); }
svg { width: 100%; height: auto; display: block; }
.plot { max-width: 42rem; margin: 0 auto; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
.pair { position: relative; margin: 0 auto; overflow: hidden; background: #000; border-radius: .4rem;
  touch-action: pan-y; }
.pair img { display: block; width: 100%; } .pair img + img { position: absolute; inset: 0;
  clip-path: inset(0 0 0 var(--cut, 50%)); }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--cut, 50%); width: 2px;
  background: #fff; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.choose { display: flex; flex-wrap: wrap; gap: .6rem; justify-content: space-between; margin: .5rem 0; }
select { font: inherit; padding: .3rem; max-width: 100%; }
@media (max-width: 36rem) { th, td { padding: .3rem .2rem; font-size: .75rem; white-space: normal; } }
pre { background: #f4f6f9; padding: .7rem; border-radius: .4rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .85rem; }
"""

SCRIPT = """
const views = JSON.parse(document.getElementById("views").textContent);
const byId = name => document.getElementById(name);
function show() {
  const view = views[byId("view").value];
  byId("left").src = view[byId("left-name").value]; byId("right").src = view[byId("right-name").value];
}
for (const name of ["view", "left-name", "right-name"]) byId(name).addEventListener("change", show);
byId("cut").addEventListener("input", event =>
  byId("pair").style.setProperty("--cut", event.target.value + "%"));
show();
"""


@dataclass(frozen=True)
class Facts:
    """What the page says in words: names, the run's length, the commands and the versions that made it."""

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
class Series:
    """One curve: its name, and its (step, value) pairs."""

    name: str
    values: Sequence[tuple[int, float]]


def page(
    facts: Facts,
    rows: Sequence[Row],
    points: Points,
    curves: Mapping[str, Sequence[Series]],
    views: Sequence[Mapping[str, np.ndarray]],
) -> str:
    """Put the report together.

    Args:
        facts: the words.
        rows: name, Gaussians, megabytes, PSNR, SSIM and seconds of training of everything that was measured.
        points: the rate-distortion plot.
        curves: training curves by title.
        views: for each pictured view the pictures by name, `photo` and `student` among them, in [0, 1], [H, W, 3].
    """
    student = next(row for row in rows if row[0] == "student")
    lead = (
        f"<p>The student has <b>{student[1]:,} Gaussians</b> ({student[2]:.2f} MB as .ply) and reaches "
        f"<b>{student[3]:.2f} dB</b> on the held-out photos.</p>"
    )
    title = escape(f"{facts.scene}: {facts.method}")
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="dim">{escape(facts.run)}, {facts.steps:,} steps</p>',
        lead,
        "<h2>Held-out photos</h2>",
        table(rows),
        "<h2>Size and quality</h2>",
        f'<div class="plot">{rate_distortion(points)}</div>',
        "<h2>Pictures</h2>",
        slider(views),
    ]
    if curves:
        plots = "".join(curve_plot(name, series) for name, series in curves.items())
        parts += ["<h2>Training</h2>", f'<div class="plots">{plots}</div>']
    if facts.commands:
        parts += ["<h2>Commands</h2>", *(f"<pre>{escape(command)}</pre>" for command in facts.commands)]
    told = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    parts += ["<h2>Made with</h2>", f'<p class="dim">{escape(told)}</p>']
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    lines = []
    for name, gaussians, megabytes, psnr, ssim, seconds in rows:
        time = "" if seconds is None else f"{seconds:,.0f}"
        cells = (escape(name), f"{gaussians:,}", f"{megabytes:.2f}", f"{psnr:.2f}", f"{ssim:.4f}", time)
        kind = ' class="student"' if name == "student" else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{head}</th>" for head in ("", "Gaussians", "MB (.ply)", "PSNR, dB", "SSIM", "seconds"))
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def svg(figure: Any) -> str:
    """Return a figure as an element of the page."""
    content = io.StringIO()
    figure.savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    return text[text.index("<svg") :]


def rate_distortion(points: Points) -> str:
    """Plot PSNR over megabytes."""
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
    """Plot some curves over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3))
    axes = figure.subplots()
    for curve in series:
        values = np.array(curve.values[:: max(len(curve.values) // MOST_POINTS, 1)])
        axes.plot(values[:, 0], values[:, 1], label=curve.name, marker="." if len(values) < 3 else "", linewidth=1.2)
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return svg(figure)


def data_uri(picture: np.ndarray) -> str:
    """Return a picture in [0, 1], [H, W, 3], as a JPEG in a URI."""
    image = Image.fromarray(np.round(255 * picture).astype(np.uint8))
    image.thumbnail((WIDEST_PICTURE, WIDEST_PICTURE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def slider(views: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Return two pictures of one view with a dividing line that follows the finger, and lists to choose from."""
    names = list(views[0])
    height, width = views[0]["photo"].shape[:2]
    beside = next((name for name in ("mean of teachers", "photo") if name in names), names[0])
    content = json.dumps([{name: data_uri(picture) for name, picture in view.items()} for view in views])

    def choices(which: str, label: str, chosen: str, options: Sequence[tuple[str, str]]) -> str:
        items = "".join(
            f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(words)}</option>'
            for value, words in options
        )
        return f'<label>{label} <select id="{which}">{items}</select></label>'

    pairs = [(name, name) for name in names]
    numbers = [(f"{place}", f"{place + 1} of {len(views)}") for place in range(len(views))]
    return (
        f'<div class="choose">{choices("left-name", "left", "student", pairs)}'
        f"{choices('view', 'view', '0', numbers)}{choices('right-name', 'right', beside, pairs)}</div>"
        f'<div class="pair" id="pair" style="max-width: calc(85vh * {width / height:.3f})">'
        '<img id="left" alt="left picture"><img id="right" alt="right picture">'
        '<input id="cut" type="range" min="0" max="100" step="0.1" value="50" aria-label="dividing line"></div>'
        f'<script type="application/json" id="views">{content}</script>'
    )
