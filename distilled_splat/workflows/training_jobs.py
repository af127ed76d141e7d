"""A training as a job: its command, its result, and the files that must exist before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml
from nerfstudio.engine.trainer import TrainerConfig

from distilled_splat.jobs.graph import Job
from distilled_splat.runs.faults import writing_to
from distilled_splat.runs.files import write_beside
from distilled_splat.runs.fingerprints import settings_fingerprint, settings_of
from distilled_splat.runs.lock import SECONDS_FOR_AN_ORPHAN, lock_run
from distilled_splat.runs.record import read_record, update_record

LOG_NAME = "training.log"
CONFIG_NAME = "training.yml"
TRAIN = "distilled_splat.workflows.train"
"""Module that our commands run to train, each time in a process of its own."""


def is_finished(run: Path) -> bool:
    """Return whether the training in a run folder is finished."""
    return bool(read_record(run).get("finished"))


def training_job(name: str, config: TrainerConfig, needs: Sequence[str] = ()) -> Job:
    """Return the job that trains a config as `ns-train` does, in the config's run folder.

    Args:
        name: name of the job.
        config: the config; its experiment name and timestamp are set.
        needs: names of the jobs that must be done first.
    """
    assert config.method_name is not None
    run = config.get_base_dir()
    command = ("-m", TRAIN, config.method_name, "--load-config", str(run / CONFIG_NAME))
    done = partial(is_finished, run)
    return Job(name, command, run / LOG_NAME, done, tuple(needs), config.max_num_iterations)


def prepare(config: TrainerConfig) -> None:
    """Write the config for its job, and let it resume what was begun in its folder.

    The folder's name determines the result of the run; see `fingerprints.outcome_fingerprint`.

    Raises:
        SystemExit: if another process trains in the run folder and does not leave soon, or nothing can be written.
    """
    run = config.get_base_dir()
    lock_run(run, SECONDS_FOR_AN_ORPHAN).release()
    with writing_to(run):
        if read_record(run):
            # the data may have moved; the run's name covers everything else that determines its result
            update_record(run, fingerprint=settings_fingerprint(config), settings=settings_of(config))
        write_beside(run / CONFIG_NAME, lambda path: path.write_text(yaml.dump(config), encoding="utf8"))
