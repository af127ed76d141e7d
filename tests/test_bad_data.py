"""Captures that something is wrong with: one sentence that names the file, before any training."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image
from refusals import refusal
from tiny import prepared, tiny_config, tiny_student, tiny_teacher, trained

from distilled_splat.evaluation.compare import compare
from distilled_splat.evaluation.export import export
from distilled_splat.evaluation.held_out import open_run
from distilled_splat.evaluation.report import REPORT_NAME
from distilled_splat.methods import distilled_splatfacto, splatfacto_teacher
from distilled_splat.workflows.teacher_configs import parsed_scene


@pytest.fixture
def capture(scene: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scene, tmp_path / "a capture, ü"))


def edit(capture: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    meta = json.loads((capture / "transforms.json").read_text())
    change(meta)
    (capture / "transforms.json").write_text(json.dumps(meta))


def photo(capture: Path) -> Path:
    return capture / "images" / "0002.png"


def names(meta: dict[str, Any]) -> list[str]:
    return [frame["file_path"] for frame in meta["frames"]]


def backslashes(capture: Path, frames: int) -> None:
    """Write the paths of the last frames as Windows does."""

    def change(meta: dict[str, Any]) -> None:
        for frame in meta["frames"][-frames:]:
            frame["file_path"] = frame["file_path"].replace("/", "\\")

    edit(capture, change)


def redraw(capture: Path, size: tuple[int, int] = (64, 48), mode: str = "RGB") -> None:
    Image.new(mode, size).save(photo(capture))


def on_its_side(capture: Path, orientation: int) -> None:
    """Store a photo as a camera that is held upright does, with a note on how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (48, 64)).save(photo(capture), exif=exif)


def mask(capture: Path, value: int = 0, size: tuple[int, int] = (64, 48), frames: int = 1, mode: str = "L") -> None:
    """Give every frame a mask: that of one frame, mask.png, is of the kind that is asked for, the others are whole."""
    Image.new("L", size, value).convert(mode).save(capture / "mask.png")
    Image.new("L", (64, 48), 255).save(capture / "whole.png")

    def change(meta: dict[str, Any]) -> None:
        for number, frame in enumerate(meta["frames"]):
            frame["mask_path"] = "mask.png" if number == frames else "whole.png"

    edit(capture, change)


