"""Levels of detail from students of several sizes: their files, and each chunk's error against the largest student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

from distilled_splat.evaluation.export import FrameName, into_frame
from distilled_splat.ops.quaternions import normalized_quat_to_rotmat
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.runs.files import folder_beside
from distilled_splat.splat.chunks import Chunk, chunks_of, cut
from distilled_splat.splat.formats import FORMATS, check_library
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.streamed_sog import Account, alike, write_streamed_sog
from distilled_splat.teachers.reading import Teacher, read_teacher

DISTANCE = 4.0
"""Distance of the cameras from a chunk's middle, in radii of the sphere around the chunk."""
SMALLEST, LARGEST = 32, 256
"""Width of a chunk's pictures in pixels: the square root of its number of Gaussians, within these limits."""
ANOTHER_SCENE = 1.0
"""A level with at least this error shows another scene; a black picture has this error."""


@dataclass(frozen=True)
class Level:
    """One level of detail, as written.

    Attributes:
        path: the splat's path.
        gaussians: number of Gaussians.
        chunks: number of chunks.
        megabytes: size of its files, in 10^6 bytes.
        error: sum of the squared differences from the largest level, over the sum of the largest level's squares.
    """

    path: Path
    gaussians: int
    chunks: int
    megabytes: float
    error: float


def write_levels(paths: Sequence[Path], folder: Path, most: int, frame: FrameName) -> list[Level]:
    """Write splats of one scene as a streamed SOG, from the largest to the smallest.

    Args:
        paths: run folders or exported files. All files must be in one frame; runs are moved into `frame`.
        folder: folder to write; it must be new or empty.
        most: largest number of Gaussians in a chunk, at the largest splat.
        frame: frame for the splats of runs, as in `export`.

    Raises:
        ValueError: if a splat cannot be read, two have one size, one shows another scene, or the folder is not empty.
    """
    check_library(FORMATS["sog"])
    if len(paths) < 2 or most < 1:
        raise ValueError("Levels of detail need at least two splats, and chunks of at least one Gaussian.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} already exists: give a folder that is new or empty.")
    read = sorted((read_teacher(path) for path in paths), key=lambda splat: -len(splat.gaussians))
    for larger, smaller in pairwise(read):
        if len(larger.gaussians) == len(smaller.gaussians):
            raise ValueError(f"{larger.path} and {smaller.path} have the same size: give splats of different sizes.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    levels = alike([in_file_frame(splat, frame).detach().to("cpu") for splat in read])
    tree = cut(levels, most)
    accounts, errors = account_for([level.to(device) for level in levels], list(chunks_of(tree)))
    for splat, error in zip(read, errors):
        if not error < ANOTHER_SCENE:  # this form also catches NaN
            raise ValueError(
                f"{splat.path} does not show the same scene as {read[0].path}: the error is {error:.2f}. "
                "Give splats of one scene, all in one frame."
            )
    with folder_beside(folder) as part:
        sizes = write_streamed_sog(part, levels, tree, accounts)
        if folder.exists():
            folder.rmdir()
    return [
        Level(splat.path, len(level), chunks, size / 1e6, error)
        for splat, level, (chunks, size), error in zip(read, levels, sizes, errors)
    ]


def in_file_frame(splat: Teacher, frame: FrameName) -> Gaussians:
    """Return a run's Gaussians in a frame of exported files, or a file's Gaussians unchanged."""
    return splat.gaussians if splat.is_export else into_frame(splat, frame)


def account_for(levels: Sequence[Gaussians], chunks: Sequence[Chunk]) -> tuple[list[Account], list[float]]:
    """Measure every level of every chunk against the first level.

    Each chunk is rendered alone from six sides. A level's error is the sum of the squared differences of colours and
    opacities from the first level, over the sum of the first level's squares. PlayCanvas requires that a coarser level
    has no smaller error than a finer one. A level without Gaussians counts as black.

    Returns:
        An account of each chunk, and the errors of whole levels.
    """
    accounts, wholes = [], torch.zeros(len(levels) + 1, dtype=torch.float64)
    for chunk in track(chunks, "Measuring", transient=True):
        parts = [level[members.to(level.means.device)] for level, members in zip(levels, chunk.members)]
        boxes = [box_of(part) for part in parts if len(part) > 0]
        low = torch.stack([box[0] for box in boxes]).amin(dim=0)
        high = torch.stack([box[1] for box in boxes]).amax(dim=0)
        *differences, squares = sums_of(parts, low, high)
        wholes += torch.tensor([*differences, squares])
        errors = torch.tensor([ratio(difference, squares) for difference in differences]).cummax(dim=0).values
        accounts.append(Account(low.tolist(), high.tolist(), errors.tolist()))
    *differences, squares = wholes.tolist()
    return accounts, [ratio(difference, squares) for difference in differences]


def ratio(difference: float, squares: float) -> float:
    """Return an error: the difference over the squares. Any difference from an empty chunk is an error of 1."""
    return difference / squares if squares > 0 else float(difference > 0)


def box_of(gaussians: Gaussians) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest corner [3] of a box around ellipsoids of one standard deviation."""
    turns = normalized_quat_to_rotmat(normalize(gaussians.quats, dim=-1))
    reach = (turns * gaussians.log_scales.exp()[:, None, :]).norm(dim=-1)
    return (gaussians.means - reach).amin(dim=0), (gaussians.means + reach).amax(dim=0)


def sums_of(parts: Sequence[Gaussians], low: Tensor, high: Tensor) -> list[float]:
    """Return the sum of squared differences of each level from the first, in pictures; last, the sum of its squares."""
    centre, radius = (low + high) / 2, max(float((high - low).norm()) / 2, 1e-12)
    size = int(min(max(len(parts[0]) ** 0.5, SMALLEST), LARGEST))
    views = views_around(size, low.device)
    pictures = [pictured(part.centred(centre, radius), views) for part in parts]
    sums = [(picture - pictures[0]).square().sum() for picture in pictures] + [pictures[0].square().sum()]
    return torch.stack(sums).double().tolist()


def pictured(gaussians: Gaussians, views: Sequence[View]) -> Tensor:
    """Render colours and opacities over black from all views, [V, H, W, 4]; zeros without Gaussians."""
    if len(gaussians) == 0:
        return gaussians.means.new_zeros(len(views), views[0].height, views[0].width, 4)
    with torch.no_grad():
        rendered = [render(gaussians, view) for view in views]
    return torch.stack([torch.cat((each.color.clamp(0, 1), each.alpha), dim=-1) for each in rendered])


def views_around(size: int, device: torch.device) -> list[View]:
    """Return cameras that show the whole unit sphere from six sides, in square pictures."""
    focal = size / 2 * (DISTANCE**2 - 1) ** 0.5
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], device=device)
    views = []
    for axis in torch.eye(3, device=device):
        for forward in (axis, -axis):
            right = axis.roll(1)
            viewmat = torch.eye(4, device=device)
            viewmat[:3, :3] = torch.stack((right, torch.linalg.cross(forward, right), forward))
            viewmat[2, 3] = DISTANCE
            views.append(View(viewmat, K, size, size))
    return views


def print_levels(levels: Sequence[Level], console: Console) -> None:
    """Print the levels as one table."""
    table = Table("level", "Gaussians", "chunks", "MB", "error", "splat")
    for number, level in enumerate(levels):
        error = "" if number == 0 else f"{level.error:.4f}"
        row = (f"{number}", f"{level.gaussians}", f"{level.chunks}", f"{level.megabytes:.3f}", error)
        table.add_row(*row, f"{level.path}")
    for column in table.columns[:-1]:
        column.justify = "right"
    console.print(table)
