"""The Ray engine: each job is a task on whichever node of a cluster has room for it.

Ray is told what may start by the same schedule as the local engine. Run folders lie on storage that all nodes see under
one path: what a job has done is known by what it left there, and a job whose node was lost resumes on another from
its last checkpoint.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Optional

from distilled_splat.jobs.command import ask_to_stop, start
from distilled_splat.jobs.graph import Job, Schedule
from distilled_splat.jobs.local import SECONDS_BETWEEN_LOOKS, Watcher
from distilled_splat.runs.processes import EXIT_INTERRUPTED, interrupts_call
from distilled_splat.runs.words import words_of

try:
    import ray
    from ray.exceptions import RayError, TaskCancelledError
except ImportError as error:
    raise ValueError("The engine ray needs Ray, which is not installed: pip install 'distilled-splat[ray]'.") from error

SECONDS_TO_ANSWER = 10


@dataclass(frozen=True)
class Resources:
    """What a job reserves on a node.

    Attributes:
        gpus: number of GPUs; a part of one lets several jobs share it.
        cpus: number of processors, and of threads that the job computes with.
    """

    gpus: float
    cpus: int

    def fit(self, nodes: list[dict[str, Any]]) -> int:
        """Return how many jobs these nodes, as `ray.nodes()` lists them, have room for at a time."""
        return sum(self._fit_in(node["Resources"]) for node in nodes if node["Alive"])

    def _fit_in(self, resources: dict[str, float]) -> int:
        by_cpu = int(resources.get("CPU", 0) / self.cpus)
        return by_cpu if self.gpus == 0 else min(by_cpu, int(resources.get("GPU", 0) / self.gpus + 1e-6))


class JobStopped(Exception):
    """A job was ended from outside, and is worth another try."""


def run_job(job: Job, environment: dict[str, str]) -> int:
    """Run a job in a process on this node and return its exit code, 0 if and only if what it leaves is there.

    Raises:
        JobStopped: if a signal ended it, or it stopped itself, saved, for lack of its parent.
    """
    if job.done():
        return 0
    process = start(job, environment)
    try:
        while process.poll() is None:  # a wait would not notice that Ray cancels the task
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        if process.poll() is None:
            ask_to_stop(process)
        while process.poll() is None:  # Ray may cancel again while the job saves
            with suppress(KeyboardInterrupt):
                process.wait()
    if job.done():
        return 0
    if process.returncode < 0 or process.returncode == EXIT_INTERRUPTED:
        raise JobStopped(f"{job.name} was stopped with code {process.returncode}.")
    return process.returncode or 1


class Cluster:
    """A connection to a running cluster, or a Ray of this machine's own for as long as this context lasts."""

    def __init__(self, address: Optional[str] = None) -> None:
        """Choose a cluster.

        Args:
            address: of a running cluster, as `ray start` prints it; None takes RAY_ADDRESS, or else this machine.
        """
        self.address = address
        self.ours = False

    def __enter__(self) -> Cluster:
        """Connect.

        Raises:
            ValueError: if there is no cluster at the address, or none can be started.
        """
        host, _, port = (self.address or "").rpartition(":")
        try:
            if port.isdigit():  # Ray itself would try for minutes
                socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
            if not ray.is_initialized():
                ray.init(address=self.address, log_to_driver=False, configure_logging=False)
                self.ours = True
        except Exception as error:  # of Ray some are of no class of their own
            if self.address is None:
                raise ValueError(f"Ray could not be started on this machine: {words_of(error)}") from error
            raise ValueError(
                f"No Ray cluster answers at {self.address}: {words_of(error)}. "
                "Give the address that ray start --head printed."
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        if self.ours:
            ray.shutdown()

    def room(self, resources: Resources) -> int:
        """Return how many jobs the cluster has room for at a time.

        Raises:
            ValueError: if there is not room for one.
        """
        room = resources.fit(ray.nodes())
        if room == 0:
            nodes = "; ".join(
                f"{node['Resources'].get('CPU', 0):g} processors and {node['Resources'].get('GPU', 0):g} GPUs"
                for node in ray.nodes()
                if node["Alive"]
            )
            raise ValueError(
                f"No node of the Ray cluster has {resources.cpus} processors and {resources.gpus:g} GPUs for a job "
                f"(there are: {nodes}): ask for less, or add a node."
            )
        return room

    def run(self, schedule: Schedule, resources: Resources, retries: int, watcher: Watcher) -> Optional[str]:
        """Run a schedule to its end, as many jobs at a time as the cluster has room for, and one that waits.

        The one that waits shows an autoscaler that there is more to do. On Ctrl-C or SIGTERM the jobs that run are told
        to stop, and are waited for.

        Args:
            schedule: which jobs to run; it is told what becomes of them.
            resources: what each job reserves.
            retries: how often a job is tried again when its node or its process was lost.
            watcher: told of each beginning and end, and in between.

        Returns:
            The signal that stopped it, or None if all was run that could be.
        """
        again: Any = [JobStopped]
        task = ray.remote(
            num_gpus=resources.gpus, num_cpus=resources.cpus, max_retries=retries, retry_exceptions=again
        )(run_job)
        environment = {"OMP_NUM_THREADS": str(resources.cpus)}
        pending: dict[Any, Job] = {}
        reasons: list[str] = []
        told = False
        with interrupts_call(reasons.append):
            while True:
                room = resources.fit(ray.nodes()) + 1
                while not reasons and len(pending) < room and (job := schedule.next_job()) is not None:
                    pending[task.remote(job, environment)] = job
                    schedule.begin(job.name)
                    watcher.begun(job)
                if reasons and not told:
                    told = True
                    for reference in pending:
                        ray.cancel(reference)
                if not pending:
                    return reasons[0] if reasons else None
                ready, _ = ray.wait(list(pending), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
                for reference in ready:
                    job = pending.pop(reference)
                    code = exit_code(reference, job)
                    schedule.end(job.name, code == 0)
                    watcher.ended(job, code)
                watcher.look()


def exit_code(reference: Any, job: Job) -> int:
    """Return the exit code of a job whose task has ended; if it was lost for good, note that in its log."""
    try:
        return ray.get(reference)
    except TaskCancelledError:
        return EXIT_INTERRUPTED
    except (RayError, JobStopped) as error:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a", encoding="utf8") as log:
            log.write(f"Lost: {words_of(error)}\n")
        return 1