FAULTS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a photo is missing": (lambda capture: photo(capture).unlink(), ("0002.png is missing",)),
    "the first photo is missing": (
        lambda capture: (capture / "images" / "0001.png").unlink(),
        ("0001.png is missing: restore it",),
    ),
    "the folder of photos is missing": (
        lambda capture: (capture / "images").rename(capture / "photos"),
        ("images is missing", "restore it"),
    ),
    "a photo is a text": (lambda capture: photo(capture).write_text("no"), ("0002.png cannot be opened as a picture",)),
    "a photo is empty": (lambda capture: photo(capture).write_bytes(b""), ("0002.png cannot be opened",)),
    "a photo has another size": (
        lambda capture: redraw(capture, (63, 48)),
        ("0002.png has 63 x 48 pixels, but its camera says 64 x 48",),
    ),
    "a photo has a palette": (lambda capture: redraw(capture, mode="P"), ("0002.png is stored as P", "convert it")),
    "a photo has one bit": (lambda capture: redraw(capture, mode="1"), ("0002.png is stored as 1",)),
    "a photo has 16 bits": (lambda capture: redraw(capture, mode="I;16"), ("0002.png is stored as I;16",)),
    "a mask is missing": (
        lambda capture: (mask(capture, 255), (capture / "mask.png").unlink()),
        ("mask.png is missing",),
    ),
    "a mask has another size": (lambda capture: mask(capture, 255, (32, 24)), ("mask.png has another size",)),
    "a mask has a palette": (lambda capture: mask(capture, 255, mode="P"), ("mask.png is stored as P", "to grey")),
    "a mask has colours": (lambda capture: mask(capture, 255, mode="RGB"), ("mask.png is stored as RGB", "to grey")),
    "a mask of a held-out photo is transparent": (
        lambda capture: mask(capture, 255, mode="LA", frames=0),
        ("mask.png is stored as LA", "to grey"),
    ),
    "a held-out photo is missing": (
        lambda capture: (capture / "images" / "0005.png").unlink(),
        ("0005.png",),
    ),
    "a photo lies on its side": (
        lambda capture: on_its_side(capture, 6),
        ("0002.png has 48 x 64 pixels", "EXIF orientation (6)", "mogrify -auto-orient"),
    ),
    "a photo lies on its side, and nothing says so": (
        lambda capture: redraw(capture, (48, 64)),
        ("0002.png has 48 x 64 pixels", "turn the photo"),
    ),
    "paths of Windows": (lambda capture: backslashes(capture, 12), ("written on Windows", "in its paths by /")),
    "a path of Windows": (lambda capture: backslashes(capture, 1), ("written on Windows", "in its paths by /")),
    "backslashes that JSON does not know": (
        lambda capture: (capture / "transforms.json").write_text('{"frames": [{"file_path": "images\\x.png"}]}'),
        ("written on Windows", "Invalid"),
    ),
    "no held-out photos named": (
        lambda capture: edit(capture, lambda meta: meta.update(train_filenames=names(meta))),
        ("not the held-out photos", "test_filenames"),
    ),
    "no transforms": (lambda capture: (capture / "transforms.json").unlink(), ("cannot be read",)),
    "transforms are no JSON": (lambda capture: (capture / "transforms.json").write_text("{"), ("cannot be read",)),
    "no frames": (lambda capture: edit(capture, lambda meta: meta.pop("frames")), ("cannot be read", "frames")),
    "frames that are null": (
        lambda capture: edit(capture, lambda meta: meta.update(frames=None)),
        ("cannot be read", "TypeError"),
    ),
    "empty frames": (lambda capture: edit(capture, lambda meta: meta.update(frames=[])), ("cannot be read",)),
    "a pose of the wrong shape": (
        lambda capture: edit(capture, lambda meta: meta["frames"][3].update(transform_matrix=[[1, 0], [0, 1]])),
        ("cannot be read",),
    ),
    "no focal length": (lambda capture: edit(capture, lambda meta: meta.pop("fl_x")), ("cannot be read", "fx not")),
    "a single photo": (
        lambda capture: edit(capture, lambda meta: meta.update(frames=meta["frames"][:1])),
        ("cannot be read",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_for_a_teacher_and_before_the_first_teacher(
    capture: Path, tmp_path: Path, fault: str
) -> None:
    make, words = FAULTS[fault]
    make(capture)
    sentence = refusal(tiny_config(splatfacto_teacher, capture, tmp_path))
    assert all(word in sentence for word in (str(capture), *words)), sentence
    with pytest.raises(SystemExit) as refused:
        parsed_scene(tiny_config(distilled_splatfacto, capture, tmp_path))
    assert all(word in str(refused.value.code) for word in (str(capture), *words)), refused.value.code


def test_programs_that_do_not_fit_are_no_fault_of_the_data(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a newer nerfstudio gave its dataparsers another signature."""
    monkeypatch.setattr(DataParser, "get_dataparser_outputs", lambda self: None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'split'"):
        parsed_scene(tiny_config(distilled_splatfacto, capture, tmp_path))


def left_in_training(config: Any) -> str:
    """Train, and return the sentence with which that ends."""
    with pytest.raises(SystemExit) as left:
        trained(config)
    assert isinstance(left.value.code, str) and "\n" not in left.value.code
    return left.value.code


def test_a_photo_that_breaks_off_is_named(capture: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo(capture))
    photo(capture).write_bytes(photo(capture).read_bytes()[:5000])
    sentence = left_in_training(tiny_config(splatfacto_teacher, capture, tmp_path))
    assert str(photo(capture)) in sentence and "cannot be read" in sentence


def test_a_mask_that_leaves_nothing_is_named(capture: Path, tmp_path: Path) -> None:
    mask(capture, 0)
    sentence = left_in_training(tiny_config(splatfacto_teacher, capture, tmp_path))
    assert f"{capture / 'mask.png'} hides all of {photo(capture)}" in sentence


@pytest.mark.parametrize("how", ["a fraction of 1", "an empty list"])
def test_a_run_that_holds_nothing_out_is_trained_reported_and_exported_but_not_measured(
    capture: Path, tmp_path: Path, teachers: tuple[Path, ...], how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = NerfstudioDataParserConfig(load_3D_points=True, train_split_fraction=1.0)
    if how == "an empty list":
        edit(capture, lambda meta: meta.update(train_filenames=names(meta), val_filenames=[], test_filenames=[]))
    config = tiny_student(capture, tmp_path / "out", teachers[:1], num_gaussians=37, parser=parser)
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 2
    student = trained(config)
    run: Path = student.base_dir
    assert student.last_done == 3 and len(student.pipeline.datamanager.eval_dataset) == 0
    page = (run / REPORT_NAME).read_text()
    assert "No photos were held out" in page and "37 Gaussians" in page and "nan" not in page.lower()
    with pytest.raises(
        ValueError, match=re.escape(f"The run {run} has no held-out photos to measure it on")
    ) as refused:
        compare(run / "config.yml")
    assert "--train-split-fraction" in str(refused.value)
    with pytest.raises(ValueError, match="--no-measure"):
        export(run / "config.yml", tmp_path / "files", ("ply",), 3, "nerfstudio", measure=True)
    (file,) = export(run / "config.yml", tmp_path / "files", ("ply",), 3, "nerfstudio", measure=False)
    assert file.path.is_file()


@pytest.mark.parametrize("named", ["val", "test"])
def test_one_list_of_held_out_photos_serves_in_training_and_later(capture: Path, tmp_path: Path, named: str) -> None:
    def change(meta: dict[str, Any]) -> None:
        paths = names(meta)
        meta.update({"train_filenames": paths[:9], f"{named}_filenames": paths[9:]})

    edit(capture, change)
    parsed_scene(tiny_config(distilled_splatfacto, capture, tmp_path))
    run = tiny_teacher(capture, tmp_path).base_dir
    assert [held.photo.shape for held in open_run(run / "config.yml").held_out()] == [(48, 64, 3)] * 3


def test_without_points_a_splat_begins_at_random(capture: Path, tmp_path: Path) -> None:
    edit(capture, lambda meta: meta.pop("ply_file_path"))
    teacher = tiny_teacher(capture, tmp_path, num_random=300)
    assert teacher.pipeline.model.num_points == 300


def test_no_point_in_the_file_of_points_is_as_good_as_no_file(capture: Path, tmp_path: Path) -> None:
    points = (capture / "sparse_pc.ply").read_bytes()
    head = points[: points.index(b"end_header\n") + 11].replace(b"element vertex 400", b"element vertex 0")
    (capture / "sparse_pc.ply").write_bytes(head)
    teacher = tiny_teacher(capture, tmp_path, num_random=300)
    assert teacher.pipeline.model.num_points == 300


def test_distorted_photos_are_undistorted_for_teacher_and_student(capture: Path, tmp_path: Path) -> None:
    edit(capture, lambda meta: meta.update(k1=0.05, k2=0.01, p1=0.001, p2=0.001))
    teacher = tiny_teacher(capture, tmp_path / "teacher")
    student = trained(tiny_student(capture, tmp_path / "student", (teacher.base_dir,), num_gaussians=20))
    view, item = (
        student.pipeline.model.teaching.curriculum.photographed[0],
        student.pipeline.datamanager.cached_train[0],
    )
    assert (view.height, view.width) == tuple(item["image"].shape[:2])
    assert student.pipeline.model.num_points == 20


@pytest.mark.parametrize("model", ["EQUIRECTANGULAR", "ORTHOPHOTO"])
def test_cameras_that_are_no_pinholes_are_refused_by_name(
    capture: Path, tmp_path: Path, teachers: tuple[Path, ...], model: str
) -> None:
    edit(capture, lambda meta: meta.update(camera_model=model))
    assert model in refusal(tiny_config(splatfacto_teacher, capture, tmp_path))
    assert model in refusal(tiny_student(capture, tmp_path, teachers))


@pytest.mark.parametrize("kind", [CameraType.EQUIRECTANGULAR, CameraType.FISHEYE])
def test_a_camera_that_is_not_a_pinhole_is_refused_to_ns_render_with_what_to_give_instead(
    scene: Path, tmp_path: Path, kind: CameraType, capsys: pytest.CaptureFixture[str]
) -> None:
    model = prepared(tiny_config(splatfacto_teacher, scene, tmp_path)).pipeline.model.eval()
    camera = Cameras(torch.eye(4)[None, :3], 20.0, 20.0, 32.0, 24.0, 64, 48, camera_type=kind)
    with pytest.raises(SystemExit) as refused:
        model.get_outputs_for_camera(camera)
    assert refused.value.code == 1
    told = capsys.readouterr().out
    assert kind.name in told and "give ns-render perspective cameras" in told


def test_paths_with_spaces_and_letters_of_any_script(capture: Path, tmp_path: Path) -> None:
    odd = capture.rename(tmp_path / 'снимки 写真 \'n "q"')
    (odd / "images").rename(odd / "bilder ß")

    def change(meta: dict[str, Any]) -> None:
        for frame in meta["frames"]:
            frame["file_path"] = frame["file_path"].replace("images", "bilder ß")

    edit(odd, change)
    teacher = tiny_teacher(odd, tmp_path / "out dir ñ")
    student = prepared(tiny_student(odd, tmp_path / "out dir ñ", (teacher.base_dir,)))
    assert student.pipeline.model.num_points == 400
