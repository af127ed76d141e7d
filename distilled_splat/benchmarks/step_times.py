"""The times of training steps: medians over processes, kinds of steps side by side, and growth with the size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from distilled_splat.student.model import DistilledModelConfig

WITH_PHOTO, WITHOUT_PHOTO = "student, photo", "student, label"
"""A student has two kinds of steps: at a training camera (photo), and at a virtual view (pseudo label only)."""


@dataclass(frozen=True)
class StepTimes:
    """Median milliseconds of a training step and of its stages; `rest` is the time outside of these stages."""

    kind: str
    scene: str
    gaussians: int
    width: int
    height: int
    milliseconds: dict[str, float]
    peak_megabytes: float
    """Largest memory of the training beyond the memory after nerfstudio's import, in 10^6 bytes."""

    @property
    def whole(self) -> float:
        """Milliseconds from the start of one step to the start of the next."""
        return self.milliseconds["whole step"]


def median_of(times: Sequence[StepTimes]) -> StepTimes:
    """Return the medians over trainings of one kind, scene and size; the memory layout makes processes differ."""
    stages = times[0].milliseconds
    milliseconds = {stage: float(np.median([one.milliseconds[stage] for one in times])) for stage in stages}
    peak = float(np.median([one.peak_megabytes for one in times]))
    return replace(times[0], milliseconds=milliseconds, peak_megabytes=peak)


@dataclass(frozen=True)
class AtOneSize:
    """Milliseconds a step, and memory, of trainings of one scene at one number of Gaussians and of pixels."""

    scene: str
    gaussians: int
    width: int
    height: int
    plain: float
    student: float
    """Mean over the student's two kinds of steps; by default half of the steps are at virtual views."""
    stock: Optional[float]
    """With the stock loss and stock Adam; None if not timed."""
    peak_megabytes: float
    """Memory of the student, in 10^6 bytes."""


def side_by_side(steps: Sequence[StepTimes]) -> list[AtOneSize]:
    """Group the steps by size, with all kinds of steps of one size in one row."""
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
