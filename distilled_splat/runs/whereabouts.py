"""Finds a run's data and teachers after the run, its data and its teachers were moved or copied together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from nerfstudio.engine.trainer import TrainerConfig


@dataclass(frozen=True)
class Whereabouts:
    """A run's folder in training, and its folder now.

    Attributes:
        then: the run's folder in training; None if it is not known.
        started_in: the folder in which the command was started; None if it is not known or does not matter.
        now: the run's folder now.
    """

    then: Optional[Path]
    started_in: Optional[Path]
    now: Path

    @staticmethod
    def of(config: TrainerConfig, record: dict[str, Any], now: Path) -> Whereabouts:
        """Read the folders from a run's config and record."""
        named = config.get_base_dir()
        noted = record.get("folder")
        then = Path(noted) if isinstance(noted, str) else named if named.is_absolute() else None
        started_in = None
        if then is not None and not named.is_absolute() and then.parts[-len(named.parts) :] == named.parts:
            started_in = then.parents[len(named.parts) - 1]
        return Whereabouts(then, started_in, now.absolute())

    def find(self, path: Path) -> Path:
        """Return where a path of the run's config exists: at this path, or at the same place relative to the run.

        A relative path is first taken relative to the run: the current folder may hold other files of that name. If it
        exists at neither, return the path unchanged.
        """
        path = path.expanduser()
        if self.then is None or (path.is_absolute() and path.exists()):
            return path
        whole = path if path.is_absolute() or self.started_in is None else self.started_in / path
        if not whole.is_absolute():
            return path
        beside = Path(os.path.normpath(self.now / os.path.relpath(whole, self.then)))
        return beside if beside.exists() else path
