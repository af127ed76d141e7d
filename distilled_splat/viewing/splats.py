"""The splats to show: read from files and runs, and moved into one unit frame on the device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.splat.files import KINDS
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.teachers.reading import CONFIG, Teacher, read_teacher

WHAT_TO_GIVE = f"a run's folder or config.yml, or {KINDS}"


@dataclass(frozen=True)
class Shown:
    """One splat to show.

    Attributes:
        name: a unique name.
        gaussians: in the unit frame, on the device that renders.
        antialiased: whether the splat is rendered antialiased.
    """

    name: str
    gaussians: Gaussians
    antialiased: bool

    @property
    def words(self) -> str:
        """A description in one line of Markdown."""
        return f"**{escaped(self.name)}** {len(self.gaussians):,} Gaussians of degree {self.gaussians.sh_degree}"


def escaped(text: str) -> str:
    """Return text that viser's Markdown shows as it is. Its Markdown is MDX, which would run what is in braces."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def read_all(paths: Sequence[Path]) -> list[Teacher]:
    """Read files and runs as data, without running any code in them.

    Raises:
        ValueError: if there are none, or one of them cannot be read.
    """
    if not paths:
        raise ValueError(f"No splat is given: give {WHAT_TO_GIVE}.")
    for path in paths:
        if not path.expanduser().exists():
            raise ValueError(f"{path} does not exist: give {WHAT_TO_GIVE}.")
    return [read_teacher(path) for path in paths]


def shown(splats: Sequence[Teacher], names: Sequence[str], frame: UnitFrame, device: torch.device) -> list[Shown]:
    """Move splats of one scene into a unit frame and onto a device. They keep their relative places."""
    return [
        Shown(name, frame.into(splat.gaussians).to(device), splat.antialiased) for name, splat in zip(names, splats)
    ]


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each path, with as many parent folders as are needed to make the names differ."""
    whole = [(path.parent if path.name == CONFIG else path).expanduser().absolute() for path in paths]
    for length in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-length:]) for path in whole]
        if len(set(names)) == len(set(whole)):
            break
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]
