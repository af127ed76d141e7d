"""The time of a process by stages that do not overlap: wall time and processor time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

Times = tuple[float, float]
"""Seconds of wall time, and seconds of all processors."""


class Stages:
    """A stopwatch that always runs: all time since the start of the process belongs to some stage."""

    def __init__(self) -> None:
        self.open = ["start"]
        self.times: dict[str, Times] = {}
        self.read_at: Times = (psutil.Process().create_time(), 0.0)

    def read(self) -> dict[str, Times]:
        """Return the times of all stages so far, in the order in which they were first entered."""
        now = (time.time(), time.process_time())
        name = self.open[-1]
        clock, processors = self.times.get(name, (0.0, 0.0))
        self.times[name] = (clock + now[0] - self.read_at[0], processors + now[1] - self.read_at[1])
        self.read_at = now
        return dict(self.times)

    def turn_to(self, name: str) -> None:
        """End the outermost stage and begin another one."""
        self.read()
        self.open = [name]

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Count the time in this context as a stage of its own, and not as part of the surrounding stage."""
        self.read()
        around = self.open
        self.open = [*around, name]
        try:
            yield
        finally:
            self.read()
            self.open = around

    def begin_run(self) -> None:
        """Begin a training. The time so far was the start of the process, or belongs to an earlier training."""
        if self.open != ["start"]:
            self.times, self.read_at = {}, (time.time(), time.process_time())
        self.turn_to("set-up")


STAGES = Stages()
"""The stopwatch of this process."""


def total(times: Mapping[str, Times], *without: str) -> Times:
    """Return the sum of all stages except some."""
    chosen = [value for name, value in times.items() if name not in without]
    return sum(value[0] for value in chosen), sum(value[1] for value in chosen)


def added(times: Mapping[str, Times], others: Mapping[str, Times]) -> dict[str, Times]:
    """Return the sum of two processes' times, stage by stage."""
    names = dict.fromkeys((*times, *others))
    pairs = {name: (times.get(name, (0.0, 0.0)), others.get(name, (0.0, 0.0))) for name in names}
    return {name: (one[0] + other[0], one[1] + other[1]) for name, (one, other) in pairs.items()}
