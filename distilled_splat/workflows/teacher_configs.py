"""The training configs of a student's teachers: the student's data, its options of splatfacto, and other seeds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.runs.fingerprints import outcome_fingerprint, scene_fingerprint
from distilled_splat.teachers.kinds import VARIANTS, TeacherModelConfig, Variant
from distilled_splat.training.model import PortableSplatfactoModelConfig
from distilled_splat.training.optimizers import CooldownSchedulerConfig, splat_optimizers
from distilled_splat.training.photos import check_photos, held_out_scene, reading_data
from distilled_splat.training.points import check_coordinates, clean_points
from distilled_splat.training.trainer import ResumableTrainerConfig

TEACHER_METHOD = "splatfacto-teacher"


def parsed_scene(config: ResumableTrainerConfig) -> DataparserOutputs:
    """Parse a config's training split (cameras, file names and points, without photos), and check the whole capture.

    Raises:
        SystemExit: if the data cannot be parsed, or cannot be trained on.
    """
    datamanager: Any = copy.deepcopy(config.pipeline.datamanager)
    dataparser = datamanager.dataparser
    dataparser.data = Path(datamanager.data or dataparser.data)
    with reading_data(dataparser.data):
        parser = dataparser.setup()
        scene = parser.get_dataparser_outputs(split="train")
        for part in (scene, held_out_scene(parser, "val")):
            check_photos(part)
        check_coordinates(scene)
    for sentence in clean_points(scene):
        CONSOLE.print(sentence, soft_wrap=True)
    return scene


def teacher_config(student: Any, variant: Variant, scene: str) -> ResumableTrainerConfig:
    """Return the config of one teacher of a student.

    The teacher has the student's data, output folder, and options of splatfacto and of the optimizers. Its run is named
    after the variant and a hash of everything that determines its result, so only the same teacher is found again.

    Args:
        student: the student's config (`distill.DistilledTrainerConfig`), step numbers not yet scaled to the run.
        variant: standard, perturbed or dropout.
        scene: fingerprint of the parsed data.
    """
    shared = {item.name: getattr(student.pipeline.model, item.name) for item in fields(PortableSplatfactoModelConfig)}
    shared.pop("_target")
    pipeline = copy.deepcopy(student.pipeline)
    pipeline.model = TeacherModelConfig(**copy.deepcopy(shared), variant=variant)
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
        seconds_per_save=student.seconds_per_save,
        steps_per_eval_image=student.steps_per_eval_image,
        steps_per_eval_batch=student.steps_per_eval_batch,
        steps_per_eval_all_images=student.steps_per_eval_all_images,
        machine=machine,
        logging=student.logging,
        viewer=viewer,
        vis="tensorboard" if vis.startswith("viewer") else vis,
        pipeline=pipeline,
        optimizers=teacher_optimizers(student.optimizers),
        data=student.data,
    )
    config.timestamp = f"{variant}-{outcome_fingerprint(config, scene)}"
    return config


def teacher_optimizers(student: Mapping[str, Any]) -> dict[str, Any]:
    """Return splatfacto's optimizers with the user's changes to the student's optimizers, except their cooldown.

    Args:
        student: the student's optimizers, by parameter group.
    """
    found = splat_optimizers()
    for name, usual in splat_optimizers(cooldown=True).items():
        for part in ("optimizer", "scheduler"):
            given = student[name][part]
            if given != usual[part] and not isinstance(given, CooldownSchedulerConfig):
                found[name][part] = copy.deepcopy(given)
    return found


def teacher_configs(student: Any) -> list[ResumableTrainerConfig]:
    """Return the configs of a student's teachers, one for each kind in `teacher_kinds`.

    Raises:
        SystemExit: if the data cannot be read.
    """
    scene = scene_fingerprint(parsed_scene(student))
    return [teacher_config(student, variant, scene) for variant in student.teacher_kinds]
