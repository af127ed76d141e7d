"""Pictures for one visitor: small ones while the camera moves, ever larger ones when it stands still."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Optional

import numpy as np

STILL = 0.15
"""Seconds without a change after which larger pictures are rendered."""
AT_ONCE = 0.06
"""Seconds that a picture of a moving camera may take."""
LOWEST = 96
"""Height in pixels of the smallest picture."""
LARGER = 2.0
"""Factor from one picture of a still camera to the next: a visitor who moves again waits for one of them at most."""


class Screen:
    """Renders in a thread of its own, whenever something has changed.

    Attributes:
        draw: renders a picture of a height in pixels, uint8 [height, W, 3].
        show: hands a picture on, and whether it is the last one until something changes.
        full: returns the height of the last picture.
    """

    def __init__(
        self, draw: Callable[[int], np.ndarray], show: Callable[[np.ndarray, bool], None], full: Callable[[], int]
    ) -> None:
        self.draw, self.show, self.full = draw, show, full
        self.news = threading.Condition()
        self.changes, self.seen, self.ended = 1, 0, False
        self.quick = 4.0 * LOWEST
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self) -> None:
        """Begin to render."""
        self.thread.start()

    def changed(self) -> None:
        """Say that what was shown is no longer what is to be seen."""
        with self.news:
            self.changes += 1
            self.news.notify_all()

    def end(self) -> None:
        """Render no more."""
        with self.news:
            self.ended = True
            self.news.notify_all()

    def run(self) -> None:
        """Render until the end."""
        height = 0
        while not self.ended:
            full = self.full()
            moves = self.wait(STILL if height < full else None)
            if self.ended:
                return
            height = min(round(self.quick if moves else LARGER * height), full)
            began = time.monotonic()
            self.show(self.draw(height), height >= full)
            if moves:
                self.pace(time.monotonic() - began, full)

    def wait(self, seconds: Optional[float]) -> bool:
        """Wait for a change, at most so many seconds, and tell whether there was one since the last wait."""
        with self.news:
            self.news.wait_for(lambda: self.ended or self.seen != self.changes, seconds)
            moves, self.seen = self.seen != self.changes, self.changes
        return moves

    def pace(self, seconds: float, full: int) -> None:
        """Make the pictures of a moving camera smaller or larger, by how long the last one took."""
        factor = math.sqrt(AT_ONCE / max(seconds, 1e-6))
        self.quick = min(max(self.quick * min(max(factor, 0.5), 1.5), LOWEST), max(full, LOWEST))
