"""Runs the command of one job in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping

from distilled_splat.jobs.graph import Job
from distilled_splat.runs.processes import child_environment


def start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a job, and append its output to its log.

    The process has a session of its own (on Windows a process group), so Ctrl-C reaches only its parent process. If the
    parent is gone, the process saves and stops.

    Args:
        job: the job to run.
        environment: variables to set in addition to those of this process.
    """
    # idle OpenMP threads that spin would take the cores from the rasterizer
    variables = {"OMP_WAIT_POLICY": "PASSIVE", **child_environment(), **environment}
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *job.argv],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )  # fmt: skip


def run_job(job: Job) -> int:
    """Run a job to its end, and return its exit code. On Ctrl-C the job saves and stops first."""
    process = start(job, {})
    try:
        return process.wait()
    except KeyboardInterrupt:
        ask_to_stop(process)
        process.wait()
        raise


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that `start` has started to save and stop. On Windows SIGTERM would end it at once."""
    ctrl_break = getattr(signal, "CTRL_BREAK_EVENT", None)
    if ctrl_break is None:
        return process.terminate()
    try:
        process.send_signal(ctrl_break)
    except OSError:  # there is no console to pass the request on
        process.terminate()


def last_words(job: Job, lines: int = 12) -> str:
    """Return the end of a job's log; empty if there is no log."""
    try:
        return "\n".join(job.log.read_text(encoding="utf8", errors="replace").strip().splitlines()[-lines:]).strip()
    except OSError:
        return ""
