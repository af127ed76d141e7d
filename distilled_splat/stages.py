"""One command for everything: train the teachers that are missing, then the student."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Optional

import yaml
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.agreement import TeacherFrame
from distilled_splat.checkpoints import write_beside
from distilled_splat.faults import writing_to
from distilled_splat.jobs.command import last_words
from distilled_splat.jobs.graph import Job, Schedule, State
from distilled_splat.jobs.local import Slot, machine_slots, run_local
from distilled_splat.optimizers import splat_optimizers
from distilled_splat.photos import check_photos, reading_data
from distilled_splat.processes import EXIT_INTERRUPTED
from distilled_splat.progress import Progress
from distilled_splat.runs import digest, plain, scene_fingerprint, update_record
from distilled_splat.splatfacto import PortableSplatfactoModelConfig
from distilled_splat.student import DistilledModelConfig
from distilled_splat.teachers import VARIANTS, TeacherModelConfig
from distilled_splat.trainer import ResumableTrainer, ResumableTrainerConfig
from distilled_splat.training_jobs import prepare, training_job

TEACHER_METHOD = "splatfacto-teacher"


@dataclass
class DistilledTrainerConfig(ResumableTrainerConfig):
    """A student's training, with that of its teachers before it where there are none."""

    _target: type = field(default_factory=lambda: DistilledTrainer)
    teacher_iterations: Optional[int] = None
    """Steps to train each teacher for; as many as the student if not given."""
    teacher_slots: Optional[int] = None
    """Teachers to train at a time: one on each GPU if not given, or one after the other on a CPU, which more than one
    share."""


