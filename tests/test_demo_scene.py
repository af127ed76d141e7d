"""The demo's scene: geometry against signed distances, conventions through nerfstudio, whole or not there."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from distilled_splat.demo import textures, tracer
from distilled_splat.demo.layouts import still_life
from distilled_splat.demo.scene import make_scene
from distilled_splat.demo.tracer import first_hits, trace_image
from distilled_splat.evaluation.pictures import comparison_picture, error_map

VIEWS, WIDTH, HEIGHT, POINTS = 12, 96, 72, 400


def small_scene(folder: Path, **changes) -> Path:
    settings = {"views": VIEWS, "width": WIDTH, "height": HEIGHT, "points": POINTS, "seed": 0, **changes}
    return make_scene(folder, **settings)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return small_scene(tmp_path_factory.mktemp("demo") / "scene")


def read_meta(folder: Path) -> dict:
    return json.loads((folder / "transforms.json").read_text())


def read_points(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    vertices = PlyData.read(folder / "sparse_pc.ply")["vertex"]
    positions = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)
    return positions, np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)


def signed_distances(points: np.ndarray) -> np.ndarray:
    """Return the signed distance [P, N] of world points to every solid, the room turned inside out."""
    solids = still_life()
    columns = []
    for i, (shape, size) in enumerate(zip(solids.shapes, solids.sizes, strict=True)):
        p = (points - solids.centres[i]) @ solids.rotations[i]
        radial = np.hypot(p[:, 0], p[:, 1])
        if shape == tracer.SPHERE:
            distance = np.linalg.norm(p, axis=1) - size[0]
        elif shape == tracer.TORUS:
            distance = np.hypot(radial - size[0], p[:, 2]) - size[1]
        else:
            tall = np.stack([radial, np.abs(p[:, 2])], axis=1)
            over = np.abs(p) - size if shape == tracer.BOX else tall - size[:2]
            distance = np.linalg.norm(np.maximum(over, 0.0), axis=1) + np.minimum(over.max(axis=1), 0.0)
        columns.append(-distance if i == 0 else distance)
    return np.stack(columns, axis=1)


def colour_gaps(folder: Path, flip: np.ndarray) -> np.ndarray:
    """Return for each point the third smallest colour difference to the pictures it projects into, 0..1."""
    meta = read_meta(folder)
    points, colours = read_points(folder)
    gaps = np.full((len(meta["frames"]), len(points)), np.inf)
    for frame, row in zip(meta["frames"], gaps, strict=True):
        image = np.asarray(Image.open(folder / frame["file_path"])).astype(np.float64)
        world_to_camera = np.linalg.inv(np.array(frame["transform_matrix"]))
        x, y, z = (flip * (points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3])).T
        u = meta["cx"] + meta["fl_x"] * x / -z
        v = meta["cy"] - meta["fl_y"] * y / -z
        inside = (z < 0) & (u >= 0) & (v >= 0) & (u < meta["w"]) & (v < meta["h"])
        pixels = image[v[inside].astype(int), u[inside].astype(int)]
        row[inside] = np.abs(pixels - colours[inside]).mean(axis=1) / 255.0
    return np.sort(gaps, axis=0)[2]


def look(origin: np.ndarray, target: np.ndarray) -> np.ndarray:
    back = (origin - target) / np.linalg.norm(origin - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, origin], axis=1)
    return pose


def test_first_hits_agree_with_marching_along_signed_distances():
    rng = np.random.default_rng(1)
    origins = rng.uniform([-3.0, -3.0, 1.8], [3.0, 3.0, 2.6], (400, 3))
    directions = rng.uniform([-1.0, -1.0, 0.3], [1.0, 1.0, 1.3], (400, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    marched, closest = np.zeros(400), np.full(400, np.inf)
    for _ in range(3000):
        gap = signed_distances(origins + marched[:, None] * directions).min(axis=1)
        closest = np.where(gap > 1e-3, np.minimum(closest, gap), closest)
        marched += np.maximum(gap, 0.0)
    hits = first_hits(still_life(), origins, directions)
    np.testing.assert_allclose(hits, marched, atol=1e-5)
    struck = signed_distances(origins + hits[:, None] * directions).argmin(axis=1)
    assert set(struck) == set(range(len(still_life().shapes)))


def test_only_glossy_solids_look_different_from_elsewhere():
    solids = still_life()
    marble = int(np.flatnonzero(solids.textures == textures.MARBLE)[0])
    matte = solids._replace(finishes=np.zeros_like(solids.finishes))
    lamp = np.array([0.9, -0.7, 2.9])
    places = np.array([[0.6, -1.4, 2.6], [2.4, 0.2, 2.3], [-0.4, -0.9, 2.9]])
    centre, radius = solids.centres[marble], solids.sizes[marble, 0]
    to_lamp, to_eye = ((end - centre) / np.linalg.norm(end - centre) for end in (lamp, places[0]))
    target = centre + radius * (to_lamp + to_eye) / np.linalg.norm(to_lamp + to_eye)
    glossy_looks, matte_looks = (
        np.stack([trace_image(kind, look(place, target), 1e6, 1, 1, 1, False)[0, 0, :3] for place in places])
        for kind in (solids, matte)
    )
    assert np.ptp(matte_looks, axis=0).max() < 1e-3
    assert np.ptp(glossy_looks, axis=0).max() > 0.05


def test_pictures_have_the_size_and_number_that_the_cameras_say(scene):
    meta = read_meta(scene)
    assert (meta["w"], meta["h"], len(meta["frames"])) == (WIDTH, HEIGHT, VIEWS)
    for frame in meta["frames"]:
        with Image.open(scene / frame["file_path"]) as image:
            assert image.size == (WIDTH, HEIGHT)
            assert np.asarray(image).std() > 20


def test_points_lie_on_surfaces_but_for_a_few_outliers(scene):
    points, _ = read_points(scene)
    off = np.abs(signed_distances(points).min(axis=1))
    assert len(points) == POINTS
    assert np.median(off) < 0.004
    assert 0.96 < np.mean(off < 0.015) < 1.0


def test_points_project_onto_their_own_colours_in_the_opengl_convention_only(scene):
    gaps = colour_gaps(scene, np.array([1.0, 1.0, 1.0]))
    mirrored = colour_gaps(scene, np.array([1.0, -1.0, 1.0]))
    assert np.median(gaps) < 0.04
    assert np.median(mirrored) > 2.0 * np.median(gaps)


def test_nerfstudio_opens_the_scene_and_holds_out_every_eighth_view(scene):
    from nerfstudio.cameras.cameras import CameraType
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = NerfstudioDataParserConfig(data=scene, load_3D_points=False, eval_mode="interval", eval_interval=8)
    parser = config.setup()
    train, held_out = parser.get_dataparser_outputs("train"), parser.get_dataparser_outputs("val")
    assert [path.name for path in held_out.image_filenames] == ["0001.png", "0009.png"]
    assert len(train.image_filenames) == VIEWS - 2
    assert set(train.cameras.width.flatten().tolist()) == {WIDTH}
    assert set(train.cameras.height.flatten().tolist()) == {HEIGHT}
    assert set(train.cameras.camera_type.flatten().tolist()) == {CameraType.PERSPECTIVE.value}
    assert not train.cameras.distortion_params.any()


def test_nerfstudio_reads_the_points(scene):
    pytest.importorskip("open3d", reason="open3d does not load on this machine", exc_type=ImportError)
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    parser = NerfstudioDataParserConfig(data=scene, load_3D_points=True).setup()
    outputs = parser.get_dataparser_outputs("train")
    points, colours = read_points(scene)
    turn = outputs.dataparser_transform.numpy()
    expected = outputs.dataparser_scale * (points @ turn[:, :3].T + turn[:, 3])
    np.testing.assert_allclose(outputs.metadata["points3D_xyz"].numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(outputs.metadata["points3D_rgb"].numpy(), colours)


def test_a_seed_gives_the_same_files_and_another_seed_others(scene, tmp_path):
    again, other = small_scene(tmp_path / "again"), small_scene(tmp_path / "other", seed=1)
    names = sorted(path.relative_to(scene) for path in scene.rglob("*") if path.is_file())
    beyond = len(read_meta(scene)["views_beyond"])
    assert len(names) == 2 * (VIEWS + beyond) + 2
    for name in names:
        assert (again / name).read_bytes() == (scene / name).read_bytes()
        if (other / name).exists():  # it may have fewer views beyond the cameras
            assert (other / name).read_bytes() != (scene / name).read_bytes()


def test_a_scene_is_taken_again_or_replaced(tmp_path):
    folder = small_scene(tmp_path / "scene", views=6, points=50)
    first = (folder / "transforms.json").stat()
    small_scene(folder, views=6, points=50)
    assert (folder / "transforms.json").stat().st_ino == first.st_ino
    small_scene(folder, views=5, points=50)
    assert len(read_meta(folder)["frames"]) == 5
    assert len(list((folder / "images").iterdir())) == 5 + len(read_meta(folder)["views_beyond"])
    assert list(tmp_path.iterdir()) == [folder]


def test_what_is_no_demo_scene_is_not_overwritten(tmp_path):
    (tmp_path / "transforms.json").write_text('{"frames": []}')
    with pytest.raises(FileExistsError, match="is not a demo scene"):
        small_scene(tmp_path)
    assert (tmp_path / "transforms.json").read_text() == '{"frames": []}'


def test_too_few_views_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="of 2 views"):
        small_scene(tmp_path / "scene", views=2)
    assert list(tmp_path.iterdir()) == []


def test_error_map_is_dark_without_error_and_brightens_with_it():
    photo = np.random.default_rng(0).uniform(0.0, 0.5, (9, 7, 3))
    none, little, much = (error_map(photo, photo + step, gain=4.0) for step in (0.0, 0.05, 0.2))
    assert none.shape == photo.shape
    assert none.max() < 0.02
    assert none.mean() < little.mean() < much.mean() <= 1.0


def test_comparison_picture_shows_the_columns_side_by_side(tmp_path):
    red, blue = np.zeros((2, 40, 120, 3)), np.zeros((2, 40, 120, 3))
    red[..., 0], blue[..., 2] = 1.0, 1.0
    comparison_picture([("photo", red), ("student", blue)], tmp_path / "picture.png")
    shown = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB"))
    assert np.sum((shown == [255, 0, 0]).all(axis=2)) == 2 * 40 * 120
    assert np.sum((shown == [0, 0, 255]).all(axis=2)) == 2 * 40 * 120
    reds, blues = (np.argwhere((shown == colour).all(axis=2)) for colour in ([255, 0, 0], [0, 0, 255]))
    assert reds[:, 1].max() < blues[:, 1].min()
    assert list(tmp_path.iterdir()) == [tmp_path / "picture.png"]


@pytest.mark.parametrize("shapes", [[(40, 60, 3), (41, 60, 3)], [(40, 60), (40, 60)], []])
def test_comparison_picture_refuses_columns_that_do_not_match(tmp_path, shapes):
    with pytest.raises(ValueError, match="columns have the shapes"):
        comparison_picture([("a", np.zeros(shape)) for shape in shapes], tmp_path / "picture.png")
