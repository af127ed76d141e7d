"""One labelled picture of photos, renders and errors side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from distilled_splat.evaluation.compare import Comparison

PICTURED_VIEWS = 3
"""Largest number of rows of a picture of a student."""
_GAP = 4
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def error_map(a: np.ndarray, b: np.ndarray, gain: float = 4.0) -> np.ndarray:
    """Return the absolute difference of two pictures as heat, black where they agree.

    Args:
        a: picture in 0..1, [..., 3].
        b: picture of the same shape.
        gain: factor on the mean difference over the channels; a product of 1 or more is white-yellow.

    Returns:
        sRGB heat, float32, of the pictures' shape.
    """
    from distilled_splat.ops.heat import error_picture

    difference = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean(axis=-1, keepdims=True)
    return error_picture(torch.from_numpy(difference), gain).numpy()


def comparison_picture(columns: list[tuple[str, np.ndarray]], path: Path) -> None:
    """Write pictures as a table: a labelled column for each kind, a row for each view.

    Args:
        columns: for each column its label and its pictures in 0..1, [V, H, W, 3], or [H, W, 3] for a single view; all
            of one shape.
        path: file to write; its ending sets the format.

    Raises:
        ValueError: if there are no columns, or their shapes differ or are not those of pictures.
    """
    shapes = [np.shape(pictures) for _, pictures in columns]
    if not shapes or len(set(shapes)) > 1 or len(shapes[0]) not in (3, 4) or shapes[0][-1] != 3:
        raise ValueError(
            f"The columns have the shapes {shapes}: give at least one column, and all of one shape, [V, H, W, 3] or "
            "[H, W, 3]."
        )
    stacks = [np.asarray(pictures).reshape(-1, *shapes[0][-3:]) for _, pictures in columns]
    views, height, width, _ = stacks[0].shape
    text_size = max(12, width // 20)
    heading = 2 * text_size
    font = ImageFont.load_default(size=text_size)
    sheet = Image.new("RGB", (len(columns) * (width + _GAP) + _GAP, heading + views * (height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, ((label, _), pictures) in enumerate(zip(columns, stacks, strict=True)):
        left = _GAP + column * (width + _GAP)
        draw.text((left + width // 2, heading // 2), label, fill=_INK, font=font, anchor="mm")
        for row, picture in enumerate(pictures):
            pixels = np.round(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8)
            sheet.paste(Image.fromarray(pixels), (left, heading + row * (height + _GAP)))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part{path.suffix}")
    sheet.save(unfinished)
    unfinished.replace(path)


def student_picture(comparison: Comparison, path: Path) -> None:
    """Write photo, standard teacher, student and the student's error for each pictured view of a comparison.

    Args:
        comparison: the result of `compare` with `pictured` views.
        path: file to write; its ending sets the format.
    """
    size = comparison.pictures[0]["photo"].shape
    chosen = [view for view in comparison.pictures if view["photo"].shape == size]  # they share one grid
    names = [*([] if comparison.standard is None else [comparison.standard]), "student"]
    counts = {row.name: row.gaussians for row in comparison.rows}
    columns = [("photo", np.stack([view["photo"].numpy() for view in chosen]))]
    for name in names:
        images = np.stack([view[name].numpy() for view in chosen])
        columns.append((f"{name}, {counts[name]:,} Gaussians", images))
    columns.append(("student's error x 4", error_map(columns[-1][1], columns[0][1])))
    comparison_picture(columns, path)
