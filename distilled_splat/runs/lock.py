"""The lock of a run folder: one process at a time may write, and a refused run leaves no folder behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from distilled_splat.runs.faults import writing_to
from distilled_splat.runs.processes import EXIT_INTERRUPTED

SECONDS_FOR_AN_ORPHAN = 30
"""Time for a training to save and exit after its command was killed."""
LOCKS: dict[Path, FileLock] = {}
"""The locks of this process. A run's lock is held from before its first write until its training has ended."""
MADE: set[Path] = set()
"""The run folders that this process has made; nobody else has files in them."""


def lock_run(run: Path, patience: float = 0) -> FileLock:
    """Keep other processes from training in a run folder until the lock has been released as often as it was taken.

    Args:
        run: the folder; it is made if missing.
        patience: seconds to wait for another process to leave the folder.

    Raises:
        SystemExit: if another process trains in the folder, or nothing can be written to it.
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
    """Remove the folder of a run that is refused before its first step, if this process has made the folder.

    A folder with a checkpoint always stays.
    """
    try:
        yield
    except SystemExit as refused:
        is_new = run.absolute() in MADE and not any(run.rglob("*.ckpt"))
        if is_new and refused.code != EXIT_INTERRUPTED:
            shutil.rmtree(run, ignore_errors=True)
        raise
