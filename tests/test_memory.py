"""The estimate of memory: its figures, and the refusal of what cannot fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from test_agreement import refusal
from tiny import prepared, tiny_config, tiny_student

from distilled_splat.config import splatfacto_teacher
from distilled_splat.memory import available_bytes, check_memory, gaussian_bytes
from distilled_splat.readers import read_teacher


def test_a_gaussian_has_59_numbers_and_training_keeps_four_of_each(teachers: tuple[Path, ...]) -> None:
    gaussians = read_teacher(teachers[0]).gaussians
    numbers = sum(tensor.numel() for tensor in vars(gaussians).values())
    assert gaussian_bytes(len(gaussians), 3) == 4 * numbers == 4 * 59 * len(gaussians)
    assert gaussian_bytes(10, 0, copies=4) == 4 * 4 * 14 * 10


def test_what_is_free_is_what_the_system_says() -> None:
    assert available_bytes("cpu") == pytest.approx(psutil.virtual_memory().available, rel=0.1)


def test_what_fits_is_told_and_what_does_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    check_memory({"photos": 2_000_000_000, "Gaussians": 500_000_000}, 2_500_000_000)
    told = " ".join(capsys.readouterr().out.split())
    assert "at least 2.50 GB of memory (photos 2.00, Gaussians 0.50), and 2.50 GB are free" in told
    with pytest.raises(ValueError, match=r"needs at least 2\.50 GB .* use smaller photos"):
        check_memory({"photos": 2_000_000_000, "Gaussians": 500_000_000}, 2_499_999_999)


def test_the_estimate_of_a_run_is_what_it_then_holds(scene: Path, tmp_path: Path, teachers: tuple[Path, ...]) -> None:
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path))
    model, datamanager = trainer.pipeline.model, trainer.pipeline.datamanager
    needs = model.memory_needs(datamanager, model.num_points)
    photos = [*datamanager.cached_train, *datamanager.cached_eval]
    assert needs["photos"] == sum(photo["image"].nbytes for photo in photos) == 12 * 64 * 48 * 3 * 4
    trainer.train()
    kept = [parameter for parameter in model.gauss_params.values()]
    moments = [
        value for optimizer in trainer.optimizers.optimizers.values()
        for state in optimizer.state.values() for value in state.values()
        if isinstance(value, torch.Tensor) and value.numel() > 1
    ]  # fmt: skip
    held = sum(tensor.nbytes for tensor in (*kept, *moments)) + sum(parameter.nbytes for parameter in kept)
    assert needs["Gaussians"] == held


def test_photos_that_cannot_fit_are_refused_before_they_are_loaded(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...]
) -> None:
    """A cap on the Gaussians that no machine could hold, and photos of 200000 x 800 pixels that are blank files."""
    capped = tiny_config(splatfacto_teacher, scene, tmp_path, max_gaussians=10**12)
    assert "Gaussians 944000.00" in refusal(capped)
    student = tiny_student(scene, tmp_path, teachers, max_gaussians=10**12)
    assert "teachers 0.00, pseudo labels 0.01" in refusal(student)

    wide = Path(shutil.copytree(scene, tmp_path / "wide"))
    meta = json.loads((wide / "transforms.json").read_text())
    (wide / "transforms.json").write_text(json.dumps({**meta, "w": 200_000, "h": 800}))
    Image.new("L", (200_000, 800)).save(tmp_path / "wide.png")
    for photo in (wide / "images").glob("*.png"):
        shutil.copyfile(tmp_path / "wide.png", photo)
    config = tiny_config(splatfacto_teacher, wide, tmp_path, max_gaussians=10**11)
    assert "photos 5.76" in refusal(config)
