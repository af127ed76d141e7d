"""Cameras from files of all kinds, in each world that a splat may be in, and which of these worlds is the splat's."""

from __future__ import annotations

import copy
import json
import math
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from distilled_splat.evaluation.export import export
from distilled_splat.ops.views import View, view_of
from distilled_splat.shrink.camera_choice import choose_reading, looks_of
from distilled_splat.shrink.camera_frames import moved
from distilled_splat.shrink.given_cameras import GivenCameras, read_cameras
from distilled_splat.splat.frames import inverse
from distilled_splat.splat.frames import moved as moved_gaussians
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.ply import read_ply
from distilled_splat.teachers.reading import read_teacher

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, FOCAL = 60, 40, 50.0
TO_Y_DOWN = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
TURNED = ((1, 0, 0, 0.5), (0, 0, 1, -2), (0, -1, 0, 3))
"""An applied transform: a turn, and a shift that ns-process-data never makes."""


def ring(count: int = 7, seed: int = 0) -> np.ndarray:
    """Return camera-to-worlds [count, 4, 4], OpenGL axes, somewhere on a ring, tilted a little at random."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose, angle in zip(poses, np.linspace(0.2, 5.0, count)):
        back = np.array([math.cos(angle), math.sin(angle), 0.4]) + 0.1 * rng.normal(size=3)
        back /= np.linalg.norm(back)
        right = np.cross([0.1, 0.2, 1.0], back)
        right /= np.linalg.norm(right)
        pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
        pose[:3, 3] = (1.0, -2.0, 0.5) + 3.0 * back
    return poses


def transforms(poses: np.ndarray, **entries: Any) -> dict[str, Any]:
    """Return the content of a transforms.json; None as an entry's value leaves it out."""
    content: dict[str, Any] = {"w": WIDTH, "h": HEIGHT, "fl_x": FOCAL, "fl_y": FOCAL + 1, "cx": 31.0, "cy": 19.0}
    content |= {"camera_model": "OPENCV", "frames": []}
    for place, pose in enumerate(poses):
        content["frames"].append({"file_path": f"images/{place:03d}.png", "transform_matrix": pose.tolist()})
    return {name: value for name, value in (content | entries).items() if value is not None}


def written(folder: Path, content: object, name: str = "transforms.json", photos: int = 0) -> Path:
    """Write a folder of JSON and of some photos; return the JSON's path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for place in range(photos):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / f"{place:03d}.png")
    (folder / name).write_text(json.dumps(content))
    return folder / name


def expected(pose: np.ndarray, world: np.ndarray | None = None) -> np.ndarray:
    """Return the OpenCV world-to-camera of an OpenGL camera-to-world, in a world that [4, 4] takes the file's to."""
    found = (np.eye(4) if world is None else world) @ pose @ np.diag([1.0, -1.0, -1.0, 1.0])
    found[:3, :3] /= np.linalg.norm(found[:3, 0])
    return np.linalg.inv(found)


def assert_poses(views: list[View], wanted: list[np.ndarray], atol: float = 1e-5) -> None:
    assert len(views) == len(wanted)
    for view, matrix in zip(views, wanted):
        assert view.viewmat.dtype == torch.float32 and view.viewmat.shape == (4, 4)
        np.testing.assert_allclose(view.viewmat.numpy(), matrix, atol=atol)


def assert_as_parsed(given: GivenCameras, parsed: Any, places: list[int] | None = None, atol: float = 1e-5) -> None:
    """Compare with what a dataparser of nerfstudio made of the same file: cameras, and how they lie in the capture."""
    cameras, transform, scale = parsed.cameras, parsed.dataparser_transform[:3].double(), parsed.dataparser_scale
    places = list(range(len(cameras))) if places is None else places
    back, shrunk = inverse(transform, scale)
    for number, place in enumerate(places):
        theirs = view_of(cameras[number : number + 1])
        ours = given.readings["nerfstudio"][place]
        assert (ours.width, ours.height) == (theirs.width, theirs.height)
        torch.testing.assert_close(ours.K, theirs.K)
        torch.testing.assert_close(ours.viewmat, theirs.viewmat, atol=atol, rtol=0)
        pose = np.linalg.inv(theirs.viewmat.double().numpy())
        pose[:3, 3] = shrunk * (back.numpy() @ pose[:, 3])
        pose[:3, :3] = back[:, :3].numpy() / np.cbrt(np.linalg.det(back[:, :3].numpy())) @ pose[:3, :3]
        np.testing.assert_allclose(
            given.readings["capture"][place].viewmat.numpy(), np.linalg.inv(pose), atol=10 * atol / scale
        )


def parsed_all(config: Any) -> Any:
    return config.setup().get_dataparser_outputs("train")


