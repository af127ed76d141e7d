"""How often the host waits for the device in a step of training: what stock splatfacto does 19 times."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from tiny import prepared

from sham_cuda.device import CUDA
from sham_cuda.ledger import LEDGER, Ledger
from sham_cuda.trainings import student_on, teacher_on

STEPS = 32
WARM_UP = 10
"""Steps in which every photo of the nine has been seen once, and its camera been made a view."""
STEPS_PER_LOG = 10
COUNTED = {step for step in range(WARM_UP, STEPS - 1) if step % STEPS_PER_LOG}
"""Steps that neither are the first nor log: 18 of them."""


def waits_of(config: Any) -> Ledger:
    """Train, and return what was waited for in the steps that are counted."""
    config.logging.steps_per_log = STEPS_PER_LOG
    trainer = prepared(config)
    model, total = trainer.pipeline.model, Ledger()
    teaching: Any = getattr(model, "teaching", None)
    for index, view in enumerate(teaching.curriculum.views if teaching else ()):  # each label is rendered once
        teaching.labels.label(index, view, torch.zeros(3, device=CUDA))

    def before(step: int) -> None:
        if step > 0:
            # reports come once a second, however many steps that is
            trainer.progress_file.recent.append((step, math.inf))
        if step - 1 in COUNTED:
            total.waits.update(LEDGER.waits)
            total.bytes.update(LEDGER.bytes)
        LEDGER.clear()

    trainer.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], before))
    trainer.train()
    return total


def assert_at_most(budget: float, total: Ledger) -> None:
    found = total.per_step(len(COUNTED))
    assert found <= budget, f"{found:.2f} waits a step, {budget} are allowed:\n{total.table(len(COUNTED))}"
    print(f"{found:.2f} of {budget} waits a step\n{total.table(len(COUNTED))}")


def options_of(more: dict[str, Any]) -> dict[str, Any]:
    return {"steps": STEPS, "schedule_length": STEPS, "evaluated": False, "virtual_views": 9, **more}


def test_a_densifying_teacher_waits_at_most_five_times(scene: Path, tmp_path: Path) -> None:
    options = {
        "steps": STEPS,
        "schedule_length": STEPS,
        "evaluated": False,
        "warmup_length": STEPS,
        "stop_split_at": STEPS,
    }
    assert_at_most(5, waits_of(teacher_on("cuda", scene, tmp_path, **options)))


EVERY_LOSS = {"lambda_kd": 1.0, "lambda_structure": 1.0, "structure_every": 1, "structure_resolutions": (32,)}


@pytest.mark.parametrize("more", [{}, EVERY_LOSS])
def test_a_student_waits_twice(scene: Path, tmp_path: Path, folders: tuple[Path, ...], more: dict[str, Any]) -> None:
    options = options_of({"prune_times": 1, "prune_stop": 0, **more})
    assert_at_most(2, waits_of(student_on("cuda", scene, tmp_path, folders, **options)))


@pytest.mark.parametrize("cache_images", ["cpu", "gpu", "disk"])
def test_masks_and_photos_in_either_memory_cost_no_wait(
    masked_scene: Path, tmp_path: Path, folders: tuple[Path, ...], cache_images: str
) -> None:
    options = options_of({"prune_times": 1, "prune_stop": 0, "cache_images": cache_images})
    assert_at_most(2, waits_of(student_on("cuda", masked_scene, tmp_path, folders, **options)))
