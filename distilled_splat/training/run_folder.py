"""The folder that a training gets: a new one, or that of the interrupted run that it resumes."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from typing import Optional

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.runs.checkpoints import latest_checkpoint
from distilled_splat.runs.files import write_json
from distilled_splat.runs.fingerprints import settings_fingerprint, settings_of
from distilled_splat.runs.lock import SECONDS_FOR_AN_ORPHAN, lock_run
from distilled_splat.runs.processes import is_started_by_us
from distilled_splat.runs.record import (
    RECORD_NAME,
    differences,
    is_run_of,
    read_record,
    runs_of_an_older_version,
    unfinished_run,
)


def take_folder(config: TrainerConfig, set_timestamp: Callable[[], None]) -> None:
    """Name the run, and keep other processes out of its folder before anything is written there.

    Args:
        config: of the training. Its timestamp is set, and where an interrupted run of the same settings is resumed, its
            `load_dir` as well.
        set_timestamp: nerfstudio's own, which names a new run.

    Raises:
        SystemExit: if another process trains in the folder, or if it holds a finished run, or an interrupted one of
            other settings.
    """
    fingerprint = settings_fingerprint(config)
    loads = config.load_dir is not None or config.load_checkpoint is not None
    if config.timestamp == "{timestamp}" and not loads:
        interrupted = unfinished_run(config.get_base_dir().parent, fingerprint)
        if interrupted is not None:
            config.timestamp = interrupted.name
        else:
            tell_of_an_older_version(config)
    is_new = config.timestamp == "{timestamp}"
    set_timestamp()
    while is_new and config.get_base_dir().exists():  # another run was begun in the same second
        time.sleep(0.1)
        config.timestamp = "{timestamp}"
        set_timestamp()

    run = config.get_base_dir()
    # what trained here for a command that was killed may not have saved yet
    lock = lock_run(run, SECONDS_FOR_AN_ORPHAN if is_started_by_us() else 0)
    checkpoint = latest_checkpoint(config.get_checkpoint_dir())
    if config.load_dir is not None and config.load_step is None and checkpoint is not None:
        loads = config.load_dir.resolve() != checkpoint.parent.resolve()
    fault = fault_of_folder(config, fingerprint, loads)
    if fault is not None:
        lock.release(force=True)
        raise SystemExit(fault)
    if checkpoint is not None:
        config.load_dir = checkpoint.parent
        CONSOLE.print(f"Resuming the interrupted run {run} from {checkpoint.name}.")


def fault_of_folder(config: TrainerConfig, fingerprint: str, loads: bool) -> Optional[str]:
    """Return why a run cannot train in its folder, in one sentence, or None if it can.

    Args:
        config: of the run, which has its name.
        fingerprint: of its settings.
        loads: whether it begins with a checkpoint that lies elsewhere.
    """
    run = config.get_base_dir()
    record = read_record(run)
    if record.get("finished"):
        return f"{run} holds a finished run: give another --timestamp, or remove that folder first."
    if latest_checkpoint(config.get_checkpoint_dir()) is None or (is_run_of(record, fingerprint) and not loads):
        return None
    others = record.get("settings")
    differing = differences(others, settings_of(config)) if isinstance(others, dict) else []
    which = f" ({', '.join(differing)})" if differing else ""
    return (
        f"{run} holds an interrupted run of other settings{which}: give another --timestamp, or resume that run by its "
        f"own command: {record.get('command', 'it has noted none')}"
    )


def tell_of_an_older_version(config: TrainerConfig) -> None:
    """Say that runs of an older version are not resumed, where there are some that are not finished."""
    folder = config.get_base_dir().parent
    runs = runs_of_an_older_version(folder, finished=False)
    if runs:
        CONSOLE.print(
            f"{folder} holds unfinished runs of an older distilled-splat ({', '.join(run.name for run in runs)}), "
            "which this version cannot resume: a new run begins. Resume them with that version, or remove their "
            "folders.",
            soft_wrap=True, markup=False,
        )  # fmt: skip


def begin_record(config: TrainerConfig) -> None:
    """Write the record by which an interrupted run is known again, unless the folder has this run's already."""
    run, fingerprint = config.get_base_dir(), settings_fingerprint(config)
    if not is_run_of(read_record(run), fingerprint):
        command = shlex.join(["ns-train", *sys.argv[1:]])
        record = {"fingerprint": fingerprint, "settings": settings_of(config)}
        write_json(run / RECORD_NAME, {**record, "finished": False, "command": command})
