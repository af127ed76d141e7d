"""A run folder's record: the fingerprint of its settings, whether the run is finished, and facts that a student
needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from distilled_splat.runs.files import read_text, write_json

RECORD_NAME = "distilled_splat.json"


def read_record(run: Path) -> dict[str, Any]:
    """Return a run folder's record; empty if the run is not one of ours or the record cannot be read."""
    try:
        content = json.loads(read_text(run / RECORD_NAME))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def update_record(run: Path, **entries: Any) -> None:
    """Add entries to a run folder's record."""
    write_json(run / RECORD_NAME, {**read_record(run), **entries})


def is_run_of(record: Mapping[str, Any], fingerprint: str) -> bool:
    """Return whether a run was begun with these settings, or has them in its config.yml now."""
    return fingerprint in (record.get("fingerprint"), record.get("noted_fingerprint"))


def is_of_an_older_version(record: Mapping[str, Any]) -> bool:
    """Return whether the record is from an older version of this package, with settings in another form."""
    return "fingerprint" not in record and isinstance(record.get("settings"), str)


def runs_in(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the runs in a method's folder with their records, the newest run first."""
    if folder.is_dir():
        for run in sorted((path for path in folder.iterdir() if path.is_dir()), reverse=True):
            yield run, read_record(run)


def unfinished_run(folder: Path, fingerprint: str) -> Optional[Path]:
    """Return the newest unfinished run in a method's folder that was begun with these settings, or None."""
    for run, record in runs_in(folder):
        if is_run_of(record, fingerprint):
            return None if record.get("finished") else run
    return None


def runs_of_an_older_version(folder: Path, finished: bool) -> list[Path]:
    """Return the finished (or the unfinished) runs of an older version in a method's folder, oldest first.

    Whether they have the same settings cannot be determined.
    """
    return [
        run
        for run, record in runs_in(folder)
        if is_of_an_older_version(record) and bool(record.get("finished")) == finished
    ][::-1]


def differences(settings: Mapping[str, Any], others: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the command line's names of the options in which two runs differ, from their `settings_of`."""
    found: list[str] = []
    for name in dict.fromkeys((*settings, *others)):
        ours, theirs = settings.get(name), others.get(name)
        if isinstance(ours, Mapping) or isinstance(theirs, Mapping):
            parts = (part if isinstance(part, Mapping) else {} for part in (ours, theirs))
            found += differences(*parts, prefix=f"{prefix}{name}.")
        elif ours != theirs:
            found.append(f"--{prefix}{name}".replace("_", "-"))
    return found
