"""Start jobs as copies of one process that has imported what they need, so that only the first has to wait for that.

Importing nerfstudio takes ten seconds of a processor and more, and jobs that run one after the other need not pay that
each. `Nursery` starts a process that imports their module, and that begins each job as a copy (a fork) of itself. It
does nothing else: where it is copied no thread of ours and no device is in use. Each job still has a process of its
own, as with `jobs.command`. Processes are copied on Linux only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, Optional

from distilled_splat.jobs.command import Running, start
from distilled_splat.jobs.graph import Job
from distilled_splat.runs.processes import PARENT_VARIABLE

CAN_COPY = sys.platform == "linux"
SECONDS_BETWEEN_LOOKS = 0.1


class Nursery:
    """The side that asks. It is a context; the process is there within it, from the first job on."""

    def __init__(self, module: str) -> None:
        """Begin without a process.

        Args:
            module: what its jobs run; it has a `main()`, and a `prepare_to_be_copied()` that is called once before.
        """
        self.module = module
        self.process: Optional[subprocess.Popen[str]] = None
        self.jobs: list[NurseryJob] = []

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()  # by which it knows that there is nothing more to do
            self.process.wait()

    def start(self, job: Job, environment: Mapping[str, str]) -> Running:
        """Start a job, with its output appended to its log.

        Args:
            job: what to run. It is copied if it is `-m module arguments` of the nursery's module; else it is started as
                by `jobs.command`.
            environment: variables to set beside those of this process; those of the first job hold for all.
        """
        if job.argv[:2] != ("-m", self.module):
            return start(job, environment)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        if self.process is None:
            self.process = self.open(job, environment)
        self.jobs.append(NurseryJob(self, len(self.jobs)))
        self.tell({"start": list(job.argv[2:]), "log": f"{job.log.absolute()}"})
        return self.jobs[-1]

    def open(self, job: Job, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start the process, which has the session of its own that its jobs are to have, and the first job's log."""
        variables = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **environment, PARENT_VARIABLE: str(os.getpid())}
        with job.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", __name__, self.module],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=variables, text=True, bufsize=1,
                start_new_session=True,
            )  # fmt: skip

    def tell(self, message: dict[str, Any]) -> None:
        """Send the process a message; whether it is still there is seen where it is read."""
        assert self.process is not None and self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(json.dumps(message) + "\n")

    def read(self) -> None:
        """Read which jobs have ended with which codes; if the process is gone, nobody knows, and all have failed."""
        assert self.process is not None and self.process.stdout is not None
        while select.select([self.process.stdout], [], [], 0)[0]:
            words = os.read(self.process.stdout.fileno(), 1 << 16).decode()
            for line in words.splitlines():
                number, code = map(int, line.split())
                self.jobs[number].returncode = code
            if not words:
                for job in self.jobs:
                    job.returncode = 1 if job.returncode is None else job.returncode
                return


class NurseryJob:
    """A job that a nursery has been told to start; it has what the engines use of `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, number: int) -> None:
        self.nursery, self.number = nursery, number
        self.returncode: Optional[int] = None

    def poll(self) -> Optional[int]:
        """Return its exit code, or the negated signal that ended it, or None while it runs."""
        if self.returncode is None:
            self.nursery.read()
        return self.returncode

    def terminate(self) -> None:
        """Ask it to stop."""
        self.nursery.tell({"stop": self.number})


def serve() -> Optional[list[str]]:
    """Start and stop jobs as standard input asks for, and say on standard output how they end.

    Returns:
        In a job's process its arguments, to be run; in the nursery None, when there is nothing more to do.
    """
    running: dict[int, int] = {}
    begun, rest = 0, b""
    while True:
        if select.select([0], [], [], SECONDS_BETWEEN_LOOKS)[0]:
            words = os.read(0, 1 << 16)
            if not words:
                return None
            *lines, rest = (rest + words).split(b"\n")
            for message in map(json.loads, lines):
                if "stop" in message:
                    for process in [process for process, number in running.items() if number == message["stop"]]:
                        os.kill(process, signal.SIGTERM)
                    continue
                process = os.fork()
                if process == 0:
                    become_job(message["log"])
                    return message["start"]
                running[process] = begun
                begun += 1
        for process in list(running):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                os.write(1, b"%d %d\n" % (running.pop(process), os.waitstatus_to_exitcode(status)))


def become_job(log: str) -> None:
    """Give this process a session of its own, no input, and its output appended to a log."""
    os.setsid()
    with open(os.devnull, "rb") as nothing, open(log, "ab") as file:
        for stream, descriptor in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(stream.fileno(), descriptor)


def main() -> None:
    """Import the module that the command line names, and then start a job with it whenever one is asked for."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what is printed while importing is no answer
    name = sys.argv[1]
    module = import_module(name)
    module.prepare_to_be_copied()
    sys.stdout.flush()
    os.dup2(answers, 1)
    os.close(answers)
    arguments = serve()
    if arguments is not None:
        sys.argv = [name, *arguments]
        module.main()


if __name__ == "__main__":
    main()
