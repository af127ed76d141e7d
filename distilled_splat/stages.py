"""One command for everything: train the teachers that are missing, then the student."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Optional

import yaml
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, Progress, TextColumn

from distilled_splat.checkpoints import write_beside
from distilled_splat.faults import writing_to
from distilled_splat.optimizers import splat_optimizers
from distilled_splat.photos import check_photos, reading_data
from distilled_splat.runs import digest, plain, read_record, scene_fingerprint, update_record
from distilled_splat.splatfacto import PortableSplatfactoModelConfig
from distilled_splat.student import DistilledModelConfig
from distilled_splat.teachers import VARIANTS, TeacherModelConfig
from distilled_splat.trainer import (
    EXIT_INTERRUPTED,
    PARENT_VARIABLE,
    ResumableTrainer,
    ResumableTrainerConfig,
    interrupts_call,
    lock_run,
    read_progress,
)

TEACHER_METHOD = "splatfacto-teacher"
LOG_NAME = "training.log"
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_FOR_AN_ORPHAN = 10
"""How long a teacher whose command was killed may take to save and leave."""


@dataclass
class DistilledTrainerConfig(ResumableTrainerConfig):
    """A student's training, with that of its teachers before it where there are none."""

    _target: type = field(default_factory=lambda: DistilledTrainer)
    teacher_iterations: Optional[int] = None
    """Steps to train each teacher for; as many as the student if not given."""


class DistilledTrainer(ResumableTrainer):
    """Trains the missing teachers, each in a process of its own, before it sets the student up."""

    config: DistilledTrainerConfig

    def __init__(self, config: DistilledTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        assert isinstance(config.pipeline.model, DistilledModelConfig)
        super().__init__(config, local_rank, world_size)
        self.config.pipeline.model.check()  # type: ignore[attr-defined]
        self.as_asked = config

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Have teachers, then set up the student."""
        model: Any = self.config.pipeline.model
        if not model.teachers:
            model.teachers = train_teachers(self.as_asked)
        teachers = tuple(path.expanduser().absolute() for path in model.teachers)
        with writing_to(self.base_dir):
            update_record(self.base_dir, teachers=[str(path) for path in teachers])
            note_teachers(self.as_asked, teachers)
        super().setup(test_mode)

    def after_train(self, step: int) -> None:
        """Write the run's report, and then note that the run is finished: a kill in between costs a new report only."""
        if self.stopped_by is None:
            self.report()
        super().after_train(step)

    def report(self) -> None:
        """Write the run's report; whatever goes wrong with it, the run is finished."""
        from distilled_splat.report import report_of_trainer

        try:
            CONSOLE.print(f"The report: {report_of_trainer(self)}", soft_wrap=True)
        except Exception as error:
            CONSOLE.print(f"The run is finished, but its report could not be written ({error}).", soft_wrap=True)


def note_teachers(student: DistilledTrainerConfig, teachers: Sequence[Path]) -> None:
    """Name a student's teachers in its config.yml, where ns-viewer and ns-eval find them."""
    known = copy.deepcopy(student)
    known.pipeline.model.teachers = tuple(teachers)  # type: ignore[attr-defined]
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
    settings = plain(config)
    del settings["data"], settings["pipeline"]["datamanager"]["data"]
    del settings["pipeline"]["datamanager"]["dataparser"]["data"]
    config.timestamp = f"{variant}-{digest([settings, scene])}"
    return config


def train_teachers(student: DistilledTrainerConfig) -> tuple[Path, ...]:
    """Train a standard, a perturbed and a dropout teacher, or take those that are there, and return their run folders.

    Raises:
        SystemExit: if the data cannot be read, a teacher's training fails, or the user interrupts it.
    """
    scene = scene_fingerprint(parsed_scene(student))
    configs = [teacher_config(student, variant, scene) for variant in VARIANTS]
    missing = [config for config in configs if not read_record(config.get_base_dir()).get("finished")]
    for config in configs:
        if config not in missing:
            CONSOLE.print(f"Teacher {config.timestamp} is there already: {config.get_base_dir()}")
    for config in missing:
        train_teacher(config, configs.index(config) + 1, len(configs))
    return tuple(config.get_base_dir() for config in configs)


def train_teacher(config: ResumableTrainerConfig, number: int, of: int) -> None:
    """Train one teacher with `ns-train` in a process of its own, and show how far it is.

    Raises:
        SystemExit: if the training fails, is interrupted (after it has saved), or goes on already in another process.
    """
    run = config.get_base_dir()
    lock_run(run, SECONDS_FOR_AN_ORPHAN).release()
    if read_record(run).get("finished"):  # the orphan had nothing left to do
        return
    config_path = run / "teacher.yml"
    with writing_to(run):
        write_beside(config_path, lambda path: path.write_text(yaml.dump(config), encoding="utf8"))
    command = [
        sys.executable,
        "-m",
        "nerfstudio.scripts.train",
        TEACHER_METHOD,
        "--load-config",
        str(config_path),
    ]
    # passive: idle OpenMP threads would take the cores from the rasterizer
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, PARENT_VARIABLE: str(os.getpid())}
    reasons: list[str] = []
    with (run / LOG_NAME).open("ab") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )

        def stop(reason: str) -> None:
            reasons.append(reason)
            child.terminate()

        with interrupts_call(stop), TeacherProgress(run, config, number, of) as progress:
            while child.poll() is None:
                progress.look()
                time.sleep(SECONDS_BETWEEN_LOOKS)
            progress.look()
    if reasons:
        CONSOLE.print(f"Stopped by {reasons[0]}; the same command goes on with this teacher where it was saved.")
        raise SystemExit(EXIT_INTERRUPTED)
    if child.returncode != 0 or not read_record(run).get("finished"):
        words = (run / LOG_NAME).read_text(encoding="utf8", errors="replace").strip().splitlines() or [""]
        raise SystemExit(
            f"Teacher {number} of {of} ({config.timestamp}) ended with code {child.returncode}: {words[-1].strip()} "
            f"Its log is {run / LOG_NAME}. The same command goes on from its last checkpoint."
        )


class TeacherProgress:
    """Shows a teacher's progress: a bar on a terminal, elsewhere a line at every tenth of the way."""

    def __init__(self, run: Path, config: ResumableTrainerConfig, number: int, of: int) -> None:
        self.run = run
        self.label = f"Teacher {number} of {of}, {config.pipeline.model.variant}"  # type: ignore[attr-defined]
        self.tenths = 0
        self.begun = time.time()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"),
            console=CONSOLE, disable=not CONSOLE.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task(self.label, total=config.max_num_iterations, words="starting")

    def __enter__(self) -> TeacherProgress:
        CONSOLE.print(f"{self.label}: {self.run}")
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def look(self) -> None:
        """Read the run's progress and show it."""
        report = read_progress(self.run)
        if not report or (self.run / "progress.json").stat().st_mtime < self.begun:
            return
        step, steps = report["step"], report["steps"]
        left = round(report["seconds_left"])
        words = f"step {step} of {steps}, {report['gaussians']} Gaussians, {left // 60}:{left % 60:02d} left"
        self.bar.update(self.task, completed=step, words=words)
        tenths = 10 * step // steps
        if tenths > self.tenths and not CONSOLE.is_terminal:
            CONSOLE.print(f"{self.label}: {words}")
        self.tenths = tenths
