"""One command for everything: train the teachers that are missing, then the student."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.runs.faults import writing_to
from distilled_splat.runs.fingerprints import settings_fingerprint
from distilled_splat.runs.lock import leaving_nothing_if_refused
from distilled_splat.runs.record import update_record
from distilled_splat.runs.stages import STAGES
from distilled_splat.runs.words import type_and_words
from distilled_splat.student.model import DistilledModelConfig
from distilled_splat.teachers.fit import TeacherFrame
from distilled_splat.teachers.kinds import VARIANTS, Variant
from distilled_splat.teachers.reading import read_teacher
from distilled_splat.training.trainer import ResumableTrainer, ResumableTrainerConfig, write_config
from distilled_splat.workflows.teachers_first import ensure_teachers
from distilled_splat.workflows.training_jobs import training_job


@dataclass
class DistilledTrainerConfig(ResumableTrainerConfig):
    """A student's training, with that of its teachers before it where there are none."""

    _target: type = field(default_factory=lambda: DistilledTrainer)
    teacher_iterations: Optional[int] = None
    """Steps to train each teacher for; as many as the student if not given."""
    teacher_kinds: tuple[Variant, ...] = VARIANTS
    """Teachers to train where none are given, each kind once. "standard" alone costs half the time of all three."""
    teacher_slots: Optional[int] = None
    """Teachers to train at a time: one on each GPU if not given, or one after the other on a CPU, which more than one
    share."""

    def check(self) -> None:
        """Refuse what cannot be trained here, and a student that cannot be.

        Raises:
            SystemExit: with one sentence on the first fault found.
        """
        super().check()
        assert isinstance(self.pipeline.model, DistilledModelConfig)
        self.pipeline.model.check()
        kinds = self.teacher_kinds
        if not kinds or len(set(kinds)) < len(kinds):
            given = " ".join(kinds) or "(none)"
            raise SystemExit(f"--teacher-kinds {given}: name one kind or more of {', '.join(VARIANTS)}, each once.")

    def set_timestamp(self) -> None:
        """Name the run, after a look at the teachers that are given: the photos need not be read, nor a folder made.

        Raises:
            SystemExit: if a teacher cannot be read, and for the reasons of every run.
        """
        self.check()
        model: Any = self.pipeline.model
        try:
            for path in model.teachers:
                read_teacher(path)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        super().set_timestamp()

    def write_config(self) -> None:
        """Leave config.yml to the trainer, which writes it when the teachers are known."""


class DistilledTrainer(ResumableTrainer):
    """Trains the missing teachers, each in a process of its own, before it sets the student up."""

    config: DistilledTrainerConfig

    def __init__(self, config: DistilledTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        super().__init__(config, local_rank, world_size)
        self.as_asked = config
        self.job = training_job("Student", config)

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Have teachers, set up the student with them, and write its config.yml, which names them.

        Raises:
            SystemExit: if there are no teachers to be had, the user interrupts it, the rasterizer cannot be had, or the
                run folder cannot be written to.
        """
        with leaving_nothing_if_refused(self.base_dir):
            self.get_rasterizer()  # here, so that the teachers' processes find it compiled
            model: Any = self.config.pipeline.model
            with STAGES.within("teachers"):
                model.teachers, self.progress = ensure_teachers(self.as_asked, self.job)
            self.config.logging.local_writer.enable = False  # its lines and our bars would overwrite each other
            super().setup(test_mode)
            with writing_to(self.base_dir):
                note_teachers(self.as_asked, model.teachers, model.teacher_frame)

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
        model: Any = self.pipeline.model
        model.teaching.labels.forget()  # gigabytes, and the report takes memory, too
        if self.stopped_by is None:
            self.report()
        super().after_train(step)
        self.progress.ended(self.job, 0)

    def report(self) -> None:
        """Write the run's report; whatever goes wrong with it, the run is finished."""
        from distilled_splat.evaluation.report import report_of_trainer

        try:
            with STAGES.within("report"):
                CONSOLE.print(f"The report: {report_of_trainer(self)}", soft_wrap=True)
        except Exception as error:
            # words of an error can look like rich's markup
            CONSOLE.print(
                f"The run is finished, but its report could not be written ({type_and_words(error)}). Once "
                f"that is mended, write it: distilled-splat report --load-config {self.base_dir / 'config.yml'}",
                soft_wrap=True, markup=False,
            )  # fmt: skip


def note_teachers(student: DistilledTrainerConfig, teachers: Sequence[Path], frame: TeacherFrame) -> None:
    """Write a student's config.yml with its teachers and their frame, where ns-viewer and ns-eval find them.

    The run is known by these settings from now on, too, so that `ns-train --load-config` resumes it.
    """
    known = copy.deepcopy(student)
    model: Any = known.pipeline.model
    model.teachers, model.teacher_frame = tuple(named_as(known.output_dir, path) for path in teachers), frame
    noted = settings_fingerprint(known)
    update_record(known.get_base_dir(), noted_fingerprint=noted, teachers=[str(path) for path in teachers])
    write_config(known)


def named_as(output_dir: Path, path: Path) -> Path:
    """Name a path as the output folder is named: relative to the folder that the command was started in, or absolute.

    So nerfstudio's commands find it wherever they find the run itself.
    """
    here = Path.cwd()
    return path.relative_to(here) if not output_dir.is_absolute() and path.is_relative_to(here) else path
