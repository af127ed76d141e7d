"""A picture of the chosen views: some of them rendered, and a plan of all cameras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from distilled_splat.ops.render import render
from distilled_splat.ops.views import View, resized
from distilled_splat.runs.files import write_beside
from distilled_splat.splat.gaussians import Gaussians

SHOWN = 24
COLUMNS = 6
TILE = 200
PLAN = 600
REACH = 3.5
"""Range of the plan, in half sides of the bulk."""


def write_preview(path: Path, gaussians: Gaussians, views: Sequence[View], up: torch.Tensor) -> None:
    """Write a contact sheet of some views beside a plan of all cameras from above.

    Args:
        path: the picture's file.
        gaussians: the splat in its unit frame.
        views: all views.
        up: unit vector [3].
    """
    chosen = [views[round(place)] for place in np.linspace(0, len(views) - 1, min(SHOWN, len(views)))]
    tiles = [picture(gaussians, view) for view in chosen]
    height = max(tile.height for tile in tiles)
    rows = math.ceil(len(tiles) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE + PLAN, max(rows * height, PLAN)), (255, 255, 255))
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % COLUMNS * TILE, place // COLUMNS * height))
    sheet.paste(plan(gaussians, views, up), (COLUMNS * TILE, 0))
    write_beside(
        path, lambda temporary: sheet.save(temporary, path.suffix.lower().lstrip(".").replace("jpg", "jpeg") or "png")
    )


def picture(gaussians: Gaussians, view: View) -> Image.Image:
    """Render a view at the width of a tile."""
    small = resized(view, TILE, max(round(view.height * TILE / view.width), 1))
    with torch.no_grad():
        shown = render(gaussians, small).over(torch.full((3,), 0.5, device=gaussians.means.device))
    return Image.fromarray((255 * shown).to("cpu", torch.uint8).numpy())


def plan(gaussians: Gaussians, views: Sequence[View], up: torch.Tensor) -> Image.Image:
    """Draw the Gaussians from above in grey, and the cameras as red points with their directions."""
    side = torch.linalg.cross(up, torch.eye(3)[int(up.abs().argmin())])
    ground = torch.stack((side / side.norm(), torch.linalg.cross(up, side / side.norm())))
    flat = (gaussians.means.cpu() @ ground.T).numpy()
    counts, _, _ = np.histogram2d(flat[:, 1], flat[:, 0], bins=PLAN, range=[[-REACH, REACH]] * 2)
    grey = 255 - np.clip(60 * np.log1p(counts), 0, 255)
    drawing = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    pen = ImageDraw.Draw(drawing)
    for view in views:
        viewmat = view.viewmat.cpu()
        eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
        ends = ((torch.stack((eye, eye + 0.25 * viewmat[2, :3])) @ ground.T + REACH) / (2 * REACH) * PLAN).tolist()
        pen.line([tuple(end) for end in ends], fill=(230, 120, 120))
        x, y = ends[0]
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(200, 0, 0))
    return drawing
