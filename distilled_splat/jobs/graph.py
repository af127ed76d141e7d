"""Jobs that depend on each other, and which of them may start. This module has no processes and no clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One command with a result on disk that shows whether the job is done.

    Attributes:
        name: name of the job, unique in the graph.
        argv: the command, as arguments of the Python interpreter.
        log: file for its output; a training reports its progress in the same folder.
        done: returns whether the result exists; picklable and fast.
        needs: names of the jobs that must be done first.
        steps: training steps, for the estimate of the time left; 0 if the job does not count.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    done: Callable[[], bool]
    needs: tuple[str, ...] = ()
    steps: int = 0


class State(Enum):
    """The state of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    """A job that it needs has failed."""


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs with each job after those that it needs, and otherwise in the given order.

    Raises:
        ValueError: if two jobs have one name, a job needs a missing job, or jobs need each other in a circle.
    """
    by_name = {job.name: job for job in jobs}
    if len(by_name) < len(jobs):
        twice = next(job.name for job in jobs if by_name[job.name] is not job)
        raise ValueError(f"Two jobs have the name {twice!r}: give them different names.")
    for job in jobs:
        for need in job.needs:
            if need not in by_name:
                raise ValueError(f"The job {job.name!r} needs {need!r}, which is not in the graph.")
    place = {job.name: index for index, job in enumerate(jobs)}
    sorter = TopologicalSorter({job.name: job.needs for job in jobs})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = ", ".join(repr(name) for name in dict.fromkeys(error.args[1]))
        raise ValueError(f"These jobs need each other in a circle: {circle}.") from None
    free: list[int] = []
    ordered: list[Job] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(free, place[name])
        ordered.append(jobs[heapq.heappop(free)])
        sorter.done(ordered[-1].name)
    return ordered


def dependents_of(jobs: Iterable[Job]) -> dict[str, list[str]]:
    """Return, by the name of each job, the names of the jobs that need it."""
    found: dict[str, list[str]] = {job.name: [] for job in jobs}
    for job in jobs:
        for need in dict.fromkeys(job.needs):
            found[need].append(job.name)
    return found


def unnecessary(jobs: Sequence[Job], done: Collection[str]) -> set[str]:
    """Return the names of the jobs that need not run: finished jobs, and jobs that only finished jobs need.

    So intermediate results may be deleted once the final results exist.
    """
    dependents = dependents_of(jobs)
    found: set[str] = set()
    for job in reversed(in_order(jobs)):
        needed_by = dependents[job.name]
        if job.name in done or (needed_by and all(name in found for name in needed_by)):
            found.add(job.name)
    return found


class Schedule:
    """Tells which job may start next, given which jobs have ended. Earlier jobs in the graph start first."""

    def __init__(self, jobs: Sequence[Job], done: Collection[str] = (), keep_going: bool = True) -> None:
        """Start with some jobs done.

        Args:
            jobs: the graph.
            done: names of the finished jobs.
            keep_going: whether a failure stops only the jobs that depend on it, or all jobs that have not started.

        Raises:
            ValueError: if the jobs are not a graph.
        """
        self.jobs = {job.name: job for job in in_order(jobs)}
        self.keep_going = keep_going
        self.states = dict.fromkeys(self.jobs, State.WAITING)
        self._place = {name: place for place, name in enumerate(self.jobs)}
        self._names = list(self.jobs)
        self._dependents = dependents_of(self.jobs.values())
        skipped = unnecessary(jobs, done)
        self._sorter = TopologicalSorter(
            {name: set(job.needs) - skipped for name, job in self.jobs.items() if name not in skipped}
        )
        self._sorter.prepare()
        for name in skipped:
            self.states[name] = State.DONE
        self._free: list[int] = []
        self._take_ready()

    def _take_ready(self) -> None:
        for name in self._sorter.get_ready():
            heapq.heappush(self._free, self._place[name])

    def next_job(self) -> Job | None:
        """Return the job to start next, or None if no job may start now."""
        return self.jobs[self._names[self._free[0]]] if self._free else None

    def begin(self, name: str) -> None:
        """Record that the job from `next_job` has been started."""
        assert self._free and self._names[self._free[0]] == name
        heapq.heappop(self._free)
        self.states[name] = State.RUNNING

    def end(self, name: str, succeeded: bool) -> None:
        """Record how a running job has ended."""
        assert self.states[name] is State.RUNNING
        if not succeeded:
            self.states[name] = State.FAILED
            self._block(name)
            if not self.keep_going:
                self._free.clear()
            return
        self.states[name] = State.DONE
        self._sorter.done(name)
        if self.keep_going or not self.names(State.FAILED):
            self._take_ready()

    def _block(self, failed: str) -> None:
        causes = [failed]
        while causes:
            for name in self._dependents[causes.pop()]:
                if self.states[name] is State.WAITING:
                    self.states[name] = State.BLOCKED
                    causes.append(name)

    def names(self, state: State) -> list[str]:
        """Return the names of the jobs in a state, in order."""
        return [name for name, found in self.states.items() if found is state]