# --- transforms.json


@pytest.mark.parametrize("entries", [{}, {"applied_transform": TURNED}, {"orientation_override": "vertical"},
                                     {"applied_transform": TURNED, "applied_scale": 2.5}])  # fmt: skip
def test_transforms_are_read_as_the_dataparser_reads_them(tmp_path: Path, entries: dict[str, Any]) -> None:
    path = written(tmp_path, transforms(ring(), **entries), photos=7)
    given = read_cameras(path)
    assert_as_parsed(given, parsed_all(NerfstudioDataParserConfig(data=tmp_path, eval_mode="all")))
    assert given.kind == "transforms.json of nerfstudio"
    assert given.photos == tuple(tmp_path / "images" / f"{place:03d}.png" for place in range(7))
    assert read_cameras(tmp_path).kind == given.kind


def test_the_file_and_the_capture_differ_by_the_applied_transform(tmp_path: Path) -> None:
    poses = ring()
    given = read_cameras(written(tmp_path, transforms(poses, applied_transform=TURNED)))
    assert list(given.readings) == ["capture", "file", "centred", "nerfstudio", "upright"]
    applied = np.vstack([TURNED, [0, 0, 0, 1]])
    assert_poses(given.readings["file"], [expected(pose) for pose in poses])
    assert_poses(given.readings["capture"], [expected(pose, np.linalg.inv(applied)) for pose in poses])
    reach = np.abs(poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0)).max()
    centring = np.eye(4) / reach
    centring[:3, 3], centring[3, 3] = -poses[:, :3, 3].mean(axis=0) / reach, 1
    assert_poses(given.readings["centred"], [expected(pose, centring) for pose in poses])
    assert given.photos == (None,) * 7


def test_a_world_that_is_there_already_is_left_out(tmp_path: Path) -> None:
    readings = ["capture", "centred", "nerfstudio", "upright"]
    assert list(read_cameras(written(tmp_path, transforms(ring()))).readings) == readings
    alone = read_cameras(written(tmp_path, transforms(ring(1))))
    assert list(alone.readings) == ["capture"]  # one camera gives a world no unit


def test_an_old_capture_of_colmap_has_no_applied_transform_and_yet_one_acts(tmp_path: Path) -> None:
    path = written(tmp_path, transforms(ring()), photos=7)
    (tmp_path / "colmap" / "sparse" / "0").mkdir(parents=True)
    given = read_cameras(path)
    assert "file" in given.readings
    assert_as_parsed(given, parsed_all(NerfstudioDataParserConfig(data=tmp_path, eval_mode="all")))


def test_each_frame_may_have_a_lens_of_its_own(tmp_path: Path) -> None:
    content = transforms(ring(3), w=None, h=None, fl_x=None, fl_y=None, cx=None, cy=None)
    lens = {"w": 10, "h": 20, "fl_x": 30.0, "fl_y": 40.0, "cx": 4.0, "cy": 11.0}
    for place, frame in enumerate(content["frames"]):
        frame.update({name: value + place for name, value in lens.items()})
    path = written(tmp_path, content, photos=3)
    given = read_cameras(path)
    assert_as_parsed(given, parsed_all(NerfstudioDataParserConfig(data=tmp_path, eval_mode="all")))
    assert [(view.width, view.height) for view in given.readings["capture"]] == [(10, 20), (11, 21), (12, 22)]
    assert given.readings["capture"][2].K.tolist() == [[32.0, 0.0, 6.0], [0.0, 42.0, 13.0], [0.0, 0.0, 1.0]]


def test_blenders_file_takes_the_size_from_the_photos(tmp_path: Path) -> None:
    content = {"camera_angle_x": 0.7, "frames": transforms(ring(3))["frames"]}
    for frame in content["frames"]:
        frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
    written(tmp_path, content, "transforms_train.json", photos=3)
    given = read_cameras(tmp_path)
    assert list(given.readings) == ["capture", "upright"] and given.kind == "transforms.json of Blender"
    assert_poses(given.readings["capture"], [expected(pose) for pose in ring(3)])
    assert_poses(given.readings["upright"], [expected(pose, TO_Y_DOWN) for pose in ring(3)])
    view = given.readings["capture"][0]
    focal = 0.5 * WIDTH / math.tan(0.35)
    torch.testing.assert_close(view.K, torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]]))
    assert (view.width, view.height) == (WIDTH, HEIGHT) and given.photos[0] is not None


# --- COLMAP


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """Return (w, x, y, z) of a rotation [3, 3] that turns by less than half a turn."""
    w = math.sqrt(max(1 + np.trace(rotation), 1e-12)) / 2
    skew = rotation - rotation.T
    return np.array([w, *(np.array([skew[2, 1], skew[0, 2], skew[1, 0]]) / (4 * w))])


