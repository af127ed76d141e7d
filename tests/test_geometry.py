"""How true a splat's geometry is: measures on what can be counted by hand, and true depths in nerfstudio's units."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import splat_and_view
from tiny import tiny_student, trained

from distilled_splat import cli
from distilled_splat.demo.layouts import LAYOUTS
from distilled_splat.demo.scene import make_scene, true_depth
from distilled_splat.evaluation import geometry
from distilled_splat.evaluation.compare import DEPTH_MAPS, TEACHERS_MEAN, compare
from distilled_splat.evaluation.geometry import alpha_error, depth_error, floaters, is_afloat, mean_surfaces
from distilled_splat.evaluation.held_out import open_run
from distilled_splat.evaluation.true_depth import TrueDepths, read_depth, twice_as_far
from distilled_splat.ops.importance import blending_weights
from distilled_splat.ops.render import Rendered
from distilled_splat.ops.views import View
from distilled_splat.ops.voxels import mass
from distilled_splat.splat.gaussians import Gaussians


def rendered(depth: list[float], alpha: list[float]) -> Rendered:
    """Return a render of one row of pixels."""
    shape = (1, len(depth), 1)
    return Rendered(torch.zeros(1, len(depth), 3), torch.tensor(alpha).view(shape), torch.tensor(depth).view(shape), {})


def pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1)


def splat(means: list[list[float]], scales: float = 0.1, logits: float = 0.0) -> Gaussians:
    count = len(means)
    return Gaussians(
        means=torch.tensor(means),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        log_scales=torch.full((count, 3), math.log(scales)),
        logit_opacities=torch.full((count,), logits),
        sh_dc=torch.zeros(count, 3),
        sh_rest=torch.zeros(count, 0, 3),
    )


def test_an_error_of_depth_is_relative_and_counts_1_at_the_most() -> None:
    #                off by half, far off, nothing there, not known
    depth, alpha = pixels(3.0, 50.0, 2.0, 7.0), pixels(1.0, 1.0, 0.001, 1.0)
    assert depth_error(depth, alpha, pixels(2.0, 2.0, 2.0, 0.0)) == pytest.approx((0.5 + 1 + 1) / 3)
    assert depth_error(depth, alpha, pixels(3.0, 0.0, 0.0, 0.0)) == 0
    assert math.isnan(depth_error(depth, alpha, pixels(0.0, 0.0, 0.0, 0.0)))


def test_an_error_of_alpha_is_absolute() -> None:
    assert alpha_error(pixels(0.25, 1.0), pixels(0.0, 1.0)) == pytest.approx(0.125)


def test_depths_of_teachers_are_weighted_by_what_they_cover() -> None:
    mean = mean_surfaces([rendered([2.0, 9.0, 4.0], [1.0, 0.0, 0.2]), rendered([4.0, 5.0, 4.0], [0.5, 1.0, 0.2])])
    assert mean.alpha is not None
    assert torch.allclose(mean.alpha, pixels(0.75, 0.5, 0.2))
    # the third pixel is hardly covered: its depth is not taken for true
    assert torch.allclose(mean.depth, pixels((2 * 1 + 4 * 0.5) / 1.5, 5.0, 0.0))


def test_mass_is_opacity_times_the_largest_section() -> None:
    one = replace(splat([[0.0, 0.0, 0.0]]), log_scales=torch.tensor([[3.0, 0.5, 2.0]]).log())
    assert float(mass(one)) == pytest.approx(0.5 * 6.0)


def test_what_lies_where_no_teacher_has_anything_floats() -> None:
    generator = torch.Generator().manual_seed(0)
    cloud = torch.rand(2000, 3, generator=generator).tolist()
    teacher = splat(cloud)
    assert not is_afloat(teacher, [teacher]).any()
    more = splat([[3.0, 0.0, 0.0], [0.5, 0.5, -9.0], cloud[0]])
    assert is_afloat(more, [teacher]).tolist() == [True, True, False]
    assert is_afloat(more, [teacher, splat([[3.01, 0.0, 0.0]])]).tolist() == [False, True, False]


def test_floaters_count_by_what_is_seen_of_them() -> None:
    gaussians, camera = splat_and_view(0)
    weights = blending_weights(gaussians, camera)
    references = [Gaussians(**{name: value[10:] for name, value in vars(gaussians).items()})]
    afloat = is_afloat(gaussians, references)
    assert 0 < int(afloat.sum()) <= 10 and not afloat[10:].any()
    expected = float(weights[afloat].sum() / weights.sum())
    assert floaters(gaussians, references, [camera, camera], False) == pytest.approx(expected, rel=1e-5)
    assert floaters(gaussians, [gaussians], [camera], False) == 0


def view(width: int, height: int) -> View:
    return View(torch.eye(4), torch.eye(3), width, height)


def test_depth_maps_are_read_in_world_units_at_the_views_size(tmp_path: Path) -> None:
    values = np.array([[1000, 0, 3000, 65535], [0, 500, 1, 2]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", values)
    for name in ("a.png", "a.npy"):
        depth = read_depth(tmp_path / name, 2e-3, view(4, 2))
        assert depth is not None
        np.testing.assert_allclose(depth[..., 0].numpy(), 2e-3 * values.astype(np.float32), rtol=1e-6)
    halved = read_depth(tmp_path / "a.png", 1.0, view(2, 1))
    assert halved is not None and halved.shape == (1, 2, 1)
    assert set(halved.flatten().tolist()) <= set(values.flatten().tolist())  # depths are not mixed across edges


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"\x93NUMPY", pickle.dumps([1, 2])])
def test_depth_maps_that_cannot_be_read_are_left_out(content: bytes, tmp_path: Path) -> None:
    for name in ("depth.png", "depth.npy"):
        (tmp_path / name).write_bytes(content)
        assert read_depth(tmp_path / name, 1.0, view(4, 2)) is None
    assert read_depth(tmp_path / "missing.png", 1.0, view(4, 2)) is None


@pytest.fixture(scope="module")
def student(scene: Path, teachers: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of a student on a scene with depth maps."""
    config = tiny_student(scene, tmp_path_factory.mktemp("student"), teachers, num_gaussians=300)
    return trained(config).base_dir / "config.yml"


