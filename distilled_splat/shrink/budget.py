"""How many steps and views there is time for: what a step takes here is measured, and the rest is reckoned from it."""

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

PRUNINGS, PRUNED = 8, 0.2
"""How often a student is pruned, for which each view is rendered, and in which part of its steps (see the method)."""
BETWEEN = 250
"""Views between the others of which a student has its teacher's renders."""
FOR_VIEWS = 0.4
"""Part of the time that is there for what each view costs, at most: beyond it there are fewer views."""
FEWEST_VIEWS, FEWEST_STEPS, MOST_STEPS = 24, 200, 30000
START = 3.0
"""A training's beginning and end (it is measured, and its report written) by how long this command takes to begin."""
TRIES = 5
REST = 1.3
"""A whole step by its render, loss and backward pass: the photo, Adam and the trainer come on top."""


@dataclass(frozen=True)
class Paces:
    """What takes how long on this machine, in seconds.

    Attributes:
        start: a training's beginning and end.
        picture: one render of the original.
        step: a step with all Gaussians of the original.
        growth: power of the number of Gaussians by which a step takes longer.
        original: the number of Gaussians that it has.
    """

    start: float
    picture: float
    step: float
    growth: float
    original: int

    def step_of(self, count: float) -> float:
        """Return the seconds of a step with so many Gaussians."""
        return self.step * (count / self.original) ** self.growth

    def pruned(self, counts: Sequence[int]) -> list[list[float]]:
        """Return for each size the seconds of a step at the sizes that lead to it, from the next larger on."""
        return [
            [self.step_of(larger * (count / larger) ** (k / PRUNINGS)) for k in range(PRUNINGS)]
            for larger, count in zip((self.original, *counts), counts)
        ]

    def of_steps(self, counts: Sequence[int]) -> float:
        """Return what each step of all refits to these sizes costs."""
        return sum(
            (1 - PRUNED) * self.step_of(count) + PRUNED * statistics.mean(pruned)
            for count, pruned in zip(counts, self.pruned(counts))
        )

    def of_views(self, counts: Sequence[int]) -> float:
        """Return what each view costs: its picture, its importance for the table, and its part in the prunings."""
        prunings = sum(map(sum, self.pruned(counts))) / REST
        return self.picture * (1 + len(counts)) + self.step / REST + prunings

    def of_all(self, counts: Sequence[int]) -> float:
        """Return what there is to do in any case."""
        return (self.start + BETWEEN * self.picture) * len(counts)


@dataclass(frozen=True)
class Choice:
    """What there is time for.

    Attributes:
        views: number of views to learn from.
        iterations: steps of each refit.
    """

    views: int
    iterations: int


def choose_work(paces: Paces, seconds: float, counts: Sequence[int], views: int) -> Choice:
    """Choose the views and the steps that fit into a time.

    Args:
        paces: what takes how long.
        seconds: what is left of the time.
        counts: the sizes, the largest first.
        views: how many views there are.

    Raises:
        ValueError: if there is no time for anything useful, with the seconds that are missing.
    """
    left = seconds - paces.of_all(counts)
    some = max(int(FOR_VIEWS * left / paces.of_views(counts)), min(FEWEST_VIEWS, views))
    chosen = min(some, views)
    iterations = (left - chosen * paces.of_views(counts)) / paces.of_steps(counts)
    if iterations < FEWEST_STEPS:
        raise TooLittleTime((FEWEST_STEPS - iterations) * paces.of_steps(counts))
    return Choice(chosen, min(round_down(iterations), MOST_STEPS))


class TooLittleTime(ValueError):
    """There is no time for anything useful.

    Attributes:
        missing: the seconds that it would take more.
    """

    def __init__(self, missing: float) -> None:
        super().__init__(f"{missing:.0f} seconds more are needed")
        self.missing = missing


def process_start() -> float:
    """Return when this process was started, as `time.time` counts."""
    return psutil.Process().create_time()


def round_down(number: float) -> int:
    """Return a number with its first two digits."""
    unit = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return int(number // unit * unit)


def measure_paces(gaussians: Gaussians, views: Sequence[View], smallest: int, beginning: float) -> Paces:
    """Make some steps with the original and with as few Gaussians as are wanted.

    Args:
        gaussians: the splat.
        views: some to render, of all of them.
        smallest: number of Gaussians.
        beginning: how long this command has taken to begin, in seconds.
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
    """Render a view with all gradients, as a training does."""
    leaves = {field.name: getattr(gaussians, field.name).detach().requires_grad_() for field in fields(gaussians)}
    rendered = render(Gaussians(**leaves), view, depth=True).over(torch.full((3,), 0.5, device=view.K.device))
    (loss,) = photometric_losses(rendered, torch.zeros_like(rendered))
    loss.backward()


def thinned(gaussians: Gaussians, count: int) -> Gaussians:
    """Return some of the Gaussians, as much larger as they are fewer."""
    chosen = torch.linspace(0, len(gaussians) - 1, count, device=gaussians.means.device).round().long()
    few = gaussians[chosen]
    return replace(few, log_scales=few.log_scales + 0.5 * math.log(len(gaussians) / count))


def seconds_of(work: Callable[[View], None], views: Sequence[View]) -> float:
    """Return the median of the seconds that some work takes, after it was done once."""
    times = []
    for view in (views[0], *views):
        began = time.perf_counter()
        work(view)
        if view.K.is_cuda:
            torch.cuda.synchronize(view.K.device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
