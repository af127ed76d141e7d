"""Where a splat is looked at from when nobody knows its photos: units, space, rays, and the views that are chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image
from sham_process import run_checks
from solids import joined, moved_to, room, solid, sphere

from distilled_splat.ops.render import render
from distilled_splat.ops.space import CELL, Space, cell_of, cell_volumes, contracted, sphere_directions
from distilled_splat.ops.views import view_of
from distilled_splat.shrink.capture import as_rgba, write_capture
from distilled_splat.shrink.invented_cameras import FIELD_OF_VIEW, invent, looking, sharpness
from distilled_splat.shrink.kept_views import read_views, write_views
from distilled_splat.shrink.preview import write_preview
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.shrink.viewpoints import given_views, invented_views
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.teachers.ensemble import TeacherEnsemble
from distilled_splat.teachers.reading import Teacher


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-6, 0.0), (1e6, -3e6), (2.0, 1000.0)])
def test_a_splat_of_any_size_is_the_same_in_its_unit_frame(scale: float, shift: float) -> None:
    elsewhere = moved_to(sphere(), scale, shift)
    frame, plain = UnitFrame.of([elsewhere]), UnitFrame.of([sphere()])
    assert frame.size == pytest.approx(scale * plain.size, rel=1e-3)
    here, there = frame.into(elsewhere), plain.into(sphere())
    rounding = 1e-6 + 2e-7 * abs(shift) / scale  # of the centres that a file holds as 32-bit floats
    assert torch.allclose(here.means, there.means, atol=rounding)
    assert torch.allclose(here.log_scales, there.log_scales, atol=2e-3)
    back = frame.out_of(here)
    assert torch.allclose(back.means, elsewhere.means, rtol=1e-6, atol=1e-6 * scale)
    assert torch.allclose(back.log_scales, elsewhere.log_scales, atol=1e-5)


def test_floaters_do_not_make_the_unit_frame_larger() -> None:
    floaters = moved_to(sphere(20), 100.0, 50.0)
    assert UnitFrame.of([joined(sphere(), floaters)]).size == pytest.approx(UnitFrame.of([sphere()]).size, rel=0.02)


def test_a_splat_that_shows_nothing_is_refused() -> None:
    faint = sphere(10)
    faint.logit_opacities.fill_(-9.0)
    with pytest.raises(ValueError, match="is invisible"):
        UnitFrame.of([faint])


def test_contracted_space_holds_all_space() -> None:
    points = torch.tensor([[0.3, -0.9, 0.2], [4.0, 2.0, -1.0], [-1e9, 1.0, 1.0]])
    inner, outer, far = contracted(points)
    assert torch.equal(inner, points[0])
    assert torch.allclose(outer, (2 - 1 / 4) * points[1] / 4)
    assert torch.allclose(far, torch.tensor([-2.0, 0.0, 0.0]), atol=1e-6)
    cells = cell_of(points)
    assert cells.shape == (3,) and len(cells.unique()) == 3


def test_cells_have_the_volume_that_they_have_in_space() -> None:
    generator = torch.Generator().manual_seed(0)
    points = 3 * (2 * torch.rand(4_000_000, 3, generator=generator, dtype=torch.float64) - 1)
    reach = torch.bincount(cell_of(points.float()), minlength=len(cell_volumes()))
    # whole shells of cells, so that many points fall into each
    volumes = cell_volumes()
    axis = torch.arange(round(4 / CELL))
    place = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(1)
    outward = ((place + 0.5) * CELL - 2).abs().amax(dim=0)
    for low, high in ((0.0, 1.0), (1.0, 1.2), (1.2, 1.4)):
        shell = (outward > low) & (outward < high)
        assert float(volumes[shell].sum()) == pytest.approx(216 * float(reach[shell].sum()) / len(points), rel=0.02)


def test_rays_end_on_surfaces() -> None:
    space = Space.of(room())
    directions = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0], [0, 0, -1.0]])
    hits = space.cast(torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]), directions)
    expected = torch.tensor([[1.0, 1.0, 1.0, 0.6], [0.5, 1.5, 1.0, 0.6]])
    assert torch.allclose(hits.distance, expected, atol=2 * CELL)
    assert float(hits.fog.median()) < 0.1
    outside = space.cast(torch.tensor([[3.0, 0.0, 0.0]]), directions)
    assert outside.ends.tolist() == [[False, True, False, False]]
    assert float(outside.distance[0, 1]) == pytest.approx(2.0, abs=0.15)


def test_large_gaussians_fill_all_that_they_cover() -> None:
    wall = Gaussians(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.5, 0.5, 0.001]]).log(),
        torch.tensor([9.0]), torch.zeros(1, 3), torch.zeros(1, 0, 3),
    )  # fmt: skip
    space = Space.of(wall)
    filled = space.density.view(3 * (round(4 / CELL),)).nonzero() * CELL - 2
    assert len(filled) > 200 and float(filled[:, :2].abs().max()) > 0.7
    assert float(filled[:, 2].abs().max()) <= CELL
    blocked = float((space.density * cell_volumes()).sum())
    assert blocked == pytest.approx(torch.pi * 0.25 * float(torch.sigmoid(torch.tensor(9.0))), rel=1e-3)


def always(*_: object) -> bool:
    return True


def test_a_room_is_looked_at_from_within() -> None:
    found = invent(Space.of(room()), 40, always)
    inside = (found.eyes.abs() < torch.tensor([1.0, 1.0, 0.6])).all(dim=1)
    assert len(found.eyes) == 40 and inside.float().mean() > 0.9


def test_an_object_is_looked_at_from_all_around() -> None:
    found = invent(Space.of(solid()), 60, always)
    assert (found.eyes.norm(dim=1) > 0.85).all()
    sides = sphere_directions(6)
    seen_from = (torch.nn.functional.normalize(found.eyes, dim=1) @ sides.T).argmax(dim=1)
    assert len(seen_from.unique()) == 6
    towards = -(torch.nn.functional.normalize(found.eyes, dim=1) * found.looks).sum(dim=1)
    assert towards.median() > 0.8


def test_a_place_whose_picture_is_none_is_not_taken() -> None:
    refused: list[torch.Tensor] = []

    def shows(eye: torch.Tensor, look: torch.Tensor, scale: float) -> bool:
        if eye[0] > 0:
            refused.append(eye)
        return bool(eye[0] <= 0)

    found = invent(Space.of(solid()), 30, shows)
    assert refused and (found.eyes[:, 0] <= 0).all()
    with pytest.raises(ValueError, match="give --cameras"):
        invent(Space.of(solid()), 30, lambda *_: False)


def test_fog_is_not_sharp() -> None:
    ball = sphere(6000, 0.8)
    eye, up = torch.tensor([0.0, -2.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    view = looking(eye, -eye, up, 64, 48, 50.0)
    scale = float((torch.tensor(1.2) / torch.exp(ball.log_scales[0, 0])).log())
    assert sharpness(ball, view, scale) > 0.95
    mist = Gaussians(
        0.5 * eye[None], torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.6).log(),
        torch.tensor([6.0]), torch.zeros(1, 3), torch.zeros(1, 3, 3),
    )  # fmt: skip
    assert sharpness(joined(ball, mist), view, scale) < 0.7
    assert sharpness(ball, looking(eye, eye, up, 64, 48, 50.0), scale) == 0.0  # nothing is there


def test_up_is_up_in_a_picture() -> None:
    eye, look, up = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, -1.0, -0.5]), torch.tensor([0.0, 0.0, 1.0])
    view = looking(eye, look, up, 64, 48, 50.0)
    R = view.viewmat[:3, :3]
    assert torch.allclose(R @ R.T, torch.eye(3), atol=1e-6) and float(torch.linalg.det(R)) == pytest.approx(1)
    assert torch.allclose(R @ torch.nn.functional.normalize(look, dim=0), torch.tensor([0.0, 0, 1]), atol=1e-6)
    assert float((R @ up)[1]) < 0 and abs(float((R @ up)[0])) < 1e-6  # the image's y axis points down
    assert torch.allclose(view.viewmat[:3] @ torch.cat((eye, torch.ones(1))), torch.zeros(3), atol=1e-6)
    down = looking(eye, -up, up, 64, 48, 50.0)
    assert float(torch.linalg.det(down.viewmat[:3, :3])) == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def ball() -> Gaussians:
    return UnitFrame.of([sphere(6000)]).into(sphere(6000))


def test_invented_views_show_gaussians_of_about_a_pixel(ball: Gaussians, tmp_path: Path) -> None:
    views = invented_views(ball, 30, 0)
    assert len(views.train) == 30 and len(views.test) > 0
    shown = views.train[0]
    assert shown.width > shown.height
    focal = shown.width / 2 / np.tan(FIELD_OF_VIEW / 2)
    assert float(shown.K[0, 0]) == pytest.approx(focal, rel=1e-3)
    for view in views.train:
        rendered = render(ball, view)
        assert float(rendered.alpha.mean()) > 0.1
    write_preview(tmp_path / "preview.png", ball, views.train, views.up)
    sheet = np.asarray(Image.open(tmp_path / "preview.png"))
    assert sheet.std() > 10


def test_a_capture_of_renders_is_what_nerfstudio_reads(ball: Gaussians, tmp_path: Path) -> None:
    views = invented_views(ball, 9, 0)
    ensemble = TeacherEnsemble([Teacher(tmp_path / "ball.ply", ball, False, None, {})], "cpu")
    told: list[tuple[int, int]] = []
    write_capture(tmp_path / "capture", ensemble, views.train, views.test, lambda *done: told.append(done))
    assert told[-1] == (len(views.train) + len(views.test),) * 2
    for split, true in (("train", views.train), ("test", views.test)):
        parser = NerfstudioDataParserConfig(
            data=tmp_path / "capture", eval_mode="filename", orientation_method="none", center_method="none",
            auto_scale_poses=False, load_3D_points=False,
        )  # fmt: skip
        scene = parser.setup().get_dataparser_outputs(split)
        assert scene.dataparser_scale == 1 and len(scene.image_filenames) == len(true)
        for place, view in enumerate(true):
            read = view_of(scene.cameras[place : place + 1])
            assert torch.allclose(read.viewmat, view.viewmat, atol=1e-5)
            assert torch.allclose(read.K, view.K, rtol=1e-5) and (read.width, read.height) == (view.width, view.height)
            photo = np.asarray(Image.open(scene.image_filenames[place]), np.float32) / 255
            rendered = render(ball, view)
            straight = photo[..., :3] * photo[..., 3:]
            assert np.abs(straight - rendered.color.clamp(0, 1).numpy()).max() < 2.5 / 255
    assert not list(tmp_path.glob(".*"))


def test_transparent_pixels_keep_their_colour() -> None:
    color, alpha = torch.tensor([[[0.1, 0.2, 0.0]]]), torch.tensor([[[0.25]]])
    assert as_rgba(color, alpha).tolist() == [[[102, 204, 0, 64]]]
    assert as_rgba(torch.zeros(1, 1, 3), torch.zeros(1, 1, 1)).tolist() == [[[0, 0, 0, 0]]]


def test_given_cameras_are_taken_in_the_unit_frame(tmp_path: Path) -> None:
    original = moved_to(sphere(3000), 5.0, 40.0)
    frame = UnitFrame.of([original])
    ball = frame.into(original)
    frames = []
    for place, side in enumerate(sphere_directions(12)):
        view = looking(40 + 15 * side, -side, torch.tensor([0.0, 0.0, 1.0]), 1600, 1200, 1500.0)
        pose = torch.linalg.inv(view.viewmat.double())
        frames.append({"id": place, "img_name": f"{place}", "width": 1600, "height": 1200, "fx": 1500.0, "fy": 1500.0,
                       "position": pose[:3, 3].tolist(), "rotation": pose[:3, :3].tolist()})  # fmt: skip
    (tmp_path / "cameras.json").write_text(json.dumps(frames))
    views = given_views(tmp_path / "cameras.json", ball, frame)
    assert len(views.train) == 10 and len(views.test) == 2
    for view in (*views.train, *views.test):
        assert (view.width, view.height) == (800, 600) and float(view.K[0, 0]) == pytest.approx(750)
        eye = -view.viewmat[:3, :3].T @ view.viewmat[:3, 3]
        assert float(eye.norm()) == pytest.approx(15 / frame.size, rel=1e-3)
        assert float(render(ball, view).alpha[300, 400]) > 0.9


def test_views_are_read_as_they_were_written(ball: Gaussians, tmp_path: Path) -> None:
    views = invented_views(ball, 5, 0)
    write_views(tmp_path / "views.json", views)
    found = read_views(tmp_path / "views.json", torch.device("cpu"))
    assert found is not None and found.words == views.words and torch.equal(found.up, views.up)
    for kept, true in ((found.train, views.train), (found.test, views.test)):
        assert len(kept) == len(true)
        for one, other in zip(kept, true):
            assert torch.equal(one.viewmat, other.viewmat) and torch.equal(one.K, other.K)
            assert (one.width, one.height) == (other.width, other.height)


def test_damaged_views_are_found_anew(ball: Gaussians, tmp_path: Path) -> None:
    path = tmp_path / "views.json"
    write_views(path, invented_views(ball, 3, 0))
    whole = path.read_text()
    content = json.loads(whole)
    nothing = {**content, "train": []}
    flat = {**content, "test": [{**content["test"][0], "width": 0}]}
    wrong = {**content, "up": [1.0]}
    damaged = (
        whole[: len(whole) // 2],
        "[]",
        "{}",
        "",
        whole.replace("0.", "NaN, 0."),
        *map(json.dumps, (nothing, flat, wrong)),
    )
    for text in damaged:
        path.write_text(text)
        assert read_views(path, torch.device("cpu")) is None
    assert read_views(tmp_path / "missing.json", torch.device("cpu")) is None


def test_on_cuda_it_is_the_same() -> None:
    run_checks("shrink")
