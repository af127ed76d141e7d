"""The local engine: one process in each slot of this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Optional, Protocol

from distilled_splat.jobs.command import ask_to_stop, start
from distilled_splat.jobs.graph import Job, Schedule
from distilled_splat.runs.processes import interrupts_call, is_orphan

Slot = Mapping[str, str]
"""A place for one job: environment variables that restrict the job to a device or a number of threads."""
SECONDS_BETWEEN_LOOKS = 0.5


class Watcher(Protocol):
    """An observer of an engine."""

    def begun(self, job: Job) -> None:
        """A job has been started."""

    def look(self) -> None:
        """Some time has passed; called again and again."""

    def ended(self, job: Job, code: int) -> None:
        """A job has ended with this exit code; 0 if and only if its result exists."""


def gpu_slots(devices: Sequence[str], count: Optional[int] = None) -> list[Slot]:
    """Return slots on GPUs: one for each GPU, or `count` slots distributed over the GPUs in turn.

    Args:
        devices: names of the GPUs in CUDA_VISIBLE_DEVICES.
        count: number of slots.
    """
    return [{"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} for place in range(count or len(devices))]


def cpu_slots(threads: int, count: int) -> list[Slot]:
    """Return slots that share the threads of a machine as evenly as possible, with at least one thread each."""
    shares = [threads // count + (place < threads % count) for place in range(count)]
    return [{"OMP_NUM_THREADS": str(max(share, 1))} for share in shares]


def machine_slots(device_type: str, threads: int, count: Optional[int] = None) -> list[Slot]:
    """Return the slots of this machine. By default one for each GPU, or one for the whole CPU.

    Args:
        device_type: cuda, cpu, or another kind of device, of which the machine has one.
        threads: threads that the jobs on a CPU share.
        count: number of slots.

    Raises:
        ValueError: if the number is not positive.
    """
    if count is not None and count < 1:
        raise ValueError(f"The number of slots is {count}, but must be at least 1.")
    if device_type == "cuda":
        import torch

        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        devices = visible or [str(place) for place in range(torch.cuda.device_count())]
        if devices:
            return gpu_slots(devices, count)
    if count in (None, 1):
        return [{}]
    return cpu_slots(threads, count)


def run_local(schedule: Schedule, slots: Sequence[Slot], watcher: Watcher) -> Optional[str]:
    """Run a schedule to its end, one job at a time in each slot.

    On Ctrl-C or SIGTERM, or when the command that started this one is gone, ask the running jobs to stop, and wait for
    them.

    Args:
        schedule: the jobs; records how they end.
        slots: the slots to run in.
        watcher: informed of each start and end, and regularly in between.

    Returns:
        What stopped the engine (the name of a signal), or None if every job that could run has run.
    """
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    reasons: list[str] = []
    told = False
    with interrupts_call(reasons.append):
        try:
            while True:
                for place, (job, process) in list(running.items()):
                    code = process.poll()
                    if code is not None:
                        del running[place]
                        code = 0 if job.done() else code or 1
                        schedule.end(job.name, code == 0)
                        watcher.ended(job, code)
                for place, slot in enumerate(slots):
                    job = None if reasons or place in running else schedule.next_job()
                    if job is not None:
                        running[place] = (job, start(job, slot))
                        schedule.begin(job.name)
                        watcher.begun(job)
                if not reasons and is_orphan():
                    reasons.append("the end of the command that started this one")
                if reasons and not told:
                    told = True  # only once: a second signal would keep a training from saving
                    terminate(running)
                if not running:
                    return reasons[0] if reasons else None
                watcher.look()
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            if not told:
                terminate(running)


def terminate(running: Mapping[int, tuple[Job, subprocess.Popen[bytes]]]) -> None:
    """Ask the processes in all slots to stop."""
    for _, process in running.values():
        ask_to_stop(process)
