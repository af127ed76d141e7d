"""Find the data and the teachers that a run names, when all of it has been moved or copied elsewhere together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from nerfstudio.engine.trainer import TrainerConfig


@dataclass(frozen=True)
class Whereabouts:
    """Where a run lay when it was trained, and where it lies now.

    Attributes:
        then: the run's folder in training; None where that is not known.
        started_in: the folder that its command was started in; None where that is not known, or does not matter.
        now: the run's folder now.
    """

    then: Optional[Path]
    started_in: Optional[Path]
    now: Path

    @staticmethod
    def of(config: TrainerConfig, record: dict[str, Any], now: Path) -> Whereabouts:
        """Tell from a run's config and record."""
        named = config.get_base_dir()
        noted = record.get("folder")
        then = Path(noted) if isinstance(noted, str) else named if named.is_absolute() else None
        started_in = None
        if then is not None and not named.is_absolute() and then.parts[-len(named.parts) :] == named.parts:
            started_in = then.parents[len(named.parts) - 1]
        return Whereabouts(then, started_in, now.absolute())

    def find(self, path: Path) -> Path:
        """Return where a file or folder is that the run names: there, or in the same place beside the run.

        Where it is in neither, the path is returned as it was.
        """
        path = path.expanduser()
        if path.exists() or self.then is None:
            return path
        whole = path if path.is_absolute() or self.started_in is None else self.started_in / path
        if not whole.is_absolute():
            return path
        beside = Path(os.path.normpath(self.now / os.path.relpath(whole, self.then)))
        return beside if beside.exists() else path
