"""The sizes to shrink to, in Gaussians: from fractions, numbers and megabytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from distilled_splat.splat.formats import Format, with_degree
from distilled_splat.splat.gaussians import Gaussians

SAMPLE = 20000
"""Number of Gaussians in the first trial."""
TRIALS = 8
MARGIN = 0.97
"""Safety margin: a file of other Gaussians may be a little larger than the trial."""


def counts_of(
    original: Gaussians,
    keep_fraction: Sequence[float],
    num_gaussians: Sequence[int],
    target_mb: Sequence[float],
    form: Format,
    sh_degree: int,
) -> list[int]:
    """Return the wanted numbers of Gaussians, the largest first and each once.

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
    for fraction in keep_fraction:
        if not 0 < fraction < 1:
            raise ValueError(f"--keep-fraction {fraction:g} is not a fraction: give numbers in (0, 1).")
        counts.setdefault(max(round(fraction * total), 1), f"--keep-fraction {fraction:g}")
    for number in num_gaussians:
        if number < 1:
            raise ValueError(f"--num-gaussians {number} is invalid: give positive numbers.")
        counts.setdefault(number, f"--num-gaussians {number}")
    for megabytes in target_mb:
        count = count_within(original, megabytes, form, sh_degree)
        if count < 1:
            raise ValueError(f"--target-mb {megabytes:g} is too small for a single Gaussian: give more.")
        counts.setdefault(count, f"--target-mb {megabytes:g}")
    for count, asked in counts.items():
        if count >= total:
            raise ValueError(
                f"{asked} asks for {count} Gaussians, but the splat has only {total}: give a smaller size."
            )
    return sorted(counts, reverse=True)


def count_within(original: Gaussians, megabytes: float, form: Format, sh_degree: int) -> int:
    """Return how many Gaussians fit into a file of this many megabytes (10^6 bytes), by trials with subsets."""
    wanted, count = megabytes * 1e6, min(SAMPLE, len(original))
    for _ in range(TRIALS):
        chosen = torch.linspace(0, len(original) - 1, count).round().long().unique()
        size = len(form.encode(with_degree(original[chosen], sh_degree)))
        if MARGIN**2 * wanted < size <= MARGIN * wanted:
            break
        count = min(int(count * (0.5 + 0.5 * MARGIN) * MARGIN * wanted / size), len(original))
        if count < 1:
            break
    return count
