"""How a command and the processes that it starts stop: together, after saving, with a code that says so."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

PARENT_VARIABLE = "DISTILLED_SPLAT_PARENT"
"""Environment variable with the process that started this one; training stops, saved, when that process is gone."""
EXIT_INTERRUPTED = 130


def is_started_by_us() -> bool:
    """Say whether one of our commands started this process."""
    return PARENT_VARIABLE in os.environ


def is_orphan() -> bool:
    """Say whether the command that started this process is gone."""
    return is_started_by_us() and os.getppid() != int(os.environ[PARENT_VARIABLE])


class interrupts_call:
    """Within this context, the first Ctrl-C or SIGTERM calls `stop(reason)`; a second one acts as usual."""

    def __init__(self, stop: Any) -> None:
        self.stop = stop
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
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
