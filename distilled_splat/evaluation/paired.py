"""How certain a difference is: its mean over the photos, with a 95 % interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

CONFIDENCE = 0.95
TITLES = {"psnr": "PSNR", "ssim": "SSIM", "lpips_vgg": "LPIPS (VGG)", "flip": "FLIP"}
"""The measures of each photo, and their titles in tables."""
DIGITS = {"psnr": 2, "ssim": 4, "lpips_vgg": 4, "flip": 4}


@dataclass(frozen=True)
class Difference:
    """The mean of differences, photo by photo.

    Attributes:
        mean: of the differences.
        margin: half the width of the interval; None for a single photo.
        photos: number of photos.
    """

    mean: float
    margin: Optional[float]
    photos: int

    def words(self, name: str) -> str:
        """Format mean and margin with the number of digits that tables use for this measure."""
        digits = DIGITS[name]
        margin = "" if self.margin is None else f" ± {self.margin:.{digits}f}"
        return f"{self.mean:+.{digits}f}{margin}"


def paired_difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Optional[Difference]:
    """Return the mean difference of our values from theirs over the photos; None if the photos are not the same.

    First, the values of each photo are averaged over the runs. The differences d_i of the n photos have mean m and
    sample standard deviation s. The interval is Student's: m ± t s / sqrt(n), with the quantile t of n - 1 degrees of
    freedom. A photo that is NaN in any run is left out.

    Args:
        ours: for each of our runs, the values by photo.
        theirs: for each of their runs, the values by photo.
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
        ours: for each of our runs, the values by photo, by name of the measure.
        theirs: the same for their runs.
    """
    runs = [*ours, *theirs]
    names = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
    found = {name: paired_difference([run[name] for run in ours], [run[name] for run in theirs]) for name in names}
    return {name: difference for name, difference in found.items() if difference is not None}