def test_true_depths_are_those_of_the_tracer(scene: Path, student: Path) -> None:
    run = open_run(student)
    parsed = run.datamanager.train_dataparser_outputs
    truth = TrueDepths(run.datamanager.eval_dataset, parsed)
    meta = json.loads((scene / "transforms.json").read_text())
    lens = (meta["fl_x"], meta["w"], meta["h"])
    frames = {Path(frame["file_path"]).name: frame for frame in meta["frames"]}
    names = [path.name for path in run.datamanager.eval_dataset.image_filenames]
    layout = LAYOUTS["still-life"]
    found = []
    for held in run.held_out():
        depth = truth.of_photo(held.place, held.view)
        assert depth is not None
        found.append((np.array(frames[names[held.place]]["transform_matrix"]), held.view, depth))
    beyond = list(truth.beyond(scene, held.camera))
    assert len(beyond) == len(meta["views_beyond"]) > 0
    for frame, (view, depth) in zip(meta["views_beyond"], beyond):
        found.append((np.array(frame["transform_matrix"]), view, depth))
    for pose, view, depth in found:
        expected = parsed.dataparser_scale * true_depth(layout, pose, *lens)
        np.testing.assert_allclose(depth[..., 0].cpu().numpy(), expected, atol=1e-3 * parsed.dataparser_scale)
        moved = parsed.dataparser_transform[:3].double().numpy() @ pose
        centre = -view.viewmat[:3, :3].T @ view.viewmat[:3, 3]
        np.testing.assert_allclose(centre.cpu().numpy(), parsed.dataparser_scale * moved[:3, 3], atol=1e-5)


