"""The quality that a shrunk splat has lost: its pictures against the original's, at views held out from training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from distilled_splat.ops.losses import l1_and_ssim, psnr
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians

GREY = 0.5
"""Background grey of the compared pictures."""


@dataclass(frozen=True)
class Row:
    """One splat compared with the original.

    Attributes:
        name: what the row shows.
        gaussians: number of Gaussians.
        megabytes: size of its file, in 10^6 bytes; None without a file.
        psnr: mean PSNR against the original's pictures, in dB; None for the original itself.
        ssim: mean SSIM against the original's pictures.
    """

    name: str
    gaussians: int
    megabytes: Optional[float]
    psnr: Optional[float] = None
    ssim: Optional[float] = None


@torch.no_grad()
def pictures(gaussians: Gaussians, views: Sequence[View], antialiased: bool) -> list[Tensor]:
    """Render views over grey, [H, W, 3] each, in [0, 1]."""
    background = torch.full((3,), GREY, device=gaussians.means.device)
    return [render(gaussians, view, antialiased=antialiased).over(background) for view in views]


def compared(
    name: str, shown: Sequence[Tensor], true: Sequence[Tensor], gaussians: int, megabytes: Optional[float]
) -> Row:
    """Measure pictures against the original's."""
    both = list(zip(shown, true))
    return Row(
        name, gaussians, megabytes,
        psnr=sum(psnr(one, other) for one, other in both) / len(both),
        ssim=sum(float(l1_and_ssim(one, other)[1]) for one, other in both) / len(both),
    )  # fmt: skip


def compared_at(
    splats: Sequence[Gaussians], original: Gaussians, views: Sequence[View], antialiased: bool
) -> list[tuple[float, float]]:
    """Return each splat's mean PSNR in dB and mean SSIM against the original; holds the pictures of one view."""
    totals = torch.zeros(len(splats), 2, dtype=torch.float64)
    for view in views:
        (true,) = pictures(original, [view], antialiased)
        for place, splat in enumerate(splats):
            (shown,) = pictures(splat, [view], antialiased)
            totals[place] += torch.tensor([psnr(shown, true), float(l1_and_ssim(shown, true)[1])])
    return [(float(decibels), float(ssim)) for decibels, ssim in totals / len(views)]


def closeness(gaussians: Gaussians, original: Gaussians, views: Sequence[View], antialiased: bool) -> float:
    """Return the mean PSNR between a splat's pictures and the original's, in dB; holds two pictures at a time."""
    values = [psnr(*(pictures(splat, [view], antialiased)[0] for splat in (gaussians, original))) for view in views]
    return sum(values) / len(values)


def print_rows(rows: Sequence[Row], views: int, console: Console) -> None:
    """Print the rows as a table."""
    table = Table("", "Gaussians", "MB", "PSNR, dB", "SSIM", title=f"Compared with the original at {views} other views")
    for row in rows:
        megabytes = "" if row.megabytes is None else f"{row.megabytes:.3f}"
        quality = ("", "") if row.psnr is None else (f"{row.psnr:.2f}", f"{row.ssim:.4f}")
        table.add_row(row.name, f"{row.gaussians}", megabytes, *quality)
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
