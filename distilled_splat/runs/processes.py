"""How a command and its child processes stop: together, after saving, with an exit code of its own."""

from __future__ import annotations

import os
import signal
import threading
from functools import cache
from typing import Any, Optional

import psutil

PARENT_VARIABLE = "DISTILLED_SPLAT_PARENT"
"""Environment variable with the id of the parent process. When the parent is gone, a training saves and stops."""
EXIT_INTERRUPTED = 130


def is_started_by_us() -> bool:
    """Return whether one of our commands started this process."""
    return PARENT_VARIABLE in os.environ


def child_environment() -> dict[str, str]:
    """Return the environment of a child process that saves and stops when this process is gone."""
    return {**os.environ, PARENT_VARIABLE: str(os.getpid())}


def is_orphan() -> bool:
    """Return whether the command that started this process is gone.

    The command need not be the direct parent: python.exe of a virtual environment on Windows starts another process.
    """
    if not is_started_by_us():
        return False
    starter = ancestor(int(os.environ[PARENT_VARIABLE]))
    return starter is None or not is_alive(starter)


@cache
def ancestor(number: int) -> Optional[psutil.Process]:
    """Return the ancestor of this process with this process id, or None.

    If the system has given the id to a later process, psutil notices it by the time of creation.
    """
    return next((process for process in psutil.Process().parents() if process.pid == number), None)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process is running; a zombie (ended, its exit code not yet read) is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class interrupts_call:
    """Within this context, the first Ctrl-C or SIGTERM calls `stop(reason)`; a second one acts as usual.

    On Windows, Ctrl-Break does the same: a command sends it to its child processes to stop them.
    """

    def __init__(self, stop: Any) -> None:
        self.stop = stop
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        names = ("SIGINT", "SIGTERM", "SIGBREAK")
        for number in [getattr(signal, name) for name in names if hasattr(signal, name)]:
            self.previous[number] = signal.signal(number, self.handle)

    def handle(self, number: int, frame: Any) -> None:
        """Restore the previous handlers, and pass this first signal on to `stop`."""
        self.restore()
        self.stop(signal.Signals(number).name)

    def restore(self) -> None:
        """Restore the previous handlers."""
        while self.previous:
            signal.signal(*self.previous.popitem())

    def __exit__(self, *exception: object) -> None:
        self.restore()