def test_geometry_is_measured_by_depth_maps_where_there_are_some(student: Path) -> None:
    comparison = compare(student)
    assert comparison.depth_by == DEPTH_MAPS
    *teachers, mean, own = comparison.rows
    for row in comparison.rows:
        assert row.depth_error is not None and 0 < row.depth_error < 1
        assert row.depth_error_beyond is not None and 0 < row.depth_error_beyond < 1
    for row in (*teachers, own):  # the photos have no alpha: by the teachers' mean
        assert row.alpha_error is not None and 0 <= row.alpha_error < 1
    assert mean.alpha_error is None
    assert own.floaters is not None and 0 <= own.floaters < 1
    assert all(row.floaters is None for row in (*teachers, mean))
    (alone,) = compare(student, []).rows
    assert alone.depth_error == pytest.approx(own.depth_error)
    assert alone.alpha_error is None and alone.floaters is None


def test_without_depth_maps_geometry_is_measured_by_the_teachers_mean(
    scene: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "LEAST_SHARED_ALPHA", 0.05)  # these teachers have hardly been trained
    bare = Path(shutil.copytree(scene, tmp_path / "bare"))
    shutil.rmtree(bare / "depths")
    meta = json.loads((bare / "transforms.json").read_text())
    for frame in meta["frames"]:
        del frame["depth_file_path"]
    (bare / "transforms.json").write_text(json.dumps(meta))
    comparison = compare(student, data=bare)
    assert comparison.depth_by == TEACHERS_MEAN
    own, by_maps = comparison.rows[-1], compare(student).rows[-1]
    assert own.psnr == pytest.approx(by_maps.psnr)
    assert own.depth_error is not None and own.depth_error != pytest.approx(by_maps.depth_error, rel=1e-3)
    assert own.depth_error_beyond is not None and own.depth_error_beyond > 0
    (alone,) = compare(student, [], data=bare).rows
    assert (alone.depth_error, alone.depth_error_beyond, alone.alpha_error, alone.floaters) == (None,) * 4


def test_views_that_are_twice_as_far(student: Path) -> None:
    run = open_run(student)
    others = run.datamanager.train_dataset.cameras
    centres = others.camera_to_worlds[:, :, 3]
    for held in run.held_out():
        far = twice_as_far(held.camera, others)
        own, moved = (-view.viewmat[:3, :3].T @ view.viewmat[:3, 3] for view in (held.view, far))
        nearest = centres[(centres - own.cpu()).norm(dim=1).argmin()].to(own)
        assert torch.allclose(moved - nearest, 2 * (own - nearest), atol=1e-5)
        assert torch.allclose(far.viewmat[:3, :3], held.view.viewmat[:3, :3])


def read(folder: Path, frame: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame's picture and its depth map."""
    return np.asarray(Image.open(folder / frame["file_path"])), np.asarray(
        Image.open(folder / frame["depth_file_path"])
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_scene_has_depths_points_and_views_beyond(layout: str, tmp_path: Path) -> None:
    folder = make_scene(tmp_path / "scene", views=24, width=64, height=48, points=200, layout=layout)
    meta = json.loads((folder / "transforms.json").read_text())
    assert len(meta["frames"]) == 24 and 1 <= len(meta["views_beyond"]) <= 3
    for frame in meta["frames"]:
        picture, depth = read(folder, frame)
        if LAYOUTS[layout].cut_out:
            covered = picture[..., 3] / 255
            assert 0.02 < covered.mean() < 0.8
            assert (depth[covered == 1] > 0).all() and (depth[covered == 0] == 0).mean() > 0.999
        else:
            assert picture.shape[-1] == 3 and (depth > 0).all()
        assert picture[..., :3][depth > 0].std() > 10
    centres = np.array([frame["transform_matrix"] for frame in meta["frames"]])[:, :3, 3]
    for frame in meta["views_beyond"]:
        picture, depth = read(folder, frame)
        assert (depth > 0).mean() > 0.02
        far = np.linalg.norm(centres - np.array(frame["transform_matrix"])[:3, 3], axis=1).min()
        assert far > 0.1


def test_a_layout_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The layout 'palace' is unknown: choose from still-life, tower, hall"):
        make_scene(tmp_path / "scene", layout="palace")
    assert list(tmp_path.iterdir()) == []


def test_the_command_offers_every_layout() -> None:
    assert get_args(get_type_hints(cli.Demo)["layout"]) == tuple(LAYOUTS)