class DistilledTrainer(ResumableTrainer):
    """Trains the missing teachers, each in a process of its own, before it sets the student up."""

    config: DistilledTrainerConfig

    def __init__(self, config: DistilledTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        assert isinstance(config.pipeline.model, DistilledModelConfig)
        super().__init__(config, local_rank, world_size)
        self.config.pipeline.model.check()  # type: ignore[attr-defined]
        self.as_asked = config

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Have teachers, then set up the student.

        Raises:
            SystemExit: if there are no teachers to be had, the user interrupts it, or the run folder cannot be written
                to.
        """
        model: Any = self.config.pipeline.model
        configs = [] if model.teachers else teacher_configs(self.as_asked)
        jobs = teacher_jobs(configs)
        self.job = training_job("Student", self.as_asked, [job.name for job in jobs])
        try:
            slots = machine_slots(self.config.machine.device_type, self.config.teacher_slots)
        except ValueError as error:
            raise SystemExit(f"--teacher-slots: {error}") from None
        self.progress = Progress([*jobs, self.job], len(slots))
        if configs:
            train_teachers(configs, jobs, slots, self.progress)
            model.teachers = tuple(config.get_base_dir() for config in configs)
        teachers = tuple(path.expanduser().absolute() for path in model.teachers)
        with writing_to(self.base_dir):
            update_record(self.base_dir, teachers=[str(path) for path in teachers])
            note_teachers(self.as_asked, teachers, model.teacher_frame)
        self.config.logging.local_writer.enable = False  # its lines and our bars would overwrite each other
        super().setup(test_mode)
        with writing_to(self.base_dir):
            note_teachers(self.as_asked, teachers, model.teacher_frame)  # which is known now

    def train(self) -> None:
        """Train the student, and show how far it is as it was shown for the teachers."""
        with self.progress:
            self.progress.begun(self.job)
            super().train()

    def after_step(self, step: int) -> None:
        """Show the progress that has been reported."""
        super().after_step(step)
        self.progress.look()

    def after_train(self, step: int) -> None:
        """Take the bars away, write the report, and then note that the run is finished.

        In that order: a kill in between costs a new report only.
        """
        self.progress.stop()
        if self.stopped_by is None:
            self.report()
        super().after_train(step)
        self.progress.ended(self.job, 0)

    def report(self) -> None:
        """Write the run's report; whatever goes wrong with it, the run is finished."""
        from distilled_splat.report import report_of_trainer

        try:
            CONSOLE.print(f"The report: {report_of_trainer(self)}", soft_wrap=True)
        except Exception as error:
            CONSOLE.print(f"The run is finished, but its report could not be written ({error}).", soft_wrap=True)


def note_teachers(student: DistilledTrainerConfig, teachers: Sequence[Path], frame: TeacherFrame) -> None:
    """Name a student's teachers and their frame in its config.yml, where ns-viewer and ns-eval find them."""
    known = copy.deepcopy(student)
    model: Any = known.pipeline.model
    model.teachers, model.teacher_frame = tuple(teachers), frame
    content = yaml.dump(known)
    write_beside(known.get_base_dir() / "config.yml", lambda path: path.write_text(content, encoding="utf8"))


def parsed_scene(config: ResumableTrainerConfig) -> DataparserOutputs:
    """Parse a config's training split: cameras, file names and points, no photos.

    Raises:
        SystemExit: if the data cannot be parsed.
    """
    datamanager: Any = copy.deepcopy(config.pipeline.datamanager)
    dataparser = datamanager.dataparser
    dataparser.data = Path(datamanager.data or dataparser.data)
    with reading_data(dataparser.data):
        scene = dataparser.setup().get_dataparser_outputs(split="train")
        check_photos(scene)
    return scene


def teacher_config(student: DistilledTrainerConfig, variant: str, scene: str) -> ResumableTrainerConfig:
    """Return the config of one teacher of a student.

    It has the student's data, its output folder and its options of splatfacto. Its run is named after the variant and
    a hash of all that decides its outcome, so that the same teacher is found again and another never is.

    Args:
        student: the student's config, step numbers not yet scaled to the run.
        variant: standard, perturbed or dropout.
        scene: fingerprint of the parsed data.
    """
    shared = {item.name: getattr(student.pipeline.model, item.name) for item in fields(PortableSplatfactoModelConfig)}
    shared.pop("_target")
    pipeline = copy.deepcopy(student.pipeline)
    pipeline.model = TeacherModelConfig(**copy.deepcopy(shared), variant=variant)  # type: ignore[arg-type]
    pipeline.datamanager.data = pipeline.datamanager.data or student.data  # type: ignore[attr-defined]
    place = VARIANTS.index(variant)
    pipeline.datamanager.train_cameras_sampling_seed += place  # type: ignore[attr-defined]
    machine = copy.deepcopy(student.machine)
    machine.seed += place
    viewer = copy.deepcopy(student.viewer)
    viewer.quit_on_train_completion = True
    student.set_experiment_name()
    vis: Any = student.vis.removeprefix("viewer+") if "+" in student.vis else student.vis
    config = ResumableTrainerConfig(
        method_name=TEACHER_METHOD,
        output_dir=student.output_dir,
        experiment_name=student.experiment_name,
        project_name=student.project_name,
        max_num_iterations=student.teacher_iterations or student.max_num_iterations,
        steps_per_save=student.steps_per_save,
        steps_per_eval_image=student.steps_per_eval_image,
        steps_per_eval_batch=student.steps_per_eval_batch,
        steps_per_eval_all_images=student.steps_per_eval_all_images,
        machine=machine,
        logging=student.logging,
        viewer=viewer,
        vis="tensorboard" if vis.startswith("viewer") else vis,
        pipeline=pipeline,
        optimizers=splat_optimizers(),
        data=student.data,
    )
    config.timestamp = run_name(variant, config, scene)
    return config


def run_name(prefix: str, config: ResumableTrainerConfig, scene: str) -> str:
    """Name a run after all that decides its outcome, wherever the data lies.

    Args:
        prefix: what the name begins with.
        config: what is to be trained.
        scene: fingerprint of the parsed data.
    """
    settings = plain(config)
    del settings["data"], settings["pipeline"]["datamanager"]["data"]
    del settings["pipeline"]["datamanager"]["dataparser"]["data"]
    return f"{prefix}-{digest([settings, scene])}"


def teacher_configs(student: DistilledTrainerConfig) -> list[ResumableTrainerConfig]:
    """Return the configs of a standard, a perturbed and a dropout teacher.

    Raises:
        SystemExit: if the data cannot be read.
    """
    scene = scene_fingerprint(parsed_scene(student))
    return [teacher_config(student, variant, scene) for variant in VARIANTS]


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
    """Train the teachers that are missing, as many at a time as there are slots.

    Args:
        configs: the teachers.
        jobs: their jobs.
        slots: where they may train.
        progress: shows how far they are.

    Raises:
        SystemExit: if a training fails, is interrupted (after it has saved), or goes on already in another process.
    """
    for config, job in zip(configs, jobs):
        if not job.done():
            prepare(config)
    done = [job.name for job in jobs if job.done()]  # an orphan may have had nothing left to do
    for config, job in zip(configs, jobs):
        if job.name in done:
            CONSOLE.print(f"Teacher {config.timestamp} is there already: {config.get_base_dir()}")
    schedule = Schedule(jobs, done, keep_going=False)
    with progress:
        reason = run_local(schedule, slots, progress)
    unfinished = "this teacher" if len(slots) == 1 else "these teachers"
    if reason:
        CONSOLE.print(f"Stopped by {reason}; the same command goes on with {unfinished} where it was saved.")
        raise SystemExit(EXIT_INTERRUPTED)
    for number, (config, job) in enumerate(zip(configs, jobs), start=1):
        if schedule.states[job.name] is State.FAILED:
            raise SystemExit(
                f"Teacher {number} of {len(jobs)} ({config.timestamp}) ended with code {progress.codes[job.name]}: "
                f"{last_words(job, 1)} Its log is {job.log}. The same command goes on from its last checkpoint."
            )
