"""What splatfacto's options do here: each is trained for a few steps on the tiny scene and looked at."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.scene_box import OrientedBox
from PIL import Image
from tiny import prepared, tiny_config, tiny_student, tiny_teacher, trained

from distilled_splat.methods import splatfacto_teacher
from distilled_splat.teachers.reading import read_teacher


def one_step_inputs(trainer: Any) -> tuple[Any, dict[str, Any]]:
    """Return a camera and its batch, the model being in training."""
    trainer.pipeline.train()
    return trainer.pipeline.datamanager.next_train(trainer.step)


def edited(scene: Path, copy_to: Path, edit: Any) -> Path:
    """Return a copy of a scene whose transforms.json was passed through `edit`."""
    shutil.copytree(scene, copy_to)
    meta = json.loads((copy_to / "transforms.json").read_text())
    edit(meta)
    (copy_to / "transforms.json").write_text(json.dumps(meta))
    return copy_to


def test_random_background_is_drawn_anew_and_lies_under_photo_and_render(tmp_path: Path, scene: Path) -> None:
    trainer = tiny_teacher(scene, tmp_path, background_color="random")
    camera, _ = one_step_inputs(trainer)
    model = trainer.pipeline.model
    first, second = (model.get_outputs(camera) for _ in range(2))
    assert not torch.equal(first["background"], second["background"])
    difference = (1 - first["accumulation"]) * (first["background"] - second["background"])
    assert torch.allclose(first["rgb"] - second["rgb"], difference, atol=1e-5)


@pytest.mark.parametrize(("name", "colour"), [("white", 1.0), ("black", 0.0)])
def test_a_named_background_shows_where_no_gaussian_is(tmp_path: Path, scene: Path, name: str, colour: float) -> None:
    trainer = tiny_teacher(scene, tmp_path, background_color=name)
    camera, _ = one_step_inputs(trainer)
    trainer.pipeline.model.opacities.data.fill_(-20)
    assert torch.equal(trainer.pipeline.model.get_outputs(camera)["rgb"], torch.full((48, 64, 3), colour))


def test_depth_is_rendered_in_training_where_it_is_asked_for(tmp_path: Path, scene: Path) -> None:
    for asked in (False, True):
        trainer = tiny_teacher(scene, tmp_path / str(asked), output_depth_during_training=asked)
        camera, _ = one_step_inputs(trainer)
        depth = trainer.pipeline.model.get_outputs(camera)["depth"]
        if not asked:
            assert depth is None
            continue
        assert depth.shape == (48, 64, 1) and bool((depth > 0).all()) and bool(torch.isfinite(depth).all())


def test_an_antialiased_teacher_renders_otherwise_and_is_read_as_one(tmp_path: Path, scene: Path) -> None:
    trainer = tiny_teacher(scene, tmp_path, rasterize_mode="antialiased")
    model = trainer.pipeline.model.eval()
    camera = trainer.pipeline.datamanager.train_cameras[:1]
    antialiased = model.get_outputs(camera)["accumulation"]
    model.config.rasterize_mode = "classic"
    assert float((model.get_outputs(camera)["accumulation"] - antialiased).detach().min()) >= -1e-6
    assert not torch.allclose(model.get_outputs(camera)["accumulation"], antialiased, atol=1e-3)
    assert read_teacher(trainer.base_dir).antialiased


@pytest.mark.parametrize("sh_degree", [0, 1])
def test_fewer_harmonics_for_teacher_and_student(
    tmp_path: Path, scene: Path, teachers: tuple[Path, ...], sh_degree: int
) -> None:
    teacher = tiny_teacher(scene, tmp_path / "teacher", sh_degree=sh_degree)
    coefficients = (sh_degree + 1) ** 2 - 1
    assert teacher.pipeline.model.features_rest.shape[1:] == (coefficients, 3)
    assert read_teacher(teacher.base_dir).gaussians.sh_degree == sh_degree

    of_all_kinds = (*teachers, teacher.base_dir)
    student = trained(tiny_student(scene, tmp_path / "student", of_all_kinds, sh_degree=sh_degree))
    assert student.pipeline.model.features_rest.shape == (48, coefficients, 3)


def test_a_student_starts_as_its_teacher_looks_whatever_the_degree(
    tmp_path: Path, scene: Path, teachers: tuple[Path, ...]
) -> None:
    teacher = tiny_teacher(scene, tmp_path / "teacher", sh_degree=0)
    cameras = teacher.pipeline.datamanager.train_cameras[:1]
    expected = teacher.pipeline.model.eval().get_outputs(cameras)["rgb"]
    for degree in (0, 3):
        options = {"sh_degree": degree, "background_color": teacher.pipeline.model.config.background_color}
        student = prepared(tiny_student(scene, tmp_path / str(degree), (teacher.base_dir,), **options))
        shown = student.pipeline.model.eval().get_outputs(cameras)["rgb"]
        assert torch.allclose(shown, expected, atol=2e-3)


@pytest.mark.parametrize("mode", ["SO3xR3", "SE3"])
def test_poses_are_optimised_in_a_teacher(tmp_path: Path, scene: Path, mode: Literal["SO3xR3", "SE3"]) -> None:
    trainer = tiny_teacher(scene, tmp_path, iterations=8, camera_optimizer=CameraOptimizerConfig(mode=mode))
    moved = trainer.pipeline.model.camera_optimizer.pose_adjustment
    assert moved.shape == (9, 6)
    assert int((moved.abs().amax(dim=1) > 0).sum()) >= 5
    camera = trainer.pipeline.datamanager.train_cameras[:1]
    camera.metadata = {"cam_idx": int(moved.abs().amax(dim=1).argmax())}
    model = trainer.pipeline.model
    model.config.num_downscales = 0
    model.config.background_color = "black"
    in_training = model.train().get_outputs(camera)["rgb"]
    assert not torch.equal(in_training, model.eval().get_outputs(camera)["rgb"])


def test_the_bilateral_grid_of_a_teacher_is_trained(tmp_path: Path, scene: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path, use_bilateral_grid=True)
    trainer = prepared(config)
    before = trainer.pipeline.model.bil_grids.grids.detach().clone()
    trainer.train()
    assert before.shape[0] == 9
    assert not torch.equal(trainer.pipeline.model.bil_grids.grids, before)


def test_stretched_gaussians_are_regularised_every_tenth_step(tmp_path: Path, scene: Path) -> None:
    trainer = tiny_teacher(scene, tmp_path, use_scale_regularization=True, max_gauss_ratio=1.5)
    model = trainer.pipeline.model
    camera, batch = one_step_inputs(trainer)
    model.scales.data[:, 0] = model.scales.data[:, 1:].amax(dim=1) + math.log(3.5)
    for step, expected in ((20, True), (21, False)):
        model.step = step
        losses = model.get_loss_dict(model.get_outputs(camera), batch)
        assert ("scale_reg" in losses) == expected
    model.step = 20
    assert float(model.get_loss_dict(model.get_outputs(camera), batch)["scale_reg"]) >= 0.1 * 2


def test_without_absgrad_and_without_points_it_trains_too(tmp_path: Path, scene: Path) -> None:
    options = {"use_absgrad": False, "random_init": True, "num_random": 200, "random_scale": 1.0}
    trainer = tiny_teacher(scene, tmp_path, **options)
    assert trainer.pipeline.model.num_points == 200
    assert trainer.pipeline.model.strategy.absgrad is False


def test_a_crop_box_leaves_out_what_is_outside(tmp_path: Path, scene: Path) -> None:
    trainer = tiny_teacher(scene, tmp_path)
    model = trainer.pipeline.model.eval()
    camera = trainer.pipeline.datamanager.train_cameras[:1]

    def seen(half: float, centre: tuple[float, float, float]) -> dict[str, Any]:
        angles, sizes = (0.0, 0.0, 0.0), (2 * half, 2 * half, 2 * half)
        return model.get_outputs_for_camera(camera, obb_box=OrientedBox.from_params(centre, angles, sizes))

    everything = model.get_outputs_for_camera(camera)
    assert torch.equal(seen(100.0, (0.0, 0.0, 0.0))["accumulation"], everything["accumulation"])
    part = seen(0.3, (0.0, 0.0, 0.0))["accumulation"]
    assert 0 < float(part.sum()) < 0.9 * float(everything["accumulation"].sum())
    nothing = seen(0.1, (50.0, 0.0, 0.0))
    assert nothing["rgb"].shape == everything["rgb"].shape and not nothing["accumulation"].any()
    assert torch.equal(model.get_outputs_for_camera(camera)["rgb"], everything["rgb"]), "the box is gone again"


def test_masked_pixels_do_not_count(tmp_path: Path, scene: Path, teachers: tuple[Path, ...]) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :32] = 255

    def with_masks(meta: dict[str, Any]) -> None:
        for frame in meta["frames"]:
            frame["mask_path"] = "mask.png"

    masked = edited(scene, tmp_path / "masked", with_masks)
    Image.fromarray(mask).save(masked / "mask.png")
    options: dict[str, Any] = {"background_color": "black", "num_downscales": 0, "lambda_kd": 1.0}
    student = trained(
        tiny_student(masked, tmp_path, teachers, virtual_fraction=0.0, min_teacher_advantage=0.0, **options)
    )
    camera, batch = one_step_inputs(student)
    model = student.pipeline.model
    outputs = model.get_outputs(camera)
    losses = model.get_loss_dict(outputs, batch)
    assert set(losses) == {"main_loss", "kd_loss", "depth_loss"}

    scribbled = {**batch, "image": batch["image"].clone()}
    scribbled["image"][:, 32:] = 0
    assert torch.equal(model.get_loss_dict(outputs, scribbled)["main_loss"], losses["main_loss"])
    scribbled["image"][:, :32] = 0
    assert not torch.equal(model.get_loss_dict(outputs, scribbled)["main_loss"], losses["main_loss"])
    outputs["rgb"].retain_grad()
    outputs["depth"].retain_grad()
    losses = model.get_loss_dict(outputs, batch)
    (losses["kd_loss"] + losses["depth_loss"]).backward()
    for name in ("rgb", "depth"):
        assert outputs[name].grad[:, :32].any() and not outputs[name].grad[:, 32:].any()


@pytest.fixture
def blender_scene(tmp_path: Path) -> Path:
    """Four RGBA photos from four sides: a red square, half transparent at its left, on nothing."""
    folder = tmp_path / "blender"
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = (255, 0, 0, 255)
    pixels[8:24, 8:12, 3] = 128
    frames = []
    for number in range(4):
        cos, sin = round(math.cos(number * math.pi / 2)), round(math.sin(number * math.pi / 2))
        pose = [[cos, 0, sin, 3.0 * sin], [sin, 0, -cos, -3.0 * cos], [0, 1, 0, 0], [0, 0, 0, 1]]
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        frames.append({"file_path": f"./images/{number}", "transform_matrix": pose})
    for split in ("train", "val", "test"):
        content = {"camera_angle_x": 0.7, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder


def test_transparent_photos_lie_over_the_steps_background(tmp_path: Path, blender_scene: Path) -> None:
    options = {"num_random": 100, "random_scale": 1.0, "num_downscales": 0}
    parser = BlenderDataParserConfig(alpha_color=None)
    teacher = tiny_teacher(blender_scene, tmp_path / "teacher", parser=parser, **options)
    _, batch = one_step_inputs(teacher)
    assert batch["image"].shape == (32, 32, 4)
    background = torch.tensor([0.2, 0.4, 0.6])
    photo = teacher.pipeline.model.photo(batch, background)
    assert torch.allclose(photo[0, 0], background, atol=1e-6)
    assert torch.allclose(photo[16, 16], torch.tensor([1.0, 0, 0]), atol=1e-6)
    half = 128 / 255 * torch.tensor([1.0, 0, 0]) + 127 / 255 * background
    assert torch.allclose(photo[16, 10], half, atol=1e-6)

    config = tiny_student(
        blender_scene, tmp_path / "student", (teacher.base_dir,), parser=copy.deepcopy(parser), num_gaussians=20
    )
    assert trained(config).pipeline.model.num_points == 20


def test_more_than_500_photos_on_a_machine_without_pinned_memory(tmp_path: Path, scene: Path) -> None:
    def many(meta: dict[str, Any]) -> None:
        meta["frames"] = [
            {**meta["frames"][number % 12], "file_path": f"images/{number % 12 + 1:04d}.png"} for number in range(700)
        ]

    trainer = tiny_teacher(edited(scene, tmp_path / "many", many), tmp_path)
    assert len(trainer.pipeline.datamanager.cached_train) == 525
    assert trainer.pipeline.datamanager.config.cache_images == "cpu", "nerfstudio asked for pinned memory"


def test_a_resolution_that_rises_ends_at_the_photos_own(tmp_path: Path, scene: Path) -> None:
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path, iterations=30, num_downscales=2))
    model, sizes = trainer.pipeline.model, []
    camera, _ = one_step_inputs(trainer)
    for step in (0, 3, 6, 29):
        model.step_cb(trainer.optimizers, step)
        sizes.append(tuple(model.get_outputs(camera)["rgb"].shape[:2]))
    assert sizes == [(12, 16), (24, 32), (48, 64), (48, 64)]
