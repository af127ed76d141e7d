"""Photos that stay files: read just before their steps, and the training is the same to the last bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from PIL import Image
from tiny import prepared, tiny_config, tiny_student, trained

from distilled_splat.evaluation.held_out import open_run
from distilled_splat.methods import splatfacto_teacher
from distilled_splat.training.memory import Place, photo_bytes, place_for
from distilled_splat.training.photo_files import AHEAD, PhotoFiles
from distilled_splat.training.photos import header_of

STEPS = 24
"""More than two rounds over the nine photos."""


def masked(capture: Path, meta: dict[str, Any]) -> None:
    """Give every photo a mask of its own that takes a corner away."""
    for number, frame in enumerate(meta["frames"]):
        pixels = np.full((48, 64), 255, np.uint8)
        pixels[: 4 + number, : 20 - number] = 0
        frame["mask_path"] = f"mask-{number}.png"
        Image.fromarray(pixels).save(capture / frame["mask_path"])


def transparent(capture: Path, meta: dict[str, Any]) -> None:
    """Store the photos as RGBA, each transparent in another place."""
    for number, frame in enumerate(meta["frames"]):
        image = Image.open(capture / frame["file_path"]).convert("RGBA")
        alpha = Image.new("L", image.size, 255)
        alpha.paste(100, (number, number, number + 20, number + 10))
        image.putalpha(alpha)
        image.save(capture / frame["file_path"])


def distorted(capture: Path, meta: dict[str, Any]) -> None:
    """Say that the lens bends lines, and that every camera differs a little."""
    for number, frame in enumerate(meta["frames"]):
        frame.update({name: meta[name] for name in ("fl_y", "cx", "cy", "w", "h")}, fl_x=meta["fl_x"] + number / 10)
        frame.update(k1=0.05, k2=0.01, p1=0.001, p2=0.001)


KINDS: dict[str, tuple[Callable[[Path, dict[str, Any]], None], ...]] = {
    "plain": (),
    "transparent": (transparent,),
    "undistorted, with masks": (distorted, masked),
}


@pytest.fixture(params=KINDS)
def capture(request: pytest.FixtureRequest, scene: Path, tmp_path: Path) -> Path:
    capture = Path(shutil.copytree(scene, tmp_path / "capture"))
    meta = json.loads((capture / "transforms.json").read_text())
    for change in KINDS[request.param]:
        change(capture, meta)
    (capture / "transforms.json").write_text(json.dumps(meta))
    return capture


def from_files(config: Any) -> Any:
    """Let a config's photos stay files."""
    config.pipeline.datamanager.cache_images = "disk"
    return config


def outcome(trainer: Any) -> list[torch.Tensor]:
    """Return all that a training has learned."""
    return [parameter.detach() for parameter in trainer.pipeline.model.gauss_params.values()]


def assert_the_same(one: Any, other: Any) -> None:
    """Assert that two trainings have learned the same, to the last bit."""
    assert all(torch.equal(here, there) for here, there in zip(outcome(one), outcome(other), strict=True))


def test_photos_are_read_as_nerfstudio_would_cache_them(capture: Path, tmp_path: Path) -> None:
    datamanager = prepared(tiny_config(splatfacto_teacher, capture, tmp_path / "out")).pipeline.datamanager
    files = PhotoFiles(datamanager.create_train_dataset(), "uint8", capture)
    mine = list(files.in_order())
    stock = FullImageDatamanager._load_images(datamanager, "train", "gpu")
    assert len(mine) == len(stock) == 9
    for own, theirs in zip(mine, stock):
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[name], theirs[name]) for name in ("image", "mask") if name in own)
    for name in ("fx", "fy", "cx", "cy", "width", "height"):
        settled = getattr(files.dataset.cameras, name)
        assert torch.equal(settled, getattr(datamanager.train_dataset.cameras, name)), name
    assert torch.equal(files[3]["image"], mine[3]["image"]), "the second time it is undistorted by the same camera"


def test_teacher_and_student_are_the_same_with_photos_in_memory_and_in_files(capture: Path, tmp_path: Path) -> None:
    kept = trained(tiny_config(splatfacto_teacher, capture, tmp_path / "kept", STEPS))
    read = trained(from_files(tiny_config(splatfacto_teacher, capture, tmp_path / "read", STEPS)))
    assert isinstance(read.pipeline.datamanager.cached_train, PhotoFiles)
    assert isinstance(read.pipeline.datamanager.cached_eval, PhotoFiles)
    assert_the_same(kept, read)

    teachers = (kept.base_dir,)
    students = [tiny_student(capture, tmp_path / name, teachers, STEPS, num_gaussians=60) for name in ("a", "b")]
    for config in students:
        config.steps_per_eval_image = config.steps_per_eval_all_images = 10
    student = trained(students[0])
    assert_the_same(student, trained(from_files(students[1])))
    assert [held.place for held in open_run(student.base_dir / "config.yml").held_out()] == [0, 1, 2]


