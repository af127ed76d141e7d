"""The estimate of memory: its figures, and the refusal of what cannot fit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from exports import cloud, write_ply
from PIL import Image
from refusals import refusal
from tiny import prepared, tiny_config, tiny_student

from distilled_splat.methods import splatfacto_teacher
from distilled_splat.teachers.reading import read_teacher
from distilled_splat.training.memory import available_bytes, check_memory, gaussian_bytes, photo_bytes


def test_a_gaussian_has_59_numbers_and_training_keeps_four_of_each(teachers: tuple[Path, ...]) -> None:
    gaussians = read_teacher(teachers[0]).gaussians
    numbers = sum(tensor.numel() for tensor in vars(gaussians).values())
    assert gaussian_bytes(len(gaussians), 3) == 4 * numbers == 4 * 59 * len(gaussians)
    assert gaussian_bytes(10, 0, copies=4) == 4 * 4 * 14 * 10


def test_what_is_free_is_what_the_system_says() -> None:
    assert available_bytes("cpu") == pytest.approx(psutil.virtual_memory().available, rel=0.1)


def test_what_fits_is_told_and_what_does_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    left = check_memory({"photos": 2_000_000_000, "Gaussians": 500_000_000}, 2_600_000_000)
    assert left == 100_000_000
    told = " ".join(capsys.readouterr().out.split())
    assert "at least 2.50 GB of memory (photos 2.00, Gaussians 0.50), and 2.60 GB are free" in told
    with pytest.raises(ValueError, match=r"needs at least 2\.50 GB"):
        check_memory({"photos": 2_000_000_000, "Gaussians": 500_000_000}, 2_499_999_999)


@pytest.mark.parametrize(
    ("needs", "first", "missing"),
    [
        ({"photos": 3, "Gaussians": 2}, "photos read from disk (--pipeline.datamanager.cache-images disk)", "teachers"),
        ({"photos": 2, "Gaussians": 3, "teachers": 1}, "fewer points in the capture", "label-cache"),
        ({"Gaussians": 2, "teachers": 3}, "smaller or fewer teachers (--pipeline.model.teachers)", "photos"),
    ],
)
def test_a_refusal_names_the_option_that_helps_most(needs: dict[str, int], first: str, missing: str) -> None:
    with pytest.raises(ValueError, match="To save memory, the most effective first: ") as refused:
        check_memory(needs, 1)
    sentence = str(refused.value)
    assert sentence.partition("effective first: ")[2].startswith(first) and missing not in sentence


def test_the_way_to_fewer_gaussians_is_one_that_helps(scene: Path, tmp_path: Path, teachers: tuple[Path, ...]) -> None:
    teacher = prepared(tiny_config(splatfacto_teacher, scene, tmp_path / "a", max_gaussians=5000)).pipeline.model
    assert "max-gaussians" in teacher.fewer_gaussians(400) and "max-gaussians" not in teacher.fewer_gaussians(6000)
    student = prepared(tiny_student(scene, tmp_path / "b", teachers)).pipeline.model
    assert "smaller standard teacher" in student.fewer_gaussians(400)


@pytest.mark.parametrize(("mode", "values"), [("RGB", 3), ("RGBA", 4), ("L", 3)])
def test_photos_with_alpha_need_a_third_more(mode: str, values: int, tmp_path: Path) -> None:
    Image.new(mode, (20, 10)).save(tmp_path / "photo.png")
    cameras = SimpleNamespace(width=torch.tensor([[20], [20]]), height=torch.tensor([[10], [10]]))
    parsed = SimpleNamespace(image_filenames=[tmp_path / "photo.png"] * 2)
    dataset = SimpleNamespace(cameras=cameras, _dataparser_outputs=parsed)
    config = SimpleNamespace(cache_images_type="uint8", float_cache_megabytes=1000)
    assert photo_bytes(dataset, config) == 2 * 200 * values
    assert photo_bytes(dataset, config, as_floats=True) == 2 * 200 * values * 4
    assert photo_bytes(dataset, config, pinned=True) == 2 * 1024  # 600 or 800 bytes each


def test_a_student_that_starts_with_a_smaller_splat_needs_less(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    big = tmp_path / "big.ply"
    write_ply(big, cloud(60_000))

    def gigabytes(**options: Any) -> float:
        capsys.readouterr()
        prepared(tiny_student(scene, tmp_path / str(len(options)), (big,), min_teacher_psnr=0.5, **options))
        told = " ".join(capsys.readouterr().out.split())
        return float(re.findall(r"Gaussians (\d\.\d\d), teachers", told)[-1])

    assert gigabytes(num_gaussians=100) == 0.06 and gigabytes(num_gaussians=100, start_with=teachers[0]) == 0.0


def test_labels_are_kept_up_to_half_of_what_is_free(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine photos and 250 views between the cameras of 64 x 48 pixels take 6.4 MB."""
    for free, budget in ((10**9, 50_000_000), (20_000_000, 10_000_000)):
        for module in ("datamanager", "model"):
            monkeypatch.setattr(f"distilled_splat.training.{module}.available_bytes", lambda device, free=free: free)
        config = tiny_student(scene, tmp_path / str(free), teachers, label_cache_megabytes=50)
        labels = prepared(config).pipeline.model.teaching.labels
        assert labels.budget == pytest.approx(budget, rel=0.2)


