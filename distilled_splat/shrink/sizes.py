"""The sizes to shrink to, in Gaussians: from fractions, numbers and megabytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Optional

import torch
from torch import Tensor

from distilled_splat.splat.formats import Format, with_degree
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.pruning import choose

SAMPLE = 20000
"""Number of Gaussians in the first trial."""
TRIALS = 8
MARGIN = 0.97
"""Safety margin: a file of other Gaussians may be a little larger than the trial."""
LIVELIER = 1.5
"""Ratio of a refit's harmonics to the original's. Fewer Gaussians show the same reflections: measured, 1.3 to 1.6."""


def sizes_of(
    original: Gaussians,
    keep_fraction: Sequence[float],
    num_gaussians: Sequence[int],
    target_mb: Sequence[float],
    form: Format,
    sh_degree: int,
) -> dict[int, Optional[float]]:
    """Return the wanted numbers of Gaussians, the largest first, each with the largest size of its file in megabytes.

    The size is None where a number of Gaussians was asked for.

    Args:
        original: the splat.
        keep_fraction: fractions of its Gaussians.
        num_gaussians: numbers of Gaussians.
        target_mb: sizes of the file, in 10^6 bytes.
        form: the file's format.
        sh_degree: degree of the file's spherical harmonics.

    Raises:
        ValueError: if a size is invalid, or is not smaller than the original.
    """
    total = len(original)
    counts: dict[int, str] = {}
    limits: dict[int, float] = {}
    for fraction in keep_fraction:
        if not 0 < fraction < 1:
            raise ValueError(f"--keep-fraction {fraction:g} is not a fraction: give numbers in (0, 1).")
        counts.setdefault(max(round(fraction * total), 1), f"--keep-fraction {fraction:g}")
    for number in num_gaussians:
        if number < 1:
            raise ValueError(f"--num-gaussians {number} is invalid: give positive numbers.")
        counts.setdefault(number, f"--num-gaussians {number}")
    for megabytes in target_mb:
        if not 0 < megabytes < math.inf:
            raise ValueError(f"--target-mb {megabytes:g} is invalid: give a positive number of megabytes.")
        count = count_within(original, megabytes, form, sh_degree)
        if count < 1:
            raise ValueError(f"--target-mb {megabytes:g} is too small for a single Gaussian: give more.")
        counts.setdefault(count, f"--target-mb {megabytes:g}")
        limits[count] = min(megabytes, limits.get(count, megabytes))
    for count, asked in counts.items():
        if count >= total:
            raise ValueError(
                f"{asked} asks for {count} Gaussians, but the splat has only {total}: give a smaller size."
            )
    return {count: limits.get(count) for count in sorted(counts, reverse=True)}


def as_refitted(gaussians: Gaussians) -> Gaussians:
    """Return Gaussians whose harmonics compress as badly as after a refit: larger, and unlike their neighbours'."""
    generator = torch.Generator().manual_seed(0)
    rest = gaussians.sh_rest.flatten(start_dim=1)
    shuffled = [column[torch.randperm(len(column), generator=generator)] for column in rest.T]
    mixed = torch.stack(shuffled, dim=1) if shuffled else rest
    return replace(gaussians, sh_rest=LIVELIER * mixed.view_as(gaussians.sh_rest))


def fitted(gaussians: Gaussians, weights: Tensor, megabytes: float, size: Callable[[Gaussians], int]) -> Gaussians:
    """Leave out the least important Gaussians until a file is small enough.

    Args:
        gaussians: the splat.
        weights: importance of each Gaussian, [N].
        megabytes: largest size of the file, in 10^6 bytes.
        size: returns the size of a splat's file in bytes.
    """
    found = gaussians
    while (bytes_now := size(found)) > 1e6 * megabytes and len(found) > 1:
        keep = max(min(int(len(found) * MARGIN**0.1 * 1e6 * megabytes / bytes_now), len(found) - 1), 1)
        found = gaussians[choose(weights, keep, sampled=False)]
    return found


def count_within(original: Gaussians, megabytes: float, form: Format, sh_degree: int) -> int:
    """Return how many Gaussians fit into a file of this many megabytes (10^6 bytes), by trials with subsets."""
    wanted, count = megabytes * 1e6, min(SAMPLE, len(original))
    for _ in range(TRIALS):
        chosen = torch.linspace(0, len(original) - 1, count).round().long().unique()
        size = len(form.encode(as_refitted(with_degree(original[chosen], sh_degree))))
        if MARGIN**2 * wanted < size <= MARGIN * wanted:
            break
        count = min(int(count * (0.5 + 0.5 * MARGIN) * MARGIN * wanted / size), len(original))
        if count < 1:
            break
    return count
