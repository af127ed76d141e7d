"""The teachers of a student: finds the trained ones, and trains the missing ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.jobs.command import last_words
from distilled_splat.jobs.graph import Job, Schedule, State
from distilled_splat.jobs.local import Slot, machine_slots, run_local
from distilled_splat.ops.processor import num_threads
from distilled_splat.runs.checkpoints import latest_checkpoint
from distilled_splat.runs.processes import EXIT_INTERRUPTED
from distilled_splat.runs.record import runs_of_an_older_version
from distilled_splat.training.trainer import ResumableTrainerConfig
from distilled_splat.workflows.progress import Progress
from distilled_splat.workflows.teacher_configs import teacher_configs
from distilled_splat.workflows.training_jobs import prepare, training_job


def ensure_teachers(student: Any, job: Job) -> tuple[tuple[Path, ...], Progress]:
    """Return a student's teachers: those named in its config, or else one of each wanted kind, trained if missing.

    Args:
        student: the student's config (`distill.DistilledTrainerConfig`), step numbers not yet scaled to the run.
        job: the student's training; the progress display shows it with the teachers.

    Returns:
        Absolute paths of the teachers, and the progress display, in which the student's training continues.

    Raises:
        SystemExit: if the data cannot be read, or a training fails, is interrupted or runs in another process.
    """
    given: tuple[Path, ...] = student.pipeline.model.teachers
    configs = [] if given else teacher_configs(student)
    jobs = teacher_jobs(configs)
    try:
        slots = machine_slots(student.machine.device_type, num_threads(), student.teacher_slots)
    except ValueError as error:
        raise SystemExit(f"--teacher-slots: {error}") from None
    progress = Progress([*jobs, replace(job, needs=tuple(each.name for each in jobs))], len(slots))
    if configs:
        train_teachers(configs, jobs, slots, progress)
    folders = given or [config.get_base_dir() for config in configs]
    return tuple(path.expanduser().absolute() for path in folders), progress


def teacher_jobs(configs: Sequence[ResumableTrainerConfig]) -> list[Job]:
    """Return the jobs that train teachers."""
    kinds: list[Any] = [config.pipeline.model for config in configs]
    return [
        training_job(f"Teacher {place} of {len(configs)}, {kind.variant}", config)
        for place, (kind, config) in enumerate(zip(kinds, configs), start=1)
    ]


def train_teachers(
    configs: Sequence[ResumableTrainerConfig], jobs: Sequence[Job], slots: Sequence[Slot], progress: Progress
) -> None:
    """Train the missing teachers, as many at a time as there are slots.

    Args:
        configs: the teachers.
        jobs: the training of each teacher.
        slots: the slots to train in.
        progress: the progress display.

    Raises:
        SystemExit: if a training fails, is interrupted (after it has saved), or already runs in another process.
    """
    for config, job in zip(configs, jobs):
        if not job.done():
            prepare(config)
    done = [job.name for job in jobs if job.done()]  # again: a training in another process may have finished meanwhile
    for config, job in zip(configs, jobs):
        if job.name in done:
            CONSOLE.print(f"Teacher {config.timestamp} is already trained: {config.get_base_dir()}")
    if len(done) < len(jobs):
        tell_of_older_teachers(configs[0].get_base_dir().parent)
    schedule = Schedule(jobs, done, keep_going=False)
    with progress:
        reason = run_local(schedule, slots, progress)
    unfinished = "this teacher from its last checkpoint" if len(slots) == 1 else "these teachers from their last ones"
    if reason:
        CONSOLE.print(f"Stopped by {reason}. The same command resumes {unfinished}.")
        raise SystemExit(EXIT_INTERRUPTED)
    for number, (config, job) in enumerate(zip(configs, jobs), start=1):
        if schedule.states[job.name] is State.FAILED:
            raise SystemExit(
                f"Teacher {number} of {len(jobs)} ({config.timestamp}) failed with exit code "
                f"{progress.codes[job.name]}: {last_words(job, 1)} Its log is {job.log}. {what_to_do_after(config)}"
            )


def tell_of_older_teachers(folder: Path) -> None:
    """Print how to use finished teachers of an older version in a folder instead of new ones."""
    runs = runs_of_an_older_version(folder, finished=True)
    if runs:
        CONSOLE.print(
            f"{folder} has teachers of an older distilled-splat. This version cannot compare their options, so it "
            f"trains new ones. To use the old ones: --pipeline.model.teachers {' '.join(str(run) for run in runs)}",
            soft_wrap=True, markup=False,
        )  # fmt: skip


def what_to_do_after(failed: ResumableTrainerConfig) -> str:
    """Return what to do after the training of a teacher has failed."""
    if latest_checkpoint(failed.get_checkpoint_dir()) is None:
        return "Repair this and run the same command again."
    return "The same command resumes from its last checkpoint."
