"""A capture with fewer photos: the same frame, the same photos held out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from distilled_splat.workflows.few_photos import thinned


def names_of(outputs: Any) -> list[str]:
    return [path.name for path in outputs.image_filenames]


@pytest.mark.parametrize("every", [1, 2, 4])
def test_photos_are_fewer_in_the_same_frame(every: int, scene: Path, tmp_path: Path) -> None:
    whole: Any = NerfstudioDataParserConfig(data=scene, eval_mode="interval", eval_interval=8).setup()
    few: Any = NerfstudioDataParserConfig(data=thinned(scene, every, tmp_path)).setup()
    all_photos, photos = (parser.get_dataparser_outputs("train") for parser in (whole, few))
    assert names_of(photos) == names_of(all_photos)[::every]
    assert torch.equal(photos.cameras.camera_to_worlds, all_photos.cameras.camera_to_worlds[::every])
    assert photos.dataparser_scale == all_photos.dataparser_scale
    for split in ("val", "test"):
        assert names_of(few.get_dataparser_outputs(split)) == names_of(whole.get_dataparser_outputs(split))


def test_a_capture_in_blenders_format_keeps_its_held_out_photos(tmp_path: Path) -> None:
    scene = tmp_path / "toy"
    for split, count in (("train", 6), ("test", 2), ("val", 2)):
        (scene / split).mkdir(parents=True)
        frames = [
            {"file_path": f"./{split}/r_{place}", "transform_matrix": torch.eye(4).tolist()} for place in range(count)
        ]
        for frame in frames:
            Image.new("RGBA", (8, 6)).save(scene / f"{frame['file_path']}.png")
        (scene / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    parser: Any = BlenderDataParserConfig(data=thinned(scene, 3, tmp_path)).setup()
    assert names_of(parser.get_dataparser_outputs("train")) == ["r_0.png", "r_3.png"]
    assert names_of(parser.get_dataparser_outputs("test")) == ["r_0.png", "r_1.png"]


def test_thinning_twice_leaves_the_same(scene: Path, tmp_path: Path) -> None:
    first = (thinned(scene, 2, tmp_path) / "transforms.json").read_text()
    assert (thinned(scene, 2, tmp_path) / "transforms.json").read_text() == first


def test_a_capture_that_has_moved_is_found_at_its_new_place(scene: Path, tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    here = tmp_path / "here" / "toy"
    shutil.copytree(scene, here)
    thinned(here, 2, tmp_path / "thin")
    there = here.rename(tmp_path / "there" / "toy")
    thin = thinned(there, 2, tmp_path / "thin")
    assert (thin / "images").resolve() == (there / "images").resolve() and list((thin / "images").iterdir())


def test_a_folder_without_a_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"transforms\.json"):
        thinned(tmp_path, 2, tmp_path / "thin")


def test_a_file_that_the_scene_has_lost_leaves_no_link(scene: Path, tmp_path: Path) -> None:
    capture = tmp_path / scene.name
    shutil.copytree(scene, capture)
    (capture / "notes.txt").write_text("temporary")
    assert (thinned(capture, 2, tmp_path / "thin") / "notes.txt").exists()
    (capture / "notes.txt").unlink()
    assert not (thinned(capture, 2, tmp_path / "thin") / "notes.txt").is_symlink()