LENSES = ((1, "PINHOLE", (50.0, 51.0, 31.0, 19.0)), (2, "SIMPLE_RADIAL", (55.0, 30.0, 20.0, 0.01)))
MODEL_NUMBERS = {"PINHOLE": 1, "SIMPLE_RADIAL": 2}


def colmap_rows(poses: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, int, str]]:
    rows = []
    for place, pose in enumerate(poses):
        looking = expected(pose)
        rows.append((quaternion_of(looking[:3, :3]), looking[:3, 3], 1 + place % 2, f"{place:03d}.png"))
    return rows


def write_binary(folder: Path, poses: np.ndarray, points: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cameras = struct.pack("<Q", len(LENSES))
    for number, model, parameters in LENSES:
        cameras += struct.pack("<IiQQ", number, MODEL_NUMBERS[model], WIDTH, HEIGHT)
        cameras += struct.pack(f"<{len(parameters)}d", *parameters)
    images = struct.pack("<Q", len(poses))
    for place, (quaternion, translation, camera, name) in enumerate(colmap_rows(poses)):
        images += struct.pack("<I7dI", place + 1, *quaternion, *translation, camera) + name.encode() + b"\0"
        images += struct.pack("<Q", points) + struct.pack("<ddq", 1.0, 2.0, -1) * points
    (folder / "cameras.bin").write_bytes(cameras)
    (folder / "images.bin").write_bytes(images)
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", 0))
    return folder


def write_text(folder: Path, poses: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lenses = [f"{number} {model} {WIDTH} {HEIGHT} {' '.join(map(str, of))}" for number, model, of in LENSES]
    (folder / "cameras.txt").write_text("# Camera list\n" + "\n".join(lenses) + "\n")
    rows = "# Image list\n#   two lines each\n"
    for place, (quaternion, translation, camera, name) in enumerate(colmap_rows(poses)):
        points = "" if place % 3 == 0 else "1.5 2.5 -1 " * (5000 if place % 3 == 1 else 1)  # none, a long line, one
        rows += (
            f"{place + 1} {' '.join(map(repr, map(float, (*quaternion, *translation))))} {camera} {name}\n{points}\n"
        )
    (folder / "images.txt").write_text(rows)
    return folder


@pytest.mark.parametrize("place", [".", "0", "sparse", "sparse/0", "colmap/sparse/0"])
def test_a_binary_model_is_found_and_read_in_colmaps_own_world(tmp_path: Path, place: str) -> None:
    folder = write_binary(tmp_path / place, ring())
    for given in (read_cameras(tmp_path), read_cameras(folder), read_cameras(folder / "images.bin")):
        assert given.kind == "sparse model of COLMAP"
        assert_poses(given.readings["capture"], [expected(pose) for pose in ring()])
        assert given.readings["capture"][0].K.tolist() == [[50.0, 0.0, 31.0], [0.0, 51.0, 19.0], [0.0, 0.0, 1.0]]
        assert given.readings["capture"][1].K.tolist() == [[55.0, 0.0, 30.0], [0.0, 55.0, 20.0], [0.0, 0.0, 1.0]]


def test_text_and_binary_say_the_same(tmp_path: Path) -> None:
    binary = read_cameras(write_binary(tmp_path / "binary", ring()))
    text = read_cameras(write_text(tmp_path / "text", ring()))
    assert list(text.readings) == list(binary.readings) == ["capture", "file", "centred", "nerfstudio", "upright"]
    for name, views in text.readings.items():
        assert_poses(views, [view.viewmat.numpy() for view in binary.readings[name]], atol=1e-6)
        assert all(torch.equal(view.K, other.K) for view, other in zip(views, binary.readings[name]))


def test_a_model_is_moved_as_nerfstudios_reader_of_colmap_moves_it(tmp_path: Path) -> None:
    write_binary(tmp_path / "sparse" / "0", ring())
    written(tmp_path, {}, "unused.json", photos=7)
    config = ColmapDataParserConfig(
        data=tmp_path, colmap_path=Path("sparse/0"), eval_mode="all", load_3D_points=False, downscale_factor=1
    )
    given = read_cameras(tmp_path)
    assert_as_parsed(given, parsed_all(config))
    assert given.photos[3] == tmp_path / "images" / "003.png"


# --- Inria's cameras.json, and runs


def inria(poses: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for place, pose in enumerate(poses):
        turned = np.linalg.inv(expected(pose))
        rows.append({"id": place, "img_name": f"{place}", "width": WIDTH, "height": HEIGHT, "fx": 50.0, "fy": 51.0})
        rows[-1] |= {"position": turned[:3, 3].tolist(), "rotation": turned[:3, :3].tolist()}
    return rows


def test_inrias_cameras_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, inria(ring()), "cameras.json")
    for given in (read_cameras(path), read_cameras(tmp_path)):
        assert list(given.readings) == ["capture"] and given.kind == "cameras.json of Inria's trainer"
        assert_poses(given.readings["capture"], [expected(pose) for pose in ring()])
        assert given.readings["capture"][0].K.tolist() == [[50.0, 0.0, 30.0], [0.0, 51.0, 20.0], [0.0, 0.0, 1.0]]


def test_a_run_gives_the_world_that_it_was_trained_in(teachers: tuple[Path, ...], scene: Path, tmp_path: Path) -> None:
    config = NerfstudioDataParserConfig(data=scene, eval_mode="all")
    for path in (teachers[0], teachers[0] / "config.yml"):
        given = read_cameras(path)
        assert_as_parsed(given, parsed_all(config))
        assert given.kind == "nerfstudio run (transforms.json of nerfstudio)"
    assert set(given.readings) == {"nerfstudio", "capture", "upright"}


def test_a_run_of_other_options_gives_its_own_world(teachers: tuple[Path, ...], scene: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"orientation_method": "vertical", "center_method": "focus", "scale_factor": 0.3}
    parsed = parsed_all(NerfstudioDataParserConfig(data=scene, eval_mode="all", **options))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yml").write_text((teachers[0] / "config.yml").read_text())
    parsed.save_dataparser_transform(run / "dataparser_transforms.json")
    assert_as_parsed(read_cameras(run), parsed)


def test_a_run_of_blenders_data_has_one_world(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    """nerfstudio's reader of these leaves the poses as they are."""
    data, run = tmp_path / "data", tmp_path / "run"
    written(data, {"camera_angle_x": 0.7, "frames": transforms(ring())["frames"]}, "transforms_train.json", photos=7)
    run.mkdir()
    (run / "config.yml").write_text(f"data: {data}\n")
    (run / "dataparser_transforms.json").write_text(json.dumps({"transform": np.eye(4)[:3].tolist(), "scale": 1.0}))
    given = read_cameras(run)
    assert list(given.readings) == ["nerfstudio", "upright"]
    assert_poses(given.readings["nerfstudio"], [expected(pose) for pose in ring()])
    assert_poses(given.readings["upright"], [expected(pose, TO_Y_DOWN) for pose in ring()])


@pytest.mark.parametrize("relative", [True, False])
def test_a_run_that_was_moved_with_its_data_finds_them(tmp_path: Path, relative: bool) -> None:
    """The run's record tells where it was; the config.yml is as nerfstudio writes it, with tags of Python."""
    then, named = Path("/a/house/that/is/gone"), Path("outputs/scene/method/time")
    run = tmp_path / named
    written(tmp_path / "the data", transforms(ring()))
    run.mkdir(parents=True)
    base = Path("outputs") if relative else then / "outputs"
    config = {"output_dir": base, "experiment_name": "scene", "method_name": "method", "timestamp": "time"}
    data = Path("the data") if relative else then / "the data"
    config["pipeline"] = {"datamanager": {"data": None, "dataparser": {"data": data}}}
    (run / "config.yml").write_text(yaml.dump(config))
    assert "!!python" in (run / "config.yml").read_text()
    (run / "distilled_splat.json").write_text(json.dumps({"folder": str(then / named)}))
    (run / "dataparser_transforms.json").write_text(json.dumps({"transform": np.eye(4)[:3].tolist(), "scale": 2.0}))
    assert_poses(read_cameras(run).readings["nerfstudio"], [expected(pose, np.diag([2.0, 2, 2, 1])) for pose in ring()])


def test_nothing_in_a_runs_config_is_ever_run(teachers: tuple[Path, ...], scene: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "dataparser_transforms.json").write_text((teachers[0] / "dataparser_transforms.json").read_text())
    bomb = f"first: !!python/object/apply:os.system ['touch {mark}']\ndata: !!python/object/apply:os.mkdir [{mark}]\n"
    (tmp_path / "config.yml").write_text(f"{bomb}pipeline: {{datamanager: {{data: {scene}}}}}\n")
    assert len(read_cameras(tmp_path).readings["nerfstudio"]) == 12
    assert not mark.exists()


# --- what is refused


def refused(path: Path, *words: str) -> None:
    """See that reading is refused soon, with one sentence that names the file and holds the words."""
    began = time.monotonic()
    with pytest.raises(ValueError) as caught:
        read_cameras(path)
    assert time.monotonic() - began < 20
    message = str(caught.value)
    assert "\n" not in message and len(message) < 900
    for word in (path.name, *words):
        assert word in message, message


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the content of a transforms.json that a function has changed."""
    content = copy.deepcopy(transforms(ring(3)))
    change(content)
    return content


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda c: c["frames"].clear(), "empty"),
        (lambda c: c.update(frames={}), "has no cameras"),
        (lambda c: c.update(frames=[1]), "has no cameras"),
        (lambda c: c.pop("frames"), "has no cameras"),
        (lambda c: c["frames"][1].pop("transform_matrix"), "`transform_matrix` of frame 1"),
        (lambda c: c["frames"][1].update(transform_matrix="abc"), "`transform_matrix` of frame 1"),
        (lambda c: c["frames"][1].update(transform_matrix=[[1, 2], [3]]), "`transform_matrix` of frame 1"),
        (lambda c: c["frames"][1].update(transform_matrix=[[math.nan] * 4] * 4), "`transform_matrix` of frame 1"),
        (lambda c: c["frames"][1].update(transform_matrix=[[1e300] * 4] * 4), "`transform_matrix` of frame 1"),
        (lambda c: c["frames"][1].update(transform_matrix=[["1"] * 4] * 4), "`transform_matrix` of frame 1"),
        (lambda c: c["frames"][1].update(transform_matrix=[[True] * 4] * 4), "`transform_matrix` of frame 1"),
        (lambda c: c["frames"][1].update(transform_matrix=[[0] * 4] * 4), "pose of frame 1"),
        (lambda c: c["frames"][1].update(transform_matrix=np.diag([-1, 1, 1, 1]).tolist()), "pose of frame 1"),
        (lambda c: c.update(fl_x=-5.0), "focal length of frame 0"),
        (lambda c: c.update(fl_x=None), "`fl_x` of frame 0"),
        (lambda c: c.update(fl_x=10**400), "`fl_x` of frame 0"),
        (lambda c: c.pop("fl_x"), "focal length of frame 0"),
        (lambda c: c.update(w=10**12), "pixels"),
        (lambda c: c.update(w=0), "pixels"),
        (lambda c: c.update(h=40.5), "pixels"),
        (lambda c: c.update(w=math.inf), "`w` of frame 0"),
        (lambda c: c.pop("w"), "size of frame 0"),
        (lambda c: c.update(cx=[1, 2]), "`cx` of frame 0"),
        (lambda c: c.update(camera_model="EQUIRECTANGULAR"), "EQUIRECTANGULAR"),
        (lambda c: c.update(camera_model=[]), "pinhole"),
        (lambda c: c.update(orientation_override="sideways"), "orientation_override"),
        (lambda c: c.update(orientation_override=["up"]), "orientation_override"),
        (lambda c: c.update(applied_transform=7), "applied_transform"),
        (lambda c: c.update(applied_transform=[[0] * 4] * 3), "applied_transform"),
        (lambda c: c.update(applied_transform=[[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0]]), "applied_transform"),
        (lambda c: c.update(applied_scale=0), "applied_scale"),
    ],
)
def test_a_damaged_transforms_file_is_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], word: str
) -> None:
    refused(written(tmp_path, changed(change)), word)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\0" * 50, '{"frames": ' + "[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "transforms.json"
    path.write_text(text)
    refused(path, "cannot be read")


@pytest.mark.parametrize(
    "change, word",
    [
        ({"rotation": [[0] * 3] * 3}, "pose of camera 1"),
        ({"rotation": None}, "`rotation` of camera 1"),
        ({"position": [1, 2]}, "`position` of camera 1"),
        ({"position": [1, 2, math.nan]}, "`position` of camera 1"),
        ({"fx": 0}, "focal length of camera 1"),
        ({"width": "60"}, "`width` of camera 1"),
        ({"height": 1 << 40}, "pixels"),
    ],
)
def test_a_damaged_list_of_inria_is_one_sentence(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    rows = inria(ring(3))
    rows[1] |= change
    refused(written(tmp_path, rows, "cameras.json"), word)


def test_an_empty_list_of_inria_is_refused(tmp_path: Path) -> None:
    refused(written(tmp_path, [], "cameras.json"), "empty")


def test_a_model_that_breaks_off_anywhere_is_refused(tmp_path: Path) -> None:
    for name in ("cameras.bin", "images.bin"):
        folder = write_binary(tmp_path / name, ring(3))
        whole = (folder / name).read_bytes()
        for length in range(len(whole)):
            (folder / name).write_bytes(whole[:length])
            refused(folder, "model of COLMAP")


def test_a_text_model_that_breaks_off_is_refused(tmp_path: Path) -> None:
    folder = write_text(tmp_path, ring(3))
    (folder / "images.txt").write_text((folder / "images.txt").read_text()[:90])
    refused(folder, "images.txt")
    write_text(tmp_path, ring(3))
    for row, word in (("60 40 50", "PINHOLE"), ("inf 40 50 51 31 19", "pixels"), ("1e300 40 50 51 31 19", "pixels"),
                      (f"60 {'9' * 4000} 50 51 31 19", "pixels"), ("60 x 50 51 31 19", "cameras.txt"),
                      (f"60 40 {'1' * 4000}x 51 31 19", "cameras.txt"),
                      ("60 40 nan 51 31 19", "focal length")):  # fmt: skip
        (folder / "cameras.txt").write_text(f"1 PINHOLE {row}\n")
        refused(folder, word)


@pytest.mark.parametrize(
    "name, offset, form, value, word",
    [
        ("cameras.bin", 0, "Q", 2**63, "truncated"),
        ("cameras.bin", 12, "i", 99, "camera model"),
        ("cameras.bin", 12, "i", -1, "camera model"),
        ("cameras.bin", 16, "Q", 2**63, "pixels"),
        ("cameras.bin", 32, "d", math.nan, "focal length"),
        ("cameras.bin", 8, "I", 7, "has camera 1"),
        ("images.bin", 0, "Q", 2**64 - 1, "truncated"),
        ("images.bin", 0, "Q", 0, "no images"),
        ("images.bin", 12, "d", math.nan, "quaternion"),
        ("images.bin", 44, "d", math.inf, "position"),
        ("images.bin", 80, "Q", 2**61, "more than fit into the file"),
    ],
)
def test_a_hostile_model_is_one_sentence(
    tmp_path: Path, name: str, offset: int, form: str, value: float, word: str
) -> None:
    folder = write_binary(tmp_path / "model", ring(3))
    content = bytearray((folder / name).read_bytes())
    struct.pack_into(f"<{form}", content, offset, value)
    (folder / name).write_bytes(content)
    refused(folder, word)


def test_a_name_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = write_binary(tmp_path / "model", ring(1))
    (folder / "images.bin").write_bytes((folder / "images.bin").read_bytes()[:72] + b"x" * 5_000_000)
    refused(folder, "has no end")


def test_what_names_no_cameras_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "does not exist")
    refused(tmp_path, "has no cameras")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    refused(tmp_path / "picture.png", "has no cameras")


def test_a_run_without_its_world_or_its_data_is_refused(
    tmp_path: Path, teachers: tuple[Path, ...], scene: Path
) -> None:
    noted = (teachers[0] / "dataparser_transforms.json").read_text()
    (tmp_path / "config.yml").write_text("data: /nowhere/at/all\n")
    refused(tmp_path, "dataparser_transforms.json")
    for transform in (np.zeros((3, 4)), np.diag([1.0, 2, 1, 1])[:3], np.full((3, 4), math.nan)):
        content = {"transform": transform.tolist(), "scale": 1.0}
        (tmp_path / "dataparser_transforms.json").write_text(json.dumps(content))
        (tmp_path / "config.yml").write_text(f"data: {scene}\n")
        refused(tmp_path, "dataparser_transforms.json")
    (tmp_path / "config.yml").write_text("data: /nowhere/at/all\n")
    (tmp_path / "dataparser_transforms.json").write_text(noted)
    refused(tmp_path, "nowhere")
    for config in ("data: null\n", "- data\n", "", "data: {a: b}\n"):
        (tmp_path / "config.yml").write_text(config)
        refused(tmp_path, "has no data path")
    for config in ("a: [", "x: " + "[" * 5000, "&a [*b]", "a" * (1 << 21)):
        (tmp_path / "config.yml").write_text(config)
        refused(tmp_path)
    (tmp_path / "config.yml").write_text(f"data: {tmp_path}\n")  # a run of itself
    refused(tmp_path, "has no cameras")


# --- moving


def test_moving_cameras_moves_what_they_see_with_them() -> None:
    poses, scale, shift = ring(), 0.25, np.array([1.0, -2.0, 3.0])
    views = [View(torch.from_numpy(expected(pose)).float(), torch.eye(3), WIDTH, HEIGHT) for pose in poses]
    point = np.array([0.3, 0.2, 0.1, 1.0])
    there = np.array([*((point[:3] - shift) * scale), 1.0])
    for view, other in zip(views, moved(views, scale, torch.from_numpy(shift))):
        before, after = view.viewmat.double().numpy() @ point, other.viewmat.double().numpy() @ there
        np.testing.assert_allclose(after[:3], scale * before[:3], atol=1e-6)
        assert other.viewmat.dtype == torch.float32 and torch.equal(other.K, view.K)


def test_moving_what_was_given_moves_every_reading(tmp_path: Path) -> None:
    given = read_cameras(written(tmp_path, transforms(ring(), applied_transform=TURNED)))
    shift = torch.tensor([1.0, 2.0, 3.0])
    other = given.moved(2.0, shift)
    assert list(other.readings) == list(given.readings) and other.photos == given.photos
    for name, views in other.readings.items():
        assert_poses(views, [view.viewmat.numpy() for view in moved(given.readings[name], 2.0, shift)], atol=0)
        assert not torch.allclose(views[0].viewmat, given.readings[name][0].viewmat)


# --- which world it is

WORLDS = ("capture", "file", "centred", "nerfstudio", "upright")


@pytest.fixture(scope="module")
def turned_scene(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny scene as if ns-process-data had turned and shifted it: the capture's world is what the scene's was."""
    folder = tmp_path_factory.mktemp("turned") / "scene"
    shutil.copytree(scene, folder)
    content = json.loads((folder / "transforms.json").read_text())
    applied = np.vstack([TURNED, [0, 0, 0, 1]])
    for frame in content["frames"]:
        frame["transform_matrix"] = (applied @ np.array(frame["transform_matrix"])).tolist()
    (folder / "transforms.json").write_text(json.dumps(content | {"applied_transform": TURNED}))
    return folder


@pytest.fixture(scope="module")
def splats(turned_scene: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gaussians]:
    """One trained splat in each world of the turned scene, by what nerfstudio and its file say of these worlds."""
    from tiny import tiny_teacher

    output = tmp_path_factory.mktemp("splats")
    run = tiny_teacher(scene, output, iterations=200, num_downscales=0).base_dir
    (file,) = export(run / "config.yml", output, ("ply",), 3, "capture", measure=False)
    captured = read_ply(file.path).gaussians
    parsed = parsed_all(NerfstudioDataParserConfig(data=turned_scene, eval_mode="all"))
    saved = moved_gaussians(captured, torch.tensor(TURNED).float(), 1.0)
    frames = json.loads((turned_scene / "transforms.json").read_text())["frames"]
    centres = torch.tensor([frame["transform_matrix"] for frame in frames])[:, :3, 3]
    away = torch.cat((torch.eye(3), -centres.mean(dim=0)[:, None]), dim=1)
    nerfstudio = moved_gaussians(captured, parsed.dataparser_transform[:3], parsed.dataparser_scale)
    return {
        "capture": captured,
        "file": saved,
        "centred": moved_gaussians(saved, away, 1 / float((centres - centres.mean(dim=0)).abs().max())),
        "nerfstudio": nerfstudio,
        "upright": moved_gaussians(nerfstudio, torch.from_numpy(TO_Y_DOWN[:3]).float(), 1.0),
    }


@pytest.mark.parametrize("with_photos", [True, False])
@pytest.mark.parametrize("world", WORLDS)
def test_the_cameras_find_their_splat(
    turned_scene: Path, splats: dict[str, Gaussians], tmp_path: Path, world: str, with_photos: bool
) -> None:
    path = turned_scene
    if not with_photos:
        path = tmp_path / "transforms.json"
        path.write_text((turned_scene / "transforms.json").read_text())
    given = read_cameras(path)
    assert list(given.readings) == list(WORLDS) and all((photo is not None) == with_photos for photo in given.photos)
    name, views = choose_reading(given, splats[world], "cpu")
    looks = looks_of(given, splats[world], "cpu")
    assert name == world and views is given.readings[world]
    assert all((look.psnr is not None) == with_photos for look in looks.values())


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_size_of_the_splat_is_no_matter(turned_scene: Path, splats: dict[str, Gaussians], scale: float) -> None:
    """Neither the near plane nor a threshold is in the splat's units."""
    shift = torch.tensor([3.0, -1.0, 2.0])
    given = read_cameras(turned_scene / "transforms.json")
    splat = moved_gaussians(splats["file"], torch.cat((torch.eye(3), -shift[:, None]), dim=1), scale)
    plain, scaled = looks_of(given, splats["file"], "cpu"), looks_of(given.moved(scale, shift), splat, "cpu")
    assert choose_reading(given.moved(scale, shift), splat, "cpu")[0] == "file"
    for name, look in plain.items():
        assert scaled[name].coverage == pytest.approx(look.coverage, abs=1e-3)
        assert scaled[name].share == pytest.approx(look.share, abs=1e-3)


def test_photos_that_cannot_be_read_are_no_judges(
    turned_scene: Path, splats: dict[str, Gaussians], tmp_path: Path
) -> None:
    folder = tmp_path / "scene"
    shutil.copytree(turned_scene, folder)
    for photo in (folder / "images").iterdir():
        photo.write_bytes(photo.read_bytes()[:100])
    given = read_cameras(folder)
    assert all(photo is not None for photo in given.photos)
    assert all(look.psnr is None for look in looks_of(given, splats["capture"], "cpu").values())
    assert choose_reading(given, splats["capture"], "cpu")[0] == "capture"


def test_cameras_that_see_nothing_are_refused(turned_scene: Path, splats: dict[str, Gaussians]) -> None:
    far = moved_gaussians(splats["file"], torch.cat((torch.eye(3), torch.full((3, 1), 1e4)), dim=1), 1.0)
    with pytest.raises(
        ValueError, match=r"do not see the splat.*capture, file, centred, nerfstudio, upright"
    ) as caught:
        choose_reading(read_cameras(turned_scene), far, "cpu")
    assert "\n" not in str(caught.value)


def test_photos_of_something_else_are_refused(turned_scene: Path, splats: dict[str, Gaussians], tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    shutil.copytree(turned_scene, folder)
    rng = np.random.default_rng(0)
    for photo in (folder / "images").iterdir():
        noise = rng.integers(0, 255, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(photo)
    with pytest.raises(ValueError, match="does not match the photos of the transforms") as caught:
        choose_reading(read_cameras(folder), splats["file"], "cpu")
    assert "\n" not in str(caught.value)


def test_a_hardly_trained_splat_is_found(scene: Path, teachers: tuple[Path, ...]) -> None:
    """Twelve steps are enough for photos to know it; the demo's up is so exact that nothing tells two worlds apart."""
    name, views = choose_reading(read_cameras(scene), read_teacher(teachers[0]).gaussians, "cpu")
    assert name in ("centred", "nerfstudio")
    true = read_cameras(teachers[0]).readings["nerfstudio"]
    assert_poses(views, [view.viewmat.numpy() for view in true], atol=0.01)


def test_one_camera_is_enough(turned_scene: Path, splats: dict[str, Gaussians], tmp_path: Path) -> None:
    content = json.loads((turned_scene / "transforms.json").read_text())
    content["frames"] = content["frames"][:1]
    given = read_cameras(written(tmp_path, content))
    assert list(given.readings) == ["capture", "file"]
    for world in given.readings:
        assert choose_reading(given, splats[world], "cpu")[0] == world


# --- real captures, where they are

SHARED = next((each / "shared" for each in (ROOT, ROOT.parent) if (each / "shared" / "data").is_dir()), None)
if SHARED is not None:
    FOX, LEGO = SHARED / "data" / "fox", SHARED / "data" / "lego"

    def test_fox_is_the_same_by_either_file() -> None:
        given, model = read_cameras(FOX), read_cameras(FOX / "sparse" / "0")
        assert_as_parsed(given, parsed_all(NerfstudioDataParserConfig(data=FOX, eval_mode="all")), in_order(FOX))
        place_of = {photo: place for place, photo in enumerate(model.photos)}
        assert len(place_of) == len(given.photos) and None not in place_of
        for name in ("capture", "file", "nerfstudio", "upright"):
            ordered = [model.readings[name][place_of[photo]].viewmat.numpy() for photo in given.photos]
            assert_poses(given.readings[name], ordered, atol=1e-4)

    @pytest.mark.parametrize("with_photos", [True, False])
    def test_a_real_splat_of_fox_is_found(with_photos: bool) -> None:
        """Its world is nerfstudio's, and the centred one is turned by 5 degrees against that only."""
        given = read_cameras(FOX)
        if not with_photos:
            given = replace(given, photos=(None,) * len(given.photos))
        splat = read_ply(FOX.parent / "splats" / "brush_mip.ply").gaussians
        assert choose_reading(given, splat, "cpu")[0] == "nerfstudio"

    def test_lego_is_as_nerfstudios_reader_of_blender_has_it() -> None:
        given = read_cameras(LEGO)
        cameras = parsed_all(BlenderDataParserConfig(data=LEGO)).cameras
        assert list(given.readings) == ["capture", "upright"] and len(given.photos) == len(cameras)
        for place, view in enumerate(given.readings["capture"]):
            theirs = view_of(cameras[place : place + 1])
            torch.testing.assert_close(view.viewmat, theirs.viewmat)
            torch.testing.assert_close(view.K, theirs.K)
            assert (view.width, view.height) == (theirs.width, theirs.height)

    def in_order(folder: Path) -> list[int]:
        """Return the frames' places in the order of their photos' names, which is the dataparser's."""
        frames = json.loads((folder / "transforms.json").read_text())["frames"]
        return sorted(range(len(frames)), key=lambda place: frames[place]["file_path"])
