"""Read and check a student's teachers, and set up what they teach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.ops.views import view_of
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.curriculum import Curriculum
from distilled_splat.student.labels import PseudoLabels
from distilled_splat.student.pruning import PruningSchedule, prune_steps
from distilled_splat.student.step import Teaching
from distilled_splat.student.structure import Structure
from distilled_splat.student.trust import LabelTrust
from distilled_splat.student.virtual_views import views_between
from distilled_splat.teachers.ensemble import TeacherEnsemble, standard_of
from distilled_splat.teachers.fit import TeacherFrame, brought_in, check_teachers
from distilled_splat.teachers.reading import Teacher, read_teacher
from distilled_splat.training.memory import DEPTH_BYTES_PER_PIXEL, LABEL_BYTES_PER_PIXEL, gaussian_bytes, pixels


def meet_teachers(
    student: Any, datamanager: Any, steps: int, resumed: bool = False
) -> tuple[Teaching, TeacherFrame, Gaussians]:
    """Read and check the teachers, and set up what they teach.

    Args:
        student: the model (`model.DistilledModel`), whose config names the teachers.
        datamanager: where the photos and their cameras are.
        steps: length of the run.
        resumed: whether a checkpoint of the student is loaded.

    Returns:
        What the student uses while it trains, the frame of the exported teachers, and the Gaussians that a student
        starts with that does not start from points.

    Raises:
        SystemExit: if a teacher cannot be read or does not fit the data, or the memory is too small.
    """
    config, device = student.config, student.device
    try:
        teachers = [read_teacher(path) for path in config.teachers]
        start = None if config.start_with is None else read_start(config.start_with)
        first = standard_of(teachers).gaussians if start is None else start
        budget = label_budget(student, datamanager, teachers, len(first), resumed)
        least = config.min_teacher_psnr
        teachers, frame, measured = brought_in(teachers, datamanager, config.teacher_frame, least, device)
        check_teachers(teachers, datamanager, least, device, measured)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    standard = standard_of(teachers)
    photographed = [view_of(camera) for camera in datamanager.single_cameras]
    num_virtual = config.virtual_views if config.virtual_fraction > 0 else 0
    virtual = views_between(photographed, num_virtual, spread=config.virtual_spread)
    structure = None
    if config.lambda_structure > 0 and config.structure_every > 0:
        structure = Structure(
            standard.gaussians.to(device),
            config.lambda_structure,
            config.structure_every,
            config.structure_resolutions,
            config.structure_of,
        )
    target = config.num_gaussians or max(round(config.keep_fraction * len(standard.gaussians)), 1)
    CONSOLE.print(
        f"Student of {len(teachers)} teachers ({', '.join(teacher.variant for teacher in teachers)}): "
        f"{target} Gaussians; the standard teacher has {len(standard.gaussians)}."
    )
    teaching = Teaching(
        curriculum=Curriculum(photographed, virtual, config.virtual_fraction),
        labels=PseudoLabels(TeacherEnsemble(teachers, device), budget, with_depth=config.lambda_depth > 0),
        trust=LabelTrust(config.min_teacher_advantage, config.full_overfit_gap, config.max_teacher_disagreement),
        lambda_kd=config.lambda_kd,
        structure=structure,
        lambda_depth=config.lambda_depth,
        pruning=PruningSchedule(prune_steps(config.prune_times, *config.pruning_span()), target, last_step=steps - 1),
        importance=config.prune_importance,
        prune_views=config.prune_views,
        prune_unseen=config.prune_unseen,
        prune_sampling=config.prune_sampling,
    )
    return teaching, frame, standard.gaussians if start is None else start


def read_start(path: Path) -> Gaussians:
    """Read the splat that a student starts with instead of a teacher.

    Raises:
        ValueError: if it cannot be read; the message names the option.
    """
    try:
        return read_teacher(path).gaussians
    except ValueError as error:
        raise ValueError(f"--pipeline.model.start-with: {error}") from None


def label_budget(student: Any, datamanager: Any, teachers: Sequence[Teacher], first: int, resumed: bool = False) -> int:
    """Compute how much memory pseudo labels may take, after teachers, photos and the Gaussians at the start.

    Args:
        student: the model.
        datamanager: where the photos are.
        teachers: the teachers.
        first: number of Gaussians that a student starts with that does not start from points.
        resumed: whether a checkpoint of the student is loaded.

    Returns:
        The bytes that pseudo labels may take: `label_cache_megabytes`, or half of what is left if that is less.

    Raises:
        ValueError: if the memory is too small for the training.
    """
    config = student.config
    starts_with = student.num_points
    if config.start_from == "teacher" and not resumed:
        starts_with = max(starts_with, first)
    teacher_bytes = sum(gaussian_bytes(len(item.gaussians), item.gaussians.sh_degree) for item in teachers)
    left = student.check_memory(datamanager, starts_with, resumed, teachers=teacher_bytes)
    budget = int(min(config.label_cache_megabytes * 1e6, left / 2))

    photos = len(datamanager.train_dataset)
    labelled = config.lambda_kd > 0 or config.virtual_fraction > 0 or config.lambda_depth > 0
    views = photos * labelled + config.virtual_views * (config.virtual_fraction > 0)
    bytes_per_pixel = LABEL_BYTES_PER_PIXEL + (DEPTH_BYTES_PER_PIXEL if config.lambda_depth > 0 else 0)
    wanted = bytes_per_pixel * pixels(datamanager.train_dataset) * views // photos
    rest = "" if wanted <= budget else "; the others are rendered again in each step that needs them"
    CONSOLE.print(
        f"Pseudo labels: {min(wanted, budget) / 1e9:.2f} of {wanted / 1e9:.2f} GB are cached{rest} "
        "(--pipeline.model.label-cache-megabytes).",
        soft_wrap=True,
    )
    return budget
