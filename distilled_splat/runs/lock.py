"""Who may write into a run folder: one process at a time, which takes the folder away again if the run is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from distilled_splat.runs.faults import writing_to
from distilled_splat.runs.processes import EXIT_INTERRUPTED

SECONDS_FOR_AN_ORPHAN = 30
"""How long a training whose command was killed may take to save and leave."""
LOCKS: dict[Path, FileLock] = {}
"""The locks of this process, which holds a run's from before it first writes there until its training has ended."""
MADE: set[Path] = set()
"""The run folders that this process has made, in which there is nothing of anybody else's."""


def lock_run(run: Path, patience: float = 0) -> FileLock:
    """Keep other processes from training in a run folder until the lock is released, as often as it was taken.

    Args:
        run: the folder; it is made.
        patience: seconds to wait for another process to leave it.

    Raises:
        SystemExit: if another process trains there, or nothing can be written there.
    """
    lock = LOCKS.setdefault(run.absolute(), FileLock(run / ".lock"))
    try:
        with writing_to(run):
            if not run.exists():
                run.mkdir(parents=True)
                MADE.add(run.absolute())
            lock.acquire(timeout=patience)
    except Timeout:
        raise SystemExit(f"Another process is training in {run}: wait for it, or stop it.") from None
    return lock


@contextmanager
def leaving_nothing_if_refused(run: Path) -> Iterator[None]:
    """Take away the folder of a run that is refused before its first step, if this process has made it.

    A folder with a checkpoint stays, whatever is refused there.
    """
    try:
        yield
    except SystemExit as refused:
        is_new = run.absolute() in MADE and not any(run.rglob("*.ckpt"))
        if is_new and refused.code != EXIT_INTERRUPTED:
            shutil.rmtree(run, ignore_errors=True)
        raise
