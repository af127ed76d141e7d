"""Choose a training's run folder: a new one, or that of the interrupted run that it resumes."""

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
    """Name the run, and lock its folder before anything is written there.

    Args:
        config: config of the training. Its timestamp is set; so is its `load_dir` if an interrupted run of the same
            settings is resumed.
        set_timestamp: nerfstudio's function, which names a new run.

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
    while is_new and config.get_base_dir().exists():  # another run was started in the same second
        time.sleep(0.1)
        config.timestamp = "{timestamp}"
        set_timestamp()

    run = config.get_base_dir()
    # a training whose command was killed may still be saving here
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
    """Return why a run cannot train in its folder, in one sentence; None if it can.

    Args:
        config: config of the run, with its name set.
        fingerprint: fingerprint of its settings.
        loads: whether it starts from a checkpoint in another folder.
    """
    run = config.get_base_dir()
    record = read_record(run)
    if record.get("finished"):
        return f"{run} is a finished run: give another --timestamp, or remove that folder first."
    if latest_checkpoint(config.get_checkpoint_dir()) is None or (is_run_of(record, fingerprint) and not loads):
        return None
    others = record.get("settings")
    differing = differences(others, settings_of(config)) if isinstance(others, dict) else []
    which = f" ({', '.join(differing)})" if differing else ""
    return (
        f"{run} is an interrupted run with other settings{which}: give another --timestamp, or resume that run with "
        f"its own command: {record.get('command', '(not recorded)')}"
    )


def tell_of_an_older_version(config: TrainerConfig) -> None:
    """Print that unfinished runs of an older version are not resumed, if there are any."""
    folder = config.get_base_dir().parent
    runs = runs_of_an_older_version(folder, finished=False)
    if runs:
        CONSOLE.print(
            f"{folder} has unfinished runs of an older distilled-splat ({', '.join(run.name for run in runs)}), "
            "which this version cannot resume: a new run starts. Resume them with that version, or remove their "
            "folders.",
            soft_wrap=True, markup=False,
        )  # fmt: skip


def begin_record(config: TrainerConfig) -> None:
    """Write the record that identifies an interrupted run, unless the folder already has this run's."""
    run, fingerprint = config.get_base_dir(), settings_fingerprint(config)
    if not is_run_of(read_record(run), fingerprint):
        command = shlex.join(["ns-train", *sys.argv[1:]])
        record = {"fingerprint": fingerprint, "settings": settings_of(config)}
        write_json(run / RECORD_NAME, {**record, "finished": False, "command": command})
