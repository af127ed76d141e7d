"""The trainer of `ns-train distilled-splatfacto`: trains the missing teachers, then the student."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.ops.free_memory import release_memory
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
    """The training of a student. Missing teachers are trained first."""

    _target: type = field(default_factory=lambda: DistilledTrainer)
    teacher_iterations: Optional[int] = None
    """Training steps of each teacher. By default as many as the student's."""
    teacher_kinds: tuple[Variant, ...] = VARIANTS
    """Kinds of teachers to train if no teachers are given. "standard" alone halves the time of the command."""
    teacher_slots: Optional[int] = None
    """Number of teachers to train at a time. By default one on each GPU, or one on a CPU. Several teachers on a CPU
    share its threads."""
    write_report: bool = True
    """Write report.html into the run's folder at the end."""

    def check(self) -> None:
        """Refuse settings with which the student or its teachers cannot be trained here.

        Raises:
            SystemExit: with one sentence on the first fault found.
        """
        super().check()
        assert isinstance(self.pipeline.model, DistilledModelConfig)
        self.pipeline.model.check()
        kinds = self.teacher_kinds
        if not kinds or len(set(kinds)) < len(kinds):
            given = " ".join(kinds) or "(none)"
            raise SystemExit(f"--teacher-kinds {given}: give one or more of {', '.join(VARIANTS)}, each once.")

    def set_timestamp(self) -> None:
        """Check the given teachers, then name the run. A bad teacher is refused before photos are read or folders made.

        Raises:
            SystemExit: if a teacher cannot be read, or for the reasons of every run.
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
        """Do nothing: the trainer writes config.yml once the teachers are known."""


class DistilledTrainer(ResumableTrainer):
    """Trains the missing teachers, each in a process of its own, and then the student."""

    config: DistilledTrainerConfig

    def __init__(self, config: DistilledTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        super().__init__(config, local_rank, world_size)
        self.as_asked = config
        self.job = training_job("Student", config)

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Find or train the teachers, set up the student with them, and write its config.yml, which names them.

        Raises:
            SystemExit: if the teachers cannot be read or trained, the user interrupts, the rasterizer cannot be
                loaded, or the run folder cannot be written to.
        """
        with leaving_nothing_if_refused(self.base_dir):
            self.get_rasterizer()  # first, so that the teachers' processes find the compiled kernels
            model: Any = self.config.pipeline.model
            with STAGES.within("teachers"):
                model.teachers, self.progress = ensure_teachers(self.as_asked, self.job)
            self.config.logging.local_writer.enable = False  # its lines and our bars would overwrite each other
            super().setup(test_mode)
            with writing_to(self.base_dir):
                note_teachers(self.as_asked, model.teachers, model.teacher_frame)

    def train(self) -> None:
        """Train the student in the progress display that has shown the teachers."""
        with self.progress:
            self.progress.begun(self.job)
            super().train()

    def after_step(self, step: int) -> None:
        """Update the progress display."""
        super().after_step(step)
        self.progress.look()

    def after_train(self, step: int) -> None:
        """Remove the progress bars, write the report, and then record that the run is finished.

        In this order, a kill between two of these costs only a new report.
        """
        self.progress.stop()
        self.ended_at = time.monotonic()
        self.let_go()
        if self.stopped_by is None and self.config.write_report:
            self.report()
        super().after_train(step)
        self.progress.ended(self.job, 0)

    def let_go(self) -> None:
        """Let go of the pseudo labels, which take gigabytes: the report needs memory, too."""
        model: Any = self.pipeline.model
        model.teaching.labels.forget()
        release_memory()

    def report(self) -> None:
        """Write the run's report. If the report fails, the run still counts as finished."""
        from distilled_splat.evaluation.report import report_of_trainer

        try:
            with STAGES.within("report"):
                CONSOLE.print(f"Report: {report_of_trainer(self)}", soft_wrap=True)
        except (Exception, SystemExit) as error:  # also a photo that can no longer be read
            # the text of an error can look like rich's markup
            CONSOLE.print(
                f"The run is finished, but its report could not be written ({type_and_words(error)}). To "
                f"write it later: distilled-splat report --load-config {self.base_dir / 'config.yml'}",
                soft_wrap=True, markup=False,
            )  # fmt: skip


def note_teachers(student: DistilledTrainerConfig, teachers: Sequence[Path], frame: TeacherFrame) -> None:
    """Write a student's config.yml with its teachers and their frame, for ns-viewer and ns-eval.

    The record also gets the fingerprint of these settings, so that `ns-train --load-config` resumes the run.
    """
    known = copy.deepcopy(student)
    model: Any = known.pipeline.model
    model.teachers, model.teacher_frame = tuple(named_as(known.output_dir, path) for path in teachers), frame
    noted = settings_fingerprint(known)
    update_record(known.get_base_dir(), noted_fingerprint=noted, teachers=[str(path) for path in teachers])
    write_config(known)


def named_as(output_dir: Path, path: Path) -> Path:
    """Return a path in the style of the output folder: relative to the current folder, or absolute.

    nerfstudio's commands then find the path whenever they find the run.
    """
    here = Path.cwd()
    return path.relative_to(here) if not output_dir.is_absolute() and path.is_relative_to(here) else path
