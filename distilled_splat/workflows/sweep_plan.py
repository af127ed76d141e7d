"""The jobs of a sweep, as a graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig

from distilled_splat.jobs.graph import Job
from distilled_splat.runs.fingerprints import digest, outcome_fingerprint, scene_fingerprint
from distilled_splat.student.model import DistilledModelConfig
from distilled_splat.workflows.distill import DistilledTrainerConfig
from distilled_splat.workflows.teacher_configs import parsed_scene, teacher_config
from distilled_splat.workflows.training_jobs import training_job


@dataclass(frozen=True)
class Student:
    """One student of a sweep, and the place of its comparison with its teachers."""

    scene: str
    fraction: float
    run: Path

    @property
    def comparison(self) -> Path:
        """The file with the rows of the comparison."""
        return self.run / "comparison.json"


@dataclass(frozen=True)
class Plan:
    """A graph of jobs, the configs of the training jobs by job name, and the students."""

    jobs: list[Job]
    configs: dict[str, TrainerConfig]
    students: list[Student]


def scene_plan(student: DistilledTrainerConfig, fractions: Sequence[float]) -> Plan:
    """Plan one scene: its teachers, and for each fraction a student and its comparison with the teachers.

    `ns-train distilled-splatfacto` with the same options has the same teachers, and reuses them. A student's run is
    named after its fraction and a hash of everything that determines its result.

    Args:
        student: config of a student of this scene; its experiment name is the name of the scene.
        fractions: sizes of the students, as fractions of the standard teacher's Gaussians.

    Raises:
        SystemExit: if the data cannot be read, or an option or a fraction is invalid.
    """
    name, scene = student.experiment_name, scene_fingerprint(parsed_scene(student))
    assert name is not None
    plan = Plan([], {}, [])

    def add(title: str, config: TrainerConfig, needs: Sequence[str] = ()) -> Job:
        job = training_job(title, config, needs)
        plan.jobs.append(job)
        plan.configs[title] = config
        return job

    refuse_what_a_sweep_sets(student)
    kinds = student.teacher_kinds
    teachers = [teacher_config(student, variant, scene) for variant in kinds]
    needs = [add(f"{name}, {variant} teacher", config).name for variant, config in zip(kinds, teachers, strict=True)]
    for fraction in fractions:
        config = student_config(student, fraction, teachers, scene)
        run = config.get_base_dir()
        plan.students.append(Student(name, fraction, run))
        trained = add(f"{name}, student {fraction:g}", config, needs)
        plan.jobs.append(comparison_job(f"{name}, comparison {fraction:g}", plan.students[-1], trained.name))
    return plan


def refuse_what_a_sweep_sets(student: DistilledTrainerConfig) -> None:
    """Refuse options that the sweep itself sets for every student.

    Raises:
        SystemExit: if one of them is given.
    """
    model: Any = student.pipeline.model
    default = DistilledModelConfig()
    for name in ("teachers", "num_gaussians", "keep_fraction"):
        if getattr(model, name) != getattr(default, name):
            raise SystemExit(
                f"--pipeline.model.{name.replace('_', '-')} does not work in a sweep: it trains its own teachers, and "
                "takes the sizes from --fractions. Leave the option out."
            )


def student_config(
    student: DistilledTrainerConfig, fraction: float, teachers: Sequence[TrainerConfig], scene: str
) -> DistilledTrainerConfig:
    """Return the config of a student of one size, with teachers of these configs.

    Raises:
        SystemExit: if its settings cannot work.
    """
    config = copy.deepcopy(student)
    model: Any = config.pipeline.model
    model.keep_fraction = fraction
    model.check()
    # before the teachers' paths are set: the run's name has their names, and their paths do not matter
    learned_from = digest([scene, [teacher.timestamp for teacher in teachers]])
    config.timestamp = f"{fraction:g}-{outcome_fingerprint(config, learned_from)}"
    model.teachers = tuple(teacher.get_base_dir() for teacher in teachers)
    return config


def comparison_job(name: str, student: Student, trained: str) -> Job:
    """Return the job that compares a student with its teachers on the held-out photos.

    Args:
        name: name of the new job.
        student: the student.
        trained: name of the job that trains the student.
    """
    config = str(student.run / "config.yml")
    command = ("-m", "distilled_splat", "compare", "--load-config", config, "--json", str(student.comparison))
    return Job(name, command, student.run / "comparison.log", student.comparison.exists, (trained,))


def joined(plans: Sequence[Plan]) -> Plan:
    """Merge the plans of several scenes into one plan, in which earlier scenes come first."""
    whole = Plan([], {}, [])
    for plan in plans:
        whole.jobs.extend(plan.jobs)
        whole.configs.update(plan.configs)
        whole.students.extend(plan.students)
    return whole
