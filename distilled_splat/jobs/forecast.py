"""Forecasts by simulation how long a graph of jobs takes."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence

from distilled_splat.jobs.graph import Job, Schedule


def simulated(
    jobs: Sequence[Job], seconds: Mapping[str, float], slots: int, done: Collection[str] = ()
) -> dict[str, tuple[float, float]]:
    """Return when each job would begin and end, in seconds from now, by simulating the engines' schedule.

    Args:
        jobs: the graph.
        seconds: duration of each job, by its name.
        slots: number of jobs that run at a time.
        done: names of finished jobs; they are left out of the result.
    """
    schedule = Schedule(jobs, done)
    running: list[tuple[float, str]] = []
    times: dict[str, tuple[float, float]] = {}
    now = 0.0
    while True:
        while len(running) < slots and (job := schedule.next_job()) is not None:
            schedule.begin(job.name)
            times[job.name] = (now, now + seconds[job.name])
            heapq.heappush(running, (times[job.name][1], job.name))
        if not running:
            return times
        now, name = heapq.heappop(running)
        schedule.end(name, succeeded=True)


def makespan(times: Mapping[str, tuple[float, float]]) -> float:
    """Return the end of the last job; 0 without jobs."""
    return max((end for _, end in times.values()), default=0.0)