def test_the_estimate_of_a_run_is_what_it_then_holds(scene: Path, tmp_path: Path, teachers: tuple[Path, ...]) -> None:
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path))
    model, datamanager = trainer.pipeline.model, trainer.pipeline.datamanager
    floats, held_out = datamanager.cached_train, datamanager.cached_eval
    assert {photo["image"].dtype for photo in floats} == {torch.float32}
    assert {photo["image"].dtype for photo in held_out} == {torch.uint8}
    kept = sum(photo["image"].nbytes for photo in (*floats, *held_out))
    assert datamanager.photo_bytes() == kept == (9 * 4 + 3) * 64 * 48 * 3
    trainer.train()
    kept = [parameter for parameter in model.gauss_params.values()]
    moments = [
        value for optimizer in trainer.optimizers.optimizers.values()
        for state in optimizer.state.values() for value in state.values()
        if isinstance(value, torch.Tensor) and value.numel() > 1
    ]  # fmt: skip
    held = sum(tensor.nbytes for tensor in (*kept, *moments)) + sum(parameter.nbytes for parameter in kept)
    assert model.gaussian_bytes(model.num_points) == held


def test_a_resumed_run_needs_only_what_its_checkpoint_has_not_loaded_yet(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients: a quarter."""
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path))
    model, datamanager = trainer.pipeline.model, trainer.pipeline.datamanager
    for module in ("datamanager", "model"):
        monkeypatch.setattr(f"distilled_splat.training.{module}.available_bytes", lambda device: 10**9)
    fresh = model.check_memory(datamanager, model.num_points)
    resumed = model.check_memory(datamanager, model.num_points, resumed=True)
    assert resumed - fresh == 3 * model.gaussian_bytes(model.num_points) // 4


def test_gaussians_that_cannot_fit_are_refused_before_photos_are_loaded(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...]
) -> None:
    """A cap on the Gaussians that no machine could hold."""
    capped = tiny_config(splatfacto_teacher, scene, tmp_path, max_gaussians=10**12)
    assert "Gaussians 944000.00" in refusal(capped)
    student = tiny_student(scene, tmp_path, teachers, max_gaussians=10**12)
    assert "teachers 0.00" in refusal(student)


def test_photos_that_cannot_fit_stay_files(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photos of 200000 x 800 pixels that are blank files, beside a cap on the Gaussians that no machine could hold."""
    wide = Path(shutil.copytree(scene, tmp_path / "wide"))
    meta = json.loads((wide / "transforms.json").read_text())
    (wide / "transforms.json").write_text(json.dumps({**meta, "w": 200_000, "h": 800}))
    Image.new("L", (200_000, 800)).save(tmp_path / "wide.png")
    for photo in (wide / "images").glob("*.png"):
        shutil.copyfile(tmp_path / "wide.png", photo)
    config = tiny_config(splatfacto_teacher, wide, tmp_path, max_gaussians=10**11)
    refusal(config)
    assert "photos would take 5.76 GB, more than half of the free memory: each photo is read from disk" in " ".join(
        capsys.readouterr().out.split()
    )
