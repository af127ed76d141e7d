"""Options of teachers and students that take another way through the code, on the sham device as on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from tiny import prepared

from distilled_splat.training.photo_files import PhotoFiles
from sham_cuda.ledger import Ledger
from sham_cuda.trainings import Run, student_on, teacher_on, train

STEPS = 8
TEACHERS: dict[str, dict[str, Any]] = {
    "photos of half the size first": {"num_downscales": 1, "resolution_schedule": 4},
    "poses that are optimised": {"camera_optimizer": CameraOptimizerConfig(mode="SO3xR3")},
    "colours of each photo": {"use_bilateral_grid": True, "grid_shape": (4, 4, 2)},
    "points at random": {"random_init": True, "num_random": 300, "random_scale": 1.0},
    "harmonics of degree 0": {"sh_degree": 0},
    "antialiasing, gaunt Gaussians and depth": {
        "rasterize_mode": "antialiased",
        "use_scale_regularization": True,
        "output_depth_during_training": True,
    },
    "a limit of Gaussians": {
        "max_gaussians": 405,
        "refine_every": 2,
        "min_refine_every": 2,
        "densify_grad_thresh": 0.0,
        "stop_screen_size_at": 4000,
        "cull_alpha_thresh": 0.005,
        "stop_split_at": 14,
        "steps": 14,
        "schedule_length": 14,
    },
}
STUDENTS: dict[str, dict[str, Any]] = {
    "labels that are not kept, and the structural loss": {
        "label_cache_megabytes": 0.0,
        "lambda_kd": 1.0,
        "lambda_structure": 1.0,
        "structure_every": 3,
        "lambda_depth": 0.2,
        "structure_resolutions": (32,),
    },
    "labels of half the size first, with depth": {
        "num_downscales": 1,
        "resolution_schedule": 4,
        "lambda_kd": 1.0,
        "lambda_depth": 0.2,
    },
    "labels that must earn their trust, and pruning that is drawn by weight": {
        "min_teacher_advantage": 0.25,
        "full_overfit_gap": 0.3,
        "max_teacher_disagreement": 1.0,
        "lambda_kd": 1.0,
        "prune_importance": "weight",
        "prune_sampling": True,
    },
}


def trained_as_on_the_cpu(config_on: Callable[[str], Any]) -> Run:
    """Train a config on the sham device, assert that its losses are the CPU's, and return the run."""
    on_device, on_cpu = train(config_on("cuda")), train(config_on("cpu"))
    assert on_device.is_on_device and not on_cpu.is_on_device
    assert on_device.counts == on_cpu.counts
    for step, (here, there) in enumerate(zip(on_device.losses, on_cpu.losses)):
        assert all(math.isfinite(value) for value in here.values()), step
        assert here == pytest.approx(there, rel=1e-3, abs=1e-4), step
    return on_device


def options_of(more: dict[str, Any]) -> dict[str, Any]:
    """Let a run be short, look at few views, and not be evaluated."""
    return {"steps": STEPS, "schedule_length": STEPS, "evaluated": False, **more}


@pytest.mark.parametrize("name", TEACHERS)
def test_teachers_with(name: str, scene: Path, tmp_path: Path) -> None:
    options = options_of({"stop_split_at": 0, **TEACHERS[name]})
    run = trained_as_on_the_cpu(lambda device: teacher_on(device, scene, tmp_path / device, **options))
    if "max_gaussians" in options:
        assert run.counts[-1] == options["max_gaussians"]


@pytest.mark.parametrize("name", STUDENTS)
def test_students_with(name: str, scene: Path, folders: tuple[Path, ...], tmp_path: Path) -> None:
    options = options_of({"prune_stop": 4, "virtual_views": 9, **STUDENTS[name]})
    trained_as_on_the_cpu(lambda device: student_on(device, scene, tmp_path / device, folders, **options))


@pytest.mark.parametrize("cache_images", ["cpu", "gpu"])
def test_photos_with_masks_in_memory_of(
    cache_images: str, masked_scene: Path, folders: tuple[Path, ...], tmp_path: Path
) -> None:
    options = options_of({"prune_stop": 4, "lambda_kd": 1.0, "cache_images": cache_images, "evaluated": True})
    run = trained_as_on_the_cpu(lambda device: student_on(device, masked_scene, tmp_path / device, folders, **options))
    datamanager = run.trainer.pipeline.datamanager
    batches = [*datamanager.cached_train, *datamanager.cached_eval]
    on_device = cache_images == "gpu"
    assert all(batch[name].is_cuda == on_device for batch in batches for name in ("image", "mask"))
    assert on_device or all(batch[name].is_pinned() for batch in batches for name in ("image", "mask"))
    assert on_device or all(batch["image"].dtype == torch.uint8 for batch in batches)
    camera, held_out = next(iter(datamanager.fixed_indices_eval_dataloader))
    assert camera.camera_to_worlds.is_cuda and held_out["image"].is_cuda and held_out["mask"].is_cuda


def test_held_out_photos_come_to_the_device_one_at_a_time(
    masked_scene: Path, folders: tuple[Path, ...], tmp_path: Path, ledger: Ledger
) -> None:
    trainer = prepared(student_on("cuda", masked_scene, tmp_path, folders, cache_images="cpu"))
    datamanager = trainer.pipeline.datamanager
    for batch in datamanager.cached_eval:
        batch["image"] = batch["image"].clone()  # copies from memory that is not pinned are counted
    ledger.clear()
    photos = datamanager.fixed_indices_eval_dataloader
    assert len(photos) == 3 and photos[1][1]["image"].is_cuda
    one = batch["image"].nbytes
    assert one <= sum(ledger.bytes.values()) < 2 * one


def test_photos_that_stay_files_come_to_the_device_pinned(
    masked_scene: Path, folders: tuple[Path, ...], tmp_path: Path
) -> None:
    options = options_of({"prune_stop": 4, "lambda_kd": 1.0, "cache_images": "disk", "evaluated": True})
    run = trained_as_on_the_cpu(lambda device: student_on(device, masked_scene, tmp_path / device, folders, **options))
    datamanager = run.trainer.pipeline.datamanager
    for photos in (datamanager.cached_train, datamanager.cached_eval):
        assert isinstance(photos, PhotoFiles)
        assert all(photos[0][name].is_pinned() and not photos[0][name].is_cuda for name in ("image", "mask"))
    camera, photo = datamanager.next_train(0)
    assert camera.camera_to_worlds.is_cuda and photo["image"].is_cuda and photo["mask"].is_cuda


@pytest.mark.parametrize(
    ("gpu", "computer", "place", "told"),
    [
        (10**9, 1000, "gpu", "(photos 0.00, Gaussians 0.00)"),
        (500_000, 10**9, "cpu", "they stay in the computer's memory"),
        (500_000, 1000, "disk", "each photo is read from disk"),
    ],
)
def test_photos_are_kept_where_there_is_room(
    gpu: int,
    computer: int,
    place: str,
    told: str,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twelve photos are 0.33 MB as floats and 0.11 MB as bytes, 400 Gaussians 0.38 MB."""

    def free(device: torch.device | str) -> int:
        return computer if torch.device(device).type == "cpu" else gpu

    for module in ("datamanager", "model"):
        monkeypatch.setattr(f"distilled_splat.training.{module}.available_bytes", free)
    trainer = train(teacher_on("cuda", scene, tmp_path, **options_of({}))).trainer
    assert trainer.pipeline.datamanager.place == place
    assert told in " ".join(capsys.readouterr().out.split())
