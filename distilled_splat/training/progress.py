"""The progress of a training: a small file that other processes read while it runs."""

from __future__ import annotations

import json
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from torch import Tensor

from distilled_splat.runs.files import write_json

PROGRESS_NAME = "progress.json"
SECONDS_BETWEEN = 1.0
"""Least time between two reports."""
WINDOW_SECONDS = 60.0
"""The time left is computed from the steps of this last time: steps get faster by pruning, and slower by growth."""


class ProgressFile:
    """Writes the progress of a training into its run folder."""

    def __init__(self, run: Path, steps: int) -> None:
        """Start without a report.

        Args:
            run: the run folder.
            steps: steps of the whole training.
        """
        self.path = run / PROGRESS_NAME
        self.steps = steps
        self.recent: deque[tuple[int, float]] = deque()

    def due(self, done: int) -> bool:
        """Return whether it is time for a report: after the first step, each second, and after the last step."""
        return not self.recent or done >= self.steps or time.monotonic() - self.recent[-1][1] >= SECONDS_BETWEEN

    def report(self, done: int, gaussians: int, psnr: Optional[Tensor]) -> None:
        """Write a report. A report that cannot be written is left out, because it must not end a training.

        Args:
            done: finished steps, including those before an interruption.
            gaussians: number of Gaussians.
            psnr: PSNR of recent photos in dB, if known.
        """
        now = time.monotonic()
        self.recent.append((done, now))
        while len(self.recent) > 2 and now - self.recent[1][1] >= WINDOW_SECONDS:
            self.recent.popleft()
        pace = self.pace()
        content = {
            "step": done,
            "steps": self.steps,
            "seconds_left": None if pace is None else round(pace * (self.steps - done), 1),
            "gaussians": gaussians,
            "psnr": None if psnr is None else round(float(psnr), 2),
        }
        with suppress(OSError):
            write_json(self.path, content, lasting=False)

    def pace(self) -> Optional[float]:
        """Return the seconds of a recent step; None after the first step, which also loads the kernels."""
        (first, began), (last, now) = self.recent[0], self.recent[-1]
        return (now - began) / (last - first) if last > first else None


def read_progress(run: Path) -> dict[str, Any]:
    """Return a run's last progress report; empty if there is none."""
    try:
        return json.loads((run / PROGRESS_NAME).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