def test_a_training_reads_each_photo_once_a_turn_and_a_few_ahead(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = from_files(tiny_config(splatfacto_teacher, scene, tmp_path, STEPS))
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    trainer = prepared(config)
    photos = trainer.pipeline.datamanager.cached_train
    assert len(photos) == 9
    read: list[int] = []
    once = PhotoFiles.undistorted

    def noted(files: PhotoFiles, index: int) -> Any:
        if files is photos:
            read.append(index)
        return once(files, index)

    monkeypatch.setattr(PhotoFiles, "undistorted", noted)
    trainer.train()
    waiting = set(photos.coming)
    for future in photos.coming.values():
        future.result()
    assert len(waiting) <= AHEAD and len(read) == STEPS + len(waiting)
    turns = sorted(read[:9]), sorted(read[9:18])
    assert turns == (list(range(9)), list(range(9)))


@pytest.mark.parametrize("fault", ["is missing", "cannot be opened as a picture", "32 x 24 pixels"])
def test_a_photo_that_is_lost_in_mid_training_is_one_sentence_and_the_run_resumes(
    scene: Path, tmp_path: Path, fault: str
) -> None:
    capture = Path(shutil.copytree(scene, tmp_path / "capture"))
    lost = capture / "images" / "0002.png"
    whole = lost.read_bytes()

    def config() -> Any:
        found = from_files(tiny_config(splatfacto_teacher, capture, tmp_path / "out", 40))
        found.steps_per_save = 5
        return found

    def lose(step: int) -> None:
        if step == 12:
            lost.unlink()
            if fault == "cannot be opened as a picture":
                lost.write_bytes(whole[:20])
            elif fault == "32 x 24 pixels":
                Image.new("RGB", (32, 24)).save(lost)

    trainer = prepared(config())
    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], lose))
    with pytest.raises(SystemExit) as left:
        trainer.train()
    sentence = left.value.code
    assert isinstance(sentence, str) and "\n" not in sentence
    assert str(lost) in sentence and fault in sentence and "cannot be read" in sentence, sentence
    lost.write_bytes(whole)
    resumed = trained(config())
    assert resumed.base_dir == trainer.base_dir and resumed._start_step >= 10 and resumed.last_done == 39


def test_photos_are_kept_where_they_leave_half_of_what_is_left() -> None:
    both: dict[Place, int] = {"gpu": 10, "cpu": 10}
    assert place_for(both, "gpu", {"gpu": 20, "cpu": 0}) == "gpu"
    assert place_for(both, "gpu", {"gpu": 19, "cpu": 20}) == "cpu"
    assert place_for(both, "gpu", {"gpu": 19, "cpu": 19}) == place_for(both, "gpu", {"gpu": -5}) == "disk"
    assert place_for(both, "cpu", {"gpu": 99, "cpu": 20}) == "cpu"
    assert place_for(both, "disk", {"gpu": 99, "cpu": 99}) == "disk"
    assert place_for({"gpu": 10, "cpu": 16}, "gpu", {"gpu": 19, "cpu": 31}) == "disk"


def test_photos_stay_files_by_themselves_where_memory_is_short(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine photos of 64 x 48 pixels are 0.33 MB as floats, three 0.03 MB as bytes, 400 Gaussians 0.38 MB."""
    for free, stay in ((800_000, True), (1_300_000, False)):
        for module in ("datamanager", "model"):
            monkeypatch.setattr(f"distilled_splat.training.{module}.available_bytes", lambda device, free=free: free)
        trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path / str(free)))
        assert isinstance(trainer.pipeline.datamanager.cached_train, PhotoFiles) == stay
        told = " ".join(capsys.readouterr().out.split())
        assert ("The photos would take 0.00 GB" in told and "each photo is read from disk" in told) == stay
        assert ("(photos 0.00, Gaussians" in told) != stay


def test_pinned_photos_take_the_next_power_of_two() -> None:
    sizes = torch.tensor([[64], [100]]), torch.tensor([[64], [10]])
    parsed = SimpleNamespace(image_filenames=[])
    dataset = SimpleNamespace(cameras=SimpleNamespace(width=sizes[0], height=sizes[1]), _dataparser_outputs=parsed)
    config = SimpleNamespace(cache_images_type="uint8", float_cache_megabytes=0)
    assert photo_bytes(dataset, config) == 3 * 64 * 64 + 3 * 100 * 10
    assert photo_bytes(dataset, config, pinned=True) == 16384 + 4096


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("images_4", "images_4 is missing: put the photos there, scaled down by 4"),
        ("images", "images is missing: restore it"),
        ("my_photos", "my_photos is missing: restore it"),
        ("camera_2", "camera_2 is missing: restore it"),
    ],
)
def test_a_missing_folder_is_named_instead_of_its_first_photo(folder: str, words: str, tmp_path: Path) -> None:
    if folder == "images_4":
        (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=words):
        header_of(tmp_path / folder / "0001.png")
