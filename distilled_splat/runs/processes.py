"""How a command and the processes that it starts stop: together, after saving, with a code that says so."""

from __future__ import annotations

import os
import signal
import threading
from functools import cache
from typing import Any, Optional

import psutil

PARENT_VARIABLE = "DISTILLED_SPLAT_PARENT"
"""Environment variable with the process that started this one; training stops, saved, when that process is gone."""
EXIT_INTERRUPTED = 130


def is_started_by_us() -> bool:
    """Say whether one of our commands started this process."""
    return PARENT_VARIABLE in os.environ


def is_orphan() -> bool:
    """Say whether the command that started this process is gone.

    Between the two there may be a launcher, such as python.exe of a virtual environment on Windows.
    """
    if not is_started_by_us():
        return False
    starter = ancestor(int(os.environ[PARENT_VARIABLE]))
    return starter is None or not is_alive(starter)


@cache
def ancestor(number: int) -> Optional[psutil.Process]:
    """Return the process of that number among those that this one descends from, or None.

    psutil tells it by the time of its creation from a later process to which the system has given the same number.
    """
    return next((process for process in psutil.Process().parents() if process.pid == number), None)


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process is there, and has not ended without anybody asking for its code."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class interrupts_call:
    """Within this context, the first Ctrl-C or SIGTERM calls `stop(reason)`; a second one acts as usual.

    On Windows so does Ctrl-Break, by which a command asks the processes that it has started to stop.
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
        """Pass the first signal on as a request, and give the next ones back to their former handlers."""
        self.restore()
        self.stop(signal.Signals(number).name)

    def restore(self) -> None:
        """Put the former handlers back."""
        while self.previous:
            signal.signal(*self.previous.popitem())

    def __exit__(self, *exception: object) -> None:
        self.restore()
