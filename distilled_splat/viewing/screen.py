"""Pictures for one visitor: small while the camera moves, and larger and larger while it does not."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Optional

import numpy as np

STILL = 0.15
"""Seconds without a change before larger pictures are rendered."""
AT_ONCE = 0.06
"""Target time to render a picture while the camera moves, in seconds."""
LOWEST = 96
"""Height in pixels of the smallest picture."""
LONGEST = 3.0
"""Seconds to wait for the last picture when the program ends."""
LARGER = 2.0
"""Growth of the height from one still picture to the next. A visitor who moves again waits for at most one picture."""


class Screen:
    """Renders in its own thread after every change.

    Attributes:
        draw: renders a picture of this height in pixels, uint8 [height, W, 3].
        show: sends a picture; its second argument says whether this is the last picture until the next change.
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
        """Start to render."""
        self.thread.start()

    def changed(self) -> None:
        """Report that the scene, the controls or the camera have changed."""
        with self.news:
            self.changes += 1
            self.news.notify_all()

    def end(self) -> None:
        """Stop rendering."""
        with self.news:
            self.ended = True
            self.news.notify_all()

    def join(self) -> None:
        """Wait for the end of the last picture. A thread that renders while Python shuts down aborts the process."""
        self.thread.join(LONGEST)

    def run(self) -> None:
        """Render until `end` is called."""
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
        """Wait for a change, at most this many seconds. Return whether something changed since the last wait."""
        with self.news:
            self.news.wait_for(lambda: self.ended or self.seen != self.changes, seconds)
            moves, self.seen = self.seen != self.changes, self.changes
        return moves

    def pace(self, seconds: float, full: int) -> None:
        """Adapt the height of the pictures of a moving camera to the time that the last picture took."""
        factor = math.sqrt(AT_ONCE / max(seconds, 1e-6))
        self.quick = min(max(self.quick * min(max(factor, 0.5), 1.5), LOWEST), max(full, LOWEST))
