"""Trainings on CUDA, by a sham device in a process of its own (see sham_cuda)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from sham_process import run_checks
from tiny import prepared, tiny_config

from distilled_splat.evaluation.compare import compare
from distilled_splat.methods import splatfacto_teacher

pytestmark = pytest.mark.slow


def test_teachers_and_students_train_on_cuda_as_on_the_cpu_with_every_option_and_hardly_wait(tmp_path: Path) -> None:
    run_checks("training", "options", "waits", output=tmp_path / "cuda")
    what_cuda_has_trained_is_used_on_the_cpu(tmp_path / "cuda", tmp_path / "cpu")


def what_cuda_has_trained_is_used_on_the_cpu(cuda: Path, output: Path) -> None:
    """Compare a student with its teachers, and train a teacher on, in a process that knows of no GPU."""
    (student,) = cuda.glob("student-on-device0/scene/*/*/config.yml")
    (teacher,) = cuda.glob("teachers-on-device0/standard/scene/*/*/nerfstudio_models")
    rows = compare(student).rows
    assert len(rows) == 5 and all(math.isfinite(row.psnr) for row in rows)
    (scene,) = cuda.glob("data0/scene")
    config = tiny_config(splatfacto_teacher, scene, output, 33, stop_split_at=0)
    config.load_dir = teacher
    trainer = prepared(config)
    assert trainer._start_step == 30 and trainer.device == "cpu"
    trainer.train()
    assert trainer.step == 32
