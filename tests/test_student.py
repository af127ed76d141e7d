"""What a student learns from in each of its steps: photos, pseudo labels, or both."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import scalars, tiny_config, tiny_student, trained

from distilled_splat.methods import distilled_splatfacto_paper

STEPS = 30
ALL = set(range(STEPS))


def photos_and_labels(run: Path) -> tuple[set[int], set[int]]:
    """Return the steps that had a loss against a photo, and those that had one against a pseudo label."""
    logged = scalars(run)
    return set(logged.get("Train Loss Dict/main_loss", {})), set(logged.get("Train Loss Dict/kd_loss", {}))


def test_by_default_a_step_has_a_photo_or_a_label_between_the_cameras(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...]
) -> None:
    options = {"min_teacher_advantage": 0.0, "full_overfit_gap": 0.0, "max_teacher_disagreement": 0.0}
    trainer = trained(tiny_student(scene, tmp_path, teachers, STEPS, **options))
    photos, labels = photos_and_labels(trainer.base_dir)
    assert photos | labels == ALL and not photos & labels
    assert len(photos) > 5 and len(labels) > 5
    assert set(range(0, STEPS, 10)) <= photos, "logged steps always have a photo"
    assert trainer.pipeline.model.teaching.structure is None, "a histogram that nothing is compared with"


def test_a_student_that_does_not_overfit_looks_at_photos_alone(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...]
) -> None:
    trainer = trained(
        tiny_student(
            scene,
            tmp_path,
            teachers,
            STEPS,
            min_teacher_advantage=0.0,
            full_overfit_gap=1e6,
            max_teacher_disagreement=0.0,
        )
    )
    assert photos_and_labels(trainer.base_dir) == (ALL, set())
    logged = scalars(trainer.base_dir)
    assert logged["Train Metrics Dict/label_trust"] == dict.fromkeys(range(0, STEPS, 10), 1)
    between = logged["Train Metrics Dict/label_trust_between"]
    assert between[0] == 1 and between[10] < 1e-3 and between[20] < 1e-3


@pytest.mark.parametrize(
    ("options", "with_label"),
    [({"lambda_kd": 0.5, "min_teacher_advantage": 0.0}, ALL), ({}, set())],
)
def test_without_views_between_the_cameras_every_step_has_a_photo(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], options: dict[str, float], with_label: set[int]
) -> None:
    trainer = trained(tiny_student(scene, tmp_path, teachers, STEPS, virtual_fraction=0.0, **options))
    assert photos_and_labels(trainer.base_dir) == (ALL, with_label)


@pytest.mark.parametrize(
    ("options", "due"),
    [({}, ALL), ({"lambda_depth": 0.0}, set())],
)
def test_depths_are_taught_in_every_step(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], options: dict[str, float], due: set[int]
) -> None:
    options = {"min_teacher_advantage": 0.0, "full_overfit_gap": 0.0, "max_teacher_disagreement": 0.0, **options}
    trainer = trained(tiny_student(scene, tmp_path, teachers, STEPS, **options))
    photos, labels = photos_and_labels(trainer.base_dir)
    assert photos and labels
    losses = scalars(trainer.base_dir).get("Train Loss Dict/depth_loss", {})
    assert set(losses) == due and all(0 < loss < 0.2 for loss in losses.values())


def test_by_the_papers_schedule_every_step_has_both_and_some_have_the_structural_loss(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...]
) -> None:
    every = 7 * distilled_splatfacto_paper.config.pipeline.model.schedule_length // STEPS  # type: ignore[attr-defined]
    options = {"min_teacher_psnr": 1.0, "structure_every": every}
    trainer = trained(tiny_config(distilled_splatfacto_paper, scene, tmp_path, STEPS, teachers=teachers, **options))
    assert photos_and_labels(trainer.base_dir) == (ALL, ALL)
    assert set(scalars(trainer.base_dir)["Train Loss Dict/structure_loss"]) == set(range(0, STEPS, 7))
