"""How long a graph of jobs takes, by simulation."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence

from distilled_splat.jobs.graph import Job, Schedule


def simulated(
    jobs: Sequence[Job], seconds: Mapping[str, float], slots: int, done: Collection[str] = ()
) -> dict[str, tuple[float, float]]:
    """Return when each job begins and ends if the engines' schedule is run by a clock that takes no time.

    Args:
        jobs: the graph.
        seconds: how long each job takes, by its name.
        slots: how many run at a time.
        done: names of the jobs that are done already; they are not in the answer.
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
    """Return the end of the last job, 0 if there is none."""
    return max((end for _, end in times.values()), default=0.0)
