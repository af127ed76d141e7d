"""A teacher must belong to the data: refusals before a student is trained on it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import write_ply
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from refusals import refusal
from tiny import prepared, tiny_config, tiny_parser, tiny_student, tiny_teacher

from distilled_splat.demo.scene import make_scene
from distilled_splat.methods import distilled_splatfacto
from distilled_splat.ops.losses import psnr
from distilled_splat.runs.record import read_record, update_record
from distilled_splat.teachers import fit as agreement
from distilled_splat.teachers.fit import check_frame
from distilled_splat.teachers.reading import Teacher, read_teacher


def test_psnr_of_a_known_error() -> None:
    image = torch.full((4, 4, 3), 0.5)
    assert psnr(image, image + 0.1) == pytest.approx(20.0, abs=1e-4)
    assert psnr(image, image) == pytest.approx(120.0)


def moved(run: Path, to: Path, transform_by: float = 0.0, scale_by: float = 1.0) -> Path:
    """Return a copy of a run that says it was trained in another frame."""
    shutil.copytree(run, to)
    note = json.loads((to / "dataparser_transforms.json").read_text())
    note["transform"][0][3] += transform_by
    note["scale"] *= scale_by
    (to / "dataparser_transforms.json").write_text(json.dumps(note))
    return to


@pytest.mark.parametrize("change", [{"transform_by": 0.01}, {"scale_by": 1.01}])
def test_a_teacher_of_another_frame_is_refused(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], change: dict[str, float]
) -> None:
    other = moved(teachers[0], tmp_path / "other", **change)
    sentence = refusal(tiny_student(scene, tmp_path, (teachers[1], other)))
    assert str(other) in sentence and "another frame" in sentence and "--orientation-method" in sentence


def test_rounding_does_not_make_another_frame(tmp_path: Path, teachers: tuple[Path, ...]) -> None:
    teacher = read_teacher(moved(teachers[0], tmp_path / "same", transform_by=1e-6, scale_by=1 + 1e-6))
    assert teacher.frame is not None
    frame = read_teacher(teachers[0]).frame
    assert frame is not None
    check_frame(teacher, *frame)
    check_frame(replace(teacher, frame=None), torch.zeros(3, 4), 5.0)


def test_a_teacher_of_another_scene_is_refused_by_its_pictures(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...]
) -> None:
    """The other teacher's frame is the same; the pictures alone tell."""
    state = read_teacher(teachers[0])
    path = tmp_path / "run" / "nerfstudio_models" / "step-000000001.ckpt"
    path.parent.mkdir(parents=True)
    shutil.copy(teachers[0] / "dataparser_transforms.json", tmp_path / "run")
    content = torch.load(state.path, weights_only=True)
    content["pipeline"]["_model.gauss_params.features_dc"].fill_(5.0)  # white
    torch.save(content, path)
    limit = 12.0
    config = tiny_student(scene, tmp_path, (path,), min_teacher_psnr=limit)
    sentence = refusal(config)
    assert not config.get_base_dir().exists(), "a folder of a run that never was"
    assert str(path) in sentence and "does not fit this data" in sentence and "min-teacher-psnr (12)" in sentence
    prepared(tiny_student(scene, tmp_path, teachers, min_teacher_psnr=limit))


def test_a_teacher_of_this_very_data_is_warned_of_only(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """After twelve steps none agrees with the photos to 40 dB."""
    prepared(tiny_student(scene, tmp_path / "own", teachers, min_teacher_psnr=40.0))
    assert "was trained on this data, but the PSNR of its renders is only" in words(capsys)
    other = Path(shutil.copytree(teachers[0], tmp_path / "other"))
    update_record(other, scene="of another")
    assert "does not fit this data" in refusal(tiny_student(scene, tmp_path, (other,), min_teacher_psnr=40.0))


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("fault", ["missing", "diverged", "cut off"])
def test_a_teacher_that_cannot_be_read_is_refused_before_a_folder_is_made(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], fault: str
) -> None:
    bad = tmp_path / "bad.ply"
    gaussians = read_teacher(teachers[0]).gaussians
    if fault == "diverged":
        write_ply(bad, replace(gaussians, means=gaussians.means * float("nan")))
    elif fault == "cut off":
        bad.write_bytes(write_ply(bad, gaussians).read_bytes()[:-10])
    config = tiny_student(scene, tmp_path / "output", (teachers[1], bad))
    with pytest.raises(SystemExit, match=r"bad\.ply"):
        config.set_timestamp()
    assert not (tmp_path / "output").exists()


