"""What training steps took: medians over processes, kinds of steps beside each other, and how the time grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from distilled_splat.student.model import DistilledModelConfig

WITH_PHOTO, WITHOUT_PHOTO = "student, photo", "student, label"
"""A student's steps are of two kinds: at a training camera, and between the cameras."""


@dataclass(frozen=True)
class StepTimes:
    """Median milliseconds of a training step and of its stages; `rest` is what no stage accounts for."""

    kind: str
    scene: str
    gaussians: int
    width: int
    height: int
    milliseconds: dict[str, float]
    peak_megabytes: float
    """Most memory that the training held, above what it takes to import nerfstudio, in 10^6 bytes."""

    @property
    def whole(self) -> float:
        """Milliseconds from one step to the next."""
        return self.milliseconds["whole step"]


def median_of(times: Sequence[StepTimes]) -> StepTimes:
    """Return the medians over trainings of the same kind, scene and size: a process has its luck with memory."""
    stages = times[0].milliseconds
    milliseconds = {stage: float(np.median([one.milliseconds[stage] for one in times])) for stage in stages}
    peak = float(np.median([one.peak_megabytes for one in times]))
    return replace(times[0], milliseconds=milliseconds, peak_megabytes=peak)


@dataclass(frozen=True)
class AtOneSize:
    """What trainings of the same scene, Gaussians and pixels took: milliseconds a step, and memory."""

    scene: str
    gaussians: int
    width: int
    height: int
    plain: float
    student: float
    """The mean over its two kinds of steps; by default half of them have no photo."""
    stock: Optional[float]
    """With the stock loss and stock Adam, where that was timed."""
    peak_megabytes: float
    """Of the student."""


def side_by_side(steps: Sequence[StepTimes]) -> list[AtOneSize]:
    """Put the kinds of steps that were timed at one size beside each other."""
    fraction = DistilledModelConfig().virtual_fraction
    sizes: dict[tuple[str, int, int, int], dict[str, StepTimes]] = {}
    for step in steps:
        sizes.setdefault((step.scene, step.gaussians, step.width, step.height), {})[step.kind] = step
    rows = []
    for size, kinds in sizes.items():
        student = (1 - fraction) * kinds[WITH_PHOTO].whole + fraction * kinds[WITHOUT_PHOTO].whole
        stock = kinds["torch"].whole if "torch" in kinds else None
        rows.append(AtOneSize(*size, kinds["ours"].whole, student, stock, kinds[WITH_PHOTO].peak_megabytes))
    return rows


def exponents(steps: Sequence[StepTimes]) -> dict[str, float]:
    """Fit b in milliseconds = a size^b over a capture's plain steps, by Gaussians and by pixels: 1 is linear growth."""
    plain = [step for step in steps if step.kind == "ours" and step.scene != "random"]
    found = {}
    for pixels in sorted({step.width * step.height for step in plain}):
        at = [step for step in plain if step.width * step.height == pixels]
        found[f"exponent by Gaussians, {at[0].width}x{at[0].height}"] = exponent(at, lambda step: step.gaussians)
    for count in sorted({step.gaussians for step in plain}):
        at = [step for step in plain if step.gaussians == count]
        found[f"exponent by pixels, {count} Gaussians"] = exponent(at, lambda step: step.width * step.height)
    return found


def exponent(steps: Sequence[StepTimes], size: Callable[[StepTimes], int]) -> float:
    """Fit b in milliseconds = a size^b."""
    sizes, times = np.log([size(step) for step in steps]), np.log([step.whole for step in steps])
    return float(np.polyfit(sizes, times, 1)[0])
