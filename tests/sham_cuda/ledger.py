"""What the sham device writes down: by which line of which file the host may have to wait for the device."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

MACHINERY = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
CHECKS = "check_"
PACKAGES = "site-packages/"


class Wait(NamedTuple):
    """One reason for the host to wait.

    Attributes:
        kind: what was done, for instance "item" or "upload".
        place: the line that did it, as file:line.
    """

    kind: str
    place: str


class Ledger:
    """Counts of waits, and the bytes that were copied with them, since the last `clear`."""

    def __init__(self) -> None:
        self.waits: Counter[Wait] = Counter()
        self.bytes: Counter[Wait] = Counter()

    def clear(self) -> None:
        """Forget everything."""
        self.waits.clear()
        self.bytes.clear()

    def note(self, kind: str, size: int = 0) -> None:
        """Count one wait, of the line that is being run, and the bytes that are copied by it."""
        wait = Wait(kind, calling_line())
        self.waits[wait] += 1
        self.bytes[wait] += size

    def per_step(self, steps: int) -> float:
        """Return how often the host waited in each of so many steps."""
        return sum(self.waits.values()) / steps

    def table(self, steps: int) -> str:
        """Return every line that waited, with its count and its bytes per step, the most frequent first."""
        rows = [
            f"{count / steps:8.2f} {self.bytes[wait] / steps:12.0f} B  {wait.kind:16} {wait.place}"
            for wait, count in self.waits.most_common()
        ]
        return "\n".join(["   waits        bytes    kind             line, per step", *rows])


def calling_line() -> str:
    """Return the innermost line outside torch and the sham device, as file:line; installed files without their root."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith((*MACHINERY, "<")) or Path(path).name.startswith(CHECKS):
            return f"{path.rpartition(PACKAGES)[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


LEDGER = Ledger()
"""The ledger of this process's sham device."""
