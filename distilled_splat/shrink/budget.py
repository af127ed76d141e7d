"""How many steps and views fit into a given time. Some steps are timed here; the rest is computed from them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import psutil
import torch

from distilled_splat.ops.losses import photometric_losses
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.model import DistilledModelConfig

PRUNINGS = DistilledModelConfig.prune_times
PRUNED = DistilledModelConfig.prune_stop / DistilledModelConfig.schedule_length
"""Number of prunings of a student, each of which renders every view, and the fraction of its steps with pruning."""
BETWEEN = DistilledModelConfig.virtual_views
"""Number of virtual views of a student, each rendered once by the teachers."""
FOR_VIEWS = 0.4
"""Largest fraction of the time for the cost of views. If the views cost more, their number is reduced."""
FEWEST_VIEWS, FEWEST_STEPS, MOST_STEPS = 24, 200, 30000
START = 3.0
"""Time of a training's start and end (with measurements and report), in multiples of this command's own start time."""
TRIES = 5
REST = 1.3
"""Time of a whole step, in multiples of its render, loss and backward pass. Photo, Adam and trainer are the rest."""


@dataclass(frozen=True)
class Paces:
    """Times on this machine, in seconds.

    Attributes:
        start: start and end of a training.
        picture: one render of the original.
        step: a step with all Gaussians of the original.
        growth: power of the number of Gaussians with which the time of a step grows.
        original: number of Gaussians of the original.
    """

    start: float
    picture: float
    step: float
    growth: float
    original: int

    def step_of(self, count: float) -> float:
        """Return the seconds of a step with this number of Gaussians."""
        return self.step * (count / self.original) ** self.growth

    def pruned(self, counts: Sequence[int]) -> list[list[float]]:
        """Return, for each size, the seconds of a step after each pruning on the way from the next larger size."""
        return [
            [self.step_of(larger * (count / larger) ** (k / PRUNINGS)) for k in range(PRUNINGS)]
            for larger, count in zip((self.original, *counts), counts)
        ]

    def of_steps(self, counts: Sequence[int]) -> float:
        """Return the seconds that one step costs, summed over the refits to all sizes."""
        return sum(
            (1 - PRUNED) * self.step_of(count) + PRUNED * statistics.mean(pruned)
            for count, pruned in zip(counts, self.pruned(counts))
        )

    def of_views(self, counts: Sequence[int]) -> float:
        """Return the seconds that one view costs: its picture, its importance, and its part in the prunings."""
        prunings = sum(map(sum, self.pruned(counts))) / REST
        return self.picture * (1 + len(counts)) + self.step / REST + prunings

    def of_all(self, counts: Sequence[int]) -> float:
        """Return the seconds that do not depend on the numbers of steps and views."""
        return (self.start + BETWEEN * self.picture) * len(counts)


@dataclass(frozen=True)
class Choice:
    """The work that fits into the time.

    Attributes:
        views: number of training views.
        iterations: steps of each refit.
    """

    views: int
    iterations: int


def choose_work(paces: Paces, seconds: float, counts: Sequence[int], views: int) -> Choice:
    """Choose the number of views and of steps that fit into a time.

    Args:
        paces: the times on this machine.
        seconds: the time left.
        counts: the sizes in Gaussians, the largest first.
        views: number of available views.

    Raises:
        ValueError: if the time is too short for useful work; the error has the missing seconds.
    """
    left = seconds - paces.of_all(counts)
    some = max(int(FOR_VIEWS * left / paces.of_views(counts)), min(FEWEST_VIEWS, views))
    chosen = min(some, views)
    iterations = (left - chosen * paces.of_views(counts)) / paces.of_steps(counts)
    if iterations < FEWEST_STEPS:
        raise TooLittleTime((FEWEST_STEPS - iterations) * paces.of_steps(counts))
    return Choice(chosen, min(round_down(iterations), MOST_STEPS))


class TooLittleTime(ValueError):
    """The time is too short for useful work.

    Attributes:
        missing: how many more seconds would be enough.
    """

    def __init__(self, missing: float) -> None:
        super().__init__(f"{missing:.0f} seconds more are needed")
        self.missing = missing


def process_start() -> float:
    """Return when this process was started, in the units of `time.time`."""
    return psutil.Process().create_time()


def round_down(number: float) -> int:
    """Round a number down to its first two digits."""
    unit = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return int(number // unit * unit)


def measure_paces(gaussians: Gaussians, views: Sequence[View], smallest: int, beginning: float) -> Paces:
    """Time some steps with the original, and with the smallest number of Gaussians that is wanted.

    Args:
        gaussians: the splat.
        views: all views; some of them are rendered.
        smallest: the smallest number of Gaussians.
        beginning: start time of this command, in seconds.
    """
    few = thinned(gaussians, smallest)
    chosen = [views[place * len(views) // TRIES] for place in range(TRIES)]

    def picture(view: View) -> None:
        with torch.no_grad():
            render(gaussians, view)

    step, fewer = (REST * seconds_of(lambda view, of=of: make_step(of, view), chosen) for of in (gaussians, few))
    growth = math.log(step / fewer) / math.log(len(gaussians) / len(few))
    return Paces(START * beginning, seconds_of(picture, chosen), step, max(growth, 0.0), len(gaussians))


def make_step(gaussians: Gaussians, view: View) -> None:
    """Render a view and compute all gradients, as in a training step."""
    leaves = {field.name: getattr(gaussians, field.name).detach().requires_grad_() for field in fields(gaussians)}
    rendered = render(Gaussians(**leaves), view, depth=True).over(torch.full((3,), 0.5, device=view.K.device))
    (loss,) = photometric_losses(rendered, torch.zeros_like(rendered))
    loss.backward()


def thinned(gaussians: Gaussians, count: int) -> Gaussians:
    """Return a subset of the Gaussians, enlarged so that they cover the same area."""
    chosen = torch.linspace(0, len(gaussians) - 1, count, device=gaussians.means.device).round().long()
    few = gaussians[chosen]
    return replace(few, log_scales=few.log_scales + 0.5 * math.log(len(gaussians) / count))


def seconds_of(work: Callable[[View], None], views: Sequence[View]) -> float:
    """Return the median of the seconds that `work` takes for each view, after one untimed call."""
    times = []
    for view in (views[0], *views):
        began = time.perf_counter()
        work(view)
        if view.K.is_cuda:
            torch.cuda.synchronize(view.K.device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