def test_a_teacher_is_rendered_once_in_each_frame_that_it_may_be_in(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_ply(tmp_path / "teacher.ply", read_teacher(teachers[0]).gaussians)
    measure, measured = agreement.mean_psnr, []

    def counted(teacher: Teacher, *arguments: Any) -> float:
        measured.append(teacher.path)
        return measure(teacher, *arguments)

    monkeypatch.setattr(agreement, "mean_psnr", counted)
    prepared(tiny_student(scene, tmp_path, (path, teachers[1])))
    assert sorted(measured) == sorted([path, path, path, read_teacher(teachers[1]).path])  # three frames of a .ply


def test_a_teacher_that_saw_the_held_out_photos_is_told_of(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(tiny_student(scene, tmp_path / "honest", teachers))
    assert "held-out" not in capsys.readouterr().out
    knowing = tmp_path / "knowing"
    shutil.copytree(teachers[0], knowing)
    update_record(knowing, photos=[*read_record(knowing)["photos"], "0001.png", "0005.png"])
    prepared(tiny_student(scene, tmp_path, (knowing,)))
    assert "trained on 2 of the 3 held-out photos" in " ".join(capsys.readouterr().out.split())


def test_a_missing_teacher_is_refused_by_its_path(scene: Path, tmp_path: Path) -> None:
    sentence = refusal(tiny_student(scene, tmp_path, (tmp_path / "nowhere",)))
    assert str(tmp_path / "nowhere") in sentence and "does not exist" in sentence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep_fraction": 0.0}, "keep-fraction 0.0"),
        ({"keep_fraction": 1.5}, "keep-fraction 1.5"),
        ({"keep_fraction": float("nan")}, "keep-fraction nan"),
        ({"num_gaussians": 0}, "num-gaussians 0"),
        ({"prune_views": 0}, "prune-views 0 must be at least 1"),
        ({"prune_times": 0}, "prune-times 0 must be at least 1"),
        ({"prune_start": 20000}, "prune-start"),
        ({"prune_stop": 30000}, "must be within the run"),
        ({"start_from": "points", "stop_split_at": 24000}, "stop-split-at 24000: the last pruning, at step 30000"),
        ({"use_bilateral_grid": True}, "use-bilateral-grid"),
        ({"camera_optimizer": CameraOptimizerConfig(mode="SO3xR3")}, "camera-optimizer"),
        ({"virtual_fraction": 1.0}, "--pipeline.model.virtual-fraction 1.0"),
        ({"virtual_spread": -0.1}, "--pipeline.model.virtual-spread -0.1"),
        ({"virtual_spread": float("nan")}, "--pipeline.model.virtual-spread nan"),
        ({"min_teacher_advantage": -1.0}, "--pipeline.model.min-teacher-advantage -1.0"),
        ({"full_overfit_gap": -0.1}, "--pipeline.model.full-overfit-gap -0.1"),
        ({"max_teacher_disagreement": -1.0}, "--pipeline.model.max-teacher-disagreement -1.0"),
        ({"structure_resolutions": (16, 1)}, "structure-resolutions"),
        ({"lambda_depth": -1.0}, "lambda-depth -1.0 must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_teacher_is_trained(
    scene: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    sentence = refusal(tiny_config(distilled_splatfacto, scene, tmp_path, 100, **options))
    assert words in sentence
    assert not list(tmp_path.glob("scene/splatfacto-teacher/*"))


def test_a_fisheye_camera_that_nobody_undistorts_is_refused(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...]
) -> None:
    fisheye = tmp_path / "fisheye"
    shutil.copytree(scene, fisheye)
    meta = json.loads((fisheye / "transforms.json").read_text())
    (fisheye / "transforms.json").write_text(json.dumps({**meta, "camera_model": "OPENCV_FISHEYE"}))
    assert "FISHEYE" in refusal(tiny_student(fisheye, tmp_path, teachers))


def test_a_fisheye_camera_that_nerfstudio_undistorts_is_as_good_as_any(scene: Path, tmp_path: Path) -> None:
    fisheye = tmp_path / "fisheye"
    shutil.copytree(scene, fisheye)
    meta = json.loads((fisheye / "transforms.json").read_text())
    meta = {**meta, "camera_model": "OPENCV_FISHEYE", "k1": 0.05, "k2": 0.01, "k3": 0.0, "k4": 0.0}
    (fisheye / "transforms.json").write_text(json.dumps(meta))
    teacher = tiny_teacher(fisheye, tmp_path / "teacher")
    prepared(tiny_student(fisheye, tmp_path / "student", (teacher.base_dir,)))


def test_teachers_of_a_scene_of_the_same_name_elsewhere_do_not_fit(tmp_path: Path, teachers: tuple[Path, ...]) -> None:
    other = make_scene(tmp_path / "scene", views=12, width=64, height=48, points=400, seed=1)
    sentence = refusal(tiny_student(other, tmp_path, teachers, parser=tiny_parser()))
    assert "another frame" in sentence
