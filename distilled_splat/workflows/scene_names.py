"""The names of scenes, by which their runs and results are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def check_names(scenes: Sequence[Path]) -> None:
    """Refuse two scenes whose folders have the same name.

    Raises:
        ValueError: with the name.
    """
    names = [scene.resolve().name for scene in scenes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two scenes have the name {name!r}: give each once, in folders with different names.")
