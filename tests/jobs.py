"""Small jobs for tests of the engines: Python one-liners that leave a file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from distilled_splat.jobs.graph import Job

PATIENCE = 60
"""Seconds after which a job that waits for others gives up."""


def script_job(folder: Path, name: str, code: str = "", needs: tuple[str, ...] = ()) -> Job:
    """Return a job that runs Python code in which `here` is its folder, and then leaves the file `<name>.done`."""
    script = (
        f"import os, pathlib, sys, time; here = pathlib.Path({str(folder)!r}); name = {name!r}\n"
        f"with open(here / 'begun', 'a') as begun: begun.write(name + '\\n')\n"
        f"{code}\n(here / (name + '.done')).touch()\n"
    )
    mark = folder / f"{name}.done"
    return Job(name, ("-c", script), folder / f"{name}.log", mark.exists, needs)


def waits_for(count: int) -> str:
    """Return code of a job that ends only when so many such jobs run at the same time."""
    return (
        "(here / (name + '.here')).touch()\n"
        f"end = time.monotonic() + {PATIENCE}\n"
        f"while len(list(here.glob('*.here'))) < {count}:\n"
        "    assert time.monotonic() < end\n"
        "    time.sleep(0.01)"
    )


def begun(folder: Path) -> list[str]:
    """Return the names of the jobs that were begun, once for each time."""
    path = folder / "begun"
    return path.read_text().splitlines() if path.exists() else []


class Record:
    """Keeps what an engine tells."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.codes: dict[str, int] = {}

    def begun(self, job: Job) -> None:
        self.events.append(("begun", job.name))

    def look(self) -> None:
        pass

    def ended(self, job: Job, code: int) -> None:
        self.events.append(("ended", job.name))
        self.codes[job.name] = code


def saves_when_stopped(seconds: float = 0.0) -> str:
    """Return code of a job that is never done the first time, and takes so long to save when it is told to stop."""
    return (
        "import signal\n"
        f"save = lambda *_: (time.sleep({seconds}), (here / 'saved').touch(), sys.exit(130))\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "if not (here / 'saved').exists():\n"
        f"    (here / 'ready').touch(); time.sleep({PATIENCE})"
    )


class CtrlC(Record):
    """Presses Ctrl-C as soon as there is a file."""

    def __init__(self, wanted: Path) -> None:
        super().__init__()
        self.wanted, self.pressed = wanted, False

    def look(self) -> None:
        if self.wanted.exists() and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)
