"""The Ray engine: each job is a task on a node of a cluster that has room for it.

The local engine's schedule decides which job starts next. All nodes must see the run folders at the same path: the
result in the folder shows whether a job is done, and a job whose node was lost resumes on another node from its last
checkpoint.
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
    raise ValueError('The engine ray needs Ray, which is not installed: pip install "distilled-splat[ray]".') from error

SECONDS_TO_ANSWER = 10


@dataclass(frozen=True)
class Resources:
    """The resources that a job reserves on a node.

    Attributes:
        gpus: number of GPUs; with a fraction, several jobs share a GPU.
        cpus: number of processors, and of the job's computing threads.
    """

    gpus: float
    cpus: int

    def fit(self, nodes: list[dict[str, Any]]) -> int:
        """Return how many jobs fit on these nodes (from `ray.nodes()`) at a time."""
        return sum(self._fit_in(node["Resources"]) for node in nodes if node["Alive"])

    def _fit_in(self, resources: dict[str, float]) -> int:
        by_cpu = int(resources.get("CPU", 0) / self.cpus)
        return by_cpu if self.gpus == 0 else min(by_cpu, int(resources.get("GPU", 0) / self.gpus + 1e-6))


class JobStopped(Exception):
    """A job was stopped from outside; it can be retried."""


def run_job(job: Job, environment: dict[str, str]) -> int:
    """Run a job in a process on this node. Return its exit code; 0 if and only if its result exists.

    Raises:
        JobStopped: if a signal ended the job, or the job saved and stopped because its parent was gone.
    """
    if job.done():
        return 0
    process = start(job, environment)
    try:
        while process.poll() is None:  # `wait` would not notice that Ray cancels the task
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
        raise JobStopped(f"{job.name} was stopped with exit code {process.returncode}.")
    return process.returncode or 1


class Cluster:
    """A connection to a running cluster, or a Ray on this machine that lives as long as this context."""

    def __init__(self, address: Optional[str] = None) -> None:
        """Choose a cluster.

        Args:
            address: address of a running cluster, as `ray start` prints it; None: $RAY_ADDRESS, or else this machine.
        """
        self.address = address
        self.ours = False

    def __enter__(self) -> Cluster:
        """Connect to the cluster, or start Ray.

        Raises:
            ValueError: if no cluster answers at the address, or Ray cannot be started.
        """
        host, _, port = (self.address or "").rpartition(":")
        try:
            if port.isdigit():  # Ray would try for minutes
                socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
            if not ray.is_initialized():
                ray.init(address=self.address, log_to_driver=False, configure_logging=False)
                self.ours = True
        except Exception as error:  # some errors of Ray are plain exceptions
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
        """Return how many jobs fit on the cluster at a time.

        Raises:
            ValueError: if not a single job fits.
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
                f"(the nodes have {nodes}): ask for less, or add a node."
            )
        return room

    def run(self, schedule: Schedule, resources: Resources, retries: int, watcher: Watcher) -> Optional[str]:
        """Run a schedule to its end. Submit as many jobs at a time as fit on the cluster, and one more.

        The additional job waits, which shows an autoscaler that there is more work. On Ctrl-C or SIGTERM, ask the
        running jobs to stop, and wait for them.

        Args:
            schedule: the jobs; records how they end.
            resources: the resources that each job reserves.
            retries: how many times to retry a job whose node or process was lost.
            watcher: informed of each start and end, and regularly in between.

        Returns:
            The name of the signal that stopped the engine, or None if every job that could run has run.
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
    """Return the exit code of a job whose task has ended. If the task is lost, append this to the job's log."""
    try:
        return ray.get(reference)
    except TaskCancelledError:
        return EXIT_INTERRUPTED
    except (RayError, JobStopped) as error:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a", encoding="utf8") as log:
            log.write(f"Lost: {words_of(error)}\n")
        return 1
