"""How sure a difference is: photo by photo, with a 95 % interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

CONFIDENCE = 0.95
TITLES = {"psnr": "PSNR", "ssim": "SSIM", "lpips_vgg": "LPIPS (VGG)", "flip": "FLIP"}
"""What is measured of each photo, and what tables call it."""
DIGITS = {"psnr": 2, "ssim": 4, "lpips_vgg": 4, "flip": 4}


@dataclass(frozen=True)
class Difference:
    """The mean of differences photo by photo.

    Attributes:
        mean: of the differences.
        margin: half of the interval's width; None for a single photo.
        photos: number of photos.
    """

    mean: float
    margin: Optional[float]
    photos: int

    def words(self, name: str) -> str:
        """Return mean and margin in words, with the digits that tables give this measure."""
        digits = DIGITS[name]
        margin = "" if self.margin is None else f" ± {self.margin:.{digits}f}"
        return f"{self.mean:+.{digits}f}{margin}"


def paired_difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Optional[Difference]:
    """Return by how much we measure more than they do, over the photos; None where the photos are not the same.

    The runs' values of a photo are averaged first; then the differences d_i of the n photos have mean m and sample
    standard deviation s, and the interval is Student's, m ± t s / sqrt(n) with the quantile t of n - 1 degrees of
    freedom. A photo that was not measured (NaN) in any of the runs is left out.

    Args:
        ours: of each run, what was measured of each photo.
        theirs: the same.
    """
    from scipy.special import stdtrit

    counts = {len(values) for values in (*ours, *theirs)}
    if not ours or not theirs or len(counts) != 1:
        return None
    pairs = zip(map(statistics.fmean, zip(*ours)), map(statistics.fmean, zip(*theirs)))
    differences = [our - their for our, their in pairs if math.isfinite(our - their)]
    count = len(differences)
    if count < 2:
        return Difference(differences[0], None, 1) if differences else None
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    margin = quantile * statistics.stdev(differences) / math.sqrt(count)
    return Difference(statistics.fmean(differences), margin, count)


def paired_differences(
    ours: Sequence[Mapping[str, Sequence[float]]], theirs: Sequence[Mapping[str, Sequence[float]]]
) -> dict[str, Difference]:
    """Return the difference of each measure that all runs have; see `paired_difference`.

    Args:
        ours: of each run, by the measure's name what was measured of each photo.
        theirs: the same.
    """
    runs = [*ours, *theirs]
    names = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
    found = {name: paired_difference([run[name] for run in ours], [run[name] for run in theirs]) for name in names}
    return {name: difference for name, difference in found.items() if difference is not None}
