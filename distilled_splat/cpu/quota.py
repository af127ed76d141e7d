"""The share of the processors that a container or a cluster's queue allows: Linux control groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Optional


def allowed_processors(root: Path = Path("/")) -> Optional[int]:
    """Return how many processors' time this process may use, rounded up, or None where nothing is limited.

    Args:
        root: what stands for the root of the file system.
    """
    shares = [share for folder in control_groups(root) if (share := share_of(folder)) is not None]
    return max(math.ceil(min(shares)), 1) if shares else None


def control_groups(root: Path) -> Iterator[Path]:
    """Go through the folders of the groups that limit this process: its own, and all above it.

    A container sees its own group as the topmost one, or else under the name that the host gives it.
    """
    mounted = root / "sys" / "fs" / "cgroup"
    for line in lines_of(root / "proc" / "self" / "cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = mounted / controllers  # without a name in version 2
        inside = PurePosixPath(name.lstrip("/"))
        yield from (folder / group for group in (inside, *inside.parents))


def share_of(folder: Path) -> Optional[float]:
    """Return the processors' time that one group allows, in processors, or None without a limit."""
    in_version_2 = lines_of(folder / "cpu.max")
    if in_version_2:
        quota, period = in_version_2[0].split()
    else:
        found = [lines_of(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if not all(found):
            return None
        quota, period = (lines[0] for lines in found)
    return None if quota in ("max", "-1") else int(quota) / int(period)


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file of the system, none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
