"""The sizes that a splat is shrunk to, as Gaussians: from fractions, numbers and megabytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from distilled_splat.splat.formats import Format, with_degree
from distilled_splat.splat.gaussians import Gaussians

SAMPLE = 20000
"""Gaussians that a format's bytes per Gaussian are measured on."""
MARGIN = 0.98
"""A file of other Gaussians may be a little larger than was measured."""


def counts_of(
    original: Gaussians,
    keep_fraction: Sequence[float],
    num_gaussians: Sequence[int],
    target_mb: Sequence[float],
    form: Format,
    sh_degree: int,
) -> list[int]:
    """Return the numbers of Gaussians that are asked for, the largest first and each once.

    Args:
        original: the splat.
        keep_fraction: fractions of its Gaussians.
        num_gaussians: numbers of Gaussians.
        target_mb: sizes of the file, in 10^6 bytes.
        form: the file's format.
        sh_degree: of the file's spherical harmonics.

    Raises:
        ValueError: if a size is not one, or is not smaller than the original.
    """
    total = len(original)
    counts: dict[int, str] = {}
    for fraction in keep_fraction:
        if not 0 < fraction < 1:
            raise ValueError(f"--keep-fraction {fraction:g} is not a part of the Gaussians: give numbers in (0, 1).")
        counts.setdefault(max(round(fraction * total), 1), f"--keep-fraction {fraction:g}")
    for number in num_gaussians:
        if number < 1:
            raise ValueError(f"--num-gaussians {number} is not a size: give positive numbers.")
        counts.setdefault(number, f"--num-gaussians {number}")
    for megabytes in target_mb:
        count = count_within(original, megabytes, form, sh_degree)
        if count < 1:
            raise ValueError(f"--target-mb {megabytes:g} is too little for a single Gaussian: give more.")
        counts.setdefault(count, f"--target-mb {megabytes:g}")
    for count, asked in counts.items():
        if count >= total:
            raise ValueError(
                f"{asked} asks for {count} Gaussians, and the splat has {total}: it can only be made smaller."
            )
    return sorted(counts, reverse=True)


def count_within(original: Gaussians, megabytes: float, form: Format, sh_degree: int) -> int:
    """Return how many Gaussians fit into a file of so many 10^6 bytes, measured on a part of the original."""
    chosen = torch.linspace(0, len(original) - 1, min(SAMPLE, len(original))).round().long().unique()
    few = with_degree(original[chosen], sh_degree)
    one, all_of_them = len(form.encode(few[torch.arange(1)])), len(form.encode(few))
    each = (all_of_them - one) / max(len(few) - 1, 1)
    return int((MARGIN * megabytes * 1e6 - one) / max(each, 1e-6)) + 1 if megabytes * 1e6 > one else 0
