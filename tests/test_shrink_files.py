"""What `shrink` reads and writes: its own files apart from the user's, sizes in megabytes, views that see nothing."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from solids import solid, sphere

from distilled_splat.ops.space import Space
from distilled_splat.shrink.command import is_same
from distilled_splat.shrink.invented_cameras import looking
from distilled_splat.shrink.measure import compared, compared_at, pictures
from distilled_splat.shrink.preview import write_preview
from distilled_splat.shrink.shrinking import stamps
from distilled_splat.shrink.sizes import as_refitted, fitted, sizes_of
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.shrink.viewpoints import given_views, invented_views
from distilled_splat.splat.formats import FORMATS

UP = torch.tensor([0.0, 0.0, 1.0])


def around(count: int) -> list[torch.Tensor]:
    turns = torch.arange(count) * 2 * torch.pi / count
    return [3 * torch.stack((turn.cos(), turn.sin(), torch.tensor(0.2))) for turn in turns]


def test_one_file_has_many_paths(tmp_path: Path) -> None:
    (tmp_path / "a.ply").touch()
    (tmp_path / "b.ply").touch()
    (tmp_path / "link.ply").symlink_to("a.ply")
    (tmp_path / "hard.ply").hardlink_to(tmp_path / "a.ply")
    for same in ("link.ply", "hard.ply", f"../{tmp_path.name}/a.ply"):
        assert is_same(tmp_path / same, tmp_path / "a.ply"), same
    for other in ("b.ply", "absent.ply"):
        assert not is_same(tmp_path / other, tmp_path / "a.ply"), other


def test_cameras_that_see_nothing_are_left_out(tmp_path: Path) -> None:
    ball, frames = sphere(800), []
    for place, eye in enumerate(around(20)):
        look = eye if place % 4 == 0 else -eye  # every fourth camera looks away
        pose = torch.linalg.inv(looking(eye, look / look.norm(), UP, 64, 48, 60.0).viewmat)
        pose[:3, 1:3] *= -1
        frames.append({"file_path": f"{place}.png", "transform_matrix": pose.tolist()})
    listing = {"w": 64, "h": 48, "fl_x": 60.0, "fl_y": 60.0, "cx": 32.0, "cy": 24.0, "frames": frames}
    (tmp_path / "transforms.json").write_text("\ufeff" + json.dumps(listing))  # with the mark of an editor on Windows
    frame = UnitFrame.of([ball])
    views = given_views(tmp_path / "transforms.json", frame.into(ball), frame)
    assert len(views.train) + len(views.test) == 15 and "5 that see nothing are left out" in views.words


def test_splats_are_compared_view_by_view() -> None:
    ball, views = sphere(500), [looking(eye, -eye, UP, 48, 36, 40.0) for eye in around(5)]
    splats = [ball[torch.arange(len(ball)) % 3 > 0], replace(ball, sh_dc=ball.sh_dc + 0.1)]
    true = pictures(ball, views, False)
    for found, splat in zip(compared_at(splats, ball, views, False), splats):
        row = compared("", pictures(splat, views, False), true, 1, None)
        assert found == pytest.approx((row.psnr, row.ssim), rel=1e-5)


def test_the_least_important_go_until_a_file_is_small_enough() -> None:
    ball, weights = sphere(500), torch.rand(500, generator=torch.Generator().manual_seed(0))
    kept = fitted(ball, weights, 0.02, lambda splat: 100 * len(splat))
    assert 180 < len(kept) <= 200
    best = set(weights.topk(len(kept)).indices.tolist())
    assert {tuple(mean) for mean in kept.means.tolist()} == {tuple(ball.means[i].tolist()) for i in best}
    assert fitted(ball, weights, 1.0, lambda splat: 100 * len(splat)) is ball
    assert len(fitted(ball, weights, 1e-6, lambda splat: 100 * len(splat))) == 1


def test_the_trial_has_harmonics_of_a_refit() -> None:
    ball = replace(sphere(400), sh_rest=torch.arange(400.0)[:, None, None].expand(400, 3, 3).clone())
    mixed = as_refitted(ball).sh_rest / 1.5
    assert torch.equal(mixed.sort(dim=0).values, ball.sh_rest) and not torch.equal(mixed[:, 0], mixed[:, 1])
    plain = replace(ball, sh_rest=ball.sh_rest[:, :0])
    assert as_refitted(plain).sh_rest.shape == (400, 0, 3)


@pytest.mark.parametrize("megabytes", [float("inf"), float("nan"), 0.0, -1.0])
def test_impossible_megabytes_are_one_sentence(megabytes: float) -> None:
    with pytest.raises(ValueError, match="positive number of megabytes"):
        sizes_of(solid(300), (), (), (megabytes,), FORMATS["ply"], 1)


def test_the_stamps_of_an_unpacked_sog_are_those_of_all_its_files(tmp_path: Path) -> None:
    pytest.importorskip("gaussforge")
    (tmp_path / "a.sog").write_bytes(FORMATS["sog"].encode(sphere(200)))
    folder = tmp_path / "unpacked"
    zipfile.ZipFile(tmp_path / "a.sog").extractall(folder)
    before = [stamps(folder), stamps(folder / "meta.json")]
    assert before[0] == before[1] and len(before[0]) > 3 and len(stamps(tmp_path / "a.sog")) == 1
    picture = next(folder.glob("means_l*"))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert stamps(folder) == stamps(folder / "meta.json") != before[0]


def test_a_gigantic_gaussian_leaves_room_for_eyes() -> None:
    ball = sphere(800)
    ball.log_scales[0] = 30.0
    ball.logit_opacities[0] = -6.0
    assert torch.isfinite(Space.of(ball).density).all()
    assert len(invented_views(ball, 8, 0).train) > 0


@pytest.mark.parametrize("name", ["views.JPG", "views.jpeg", "views.PNG"])
def test_a_picture_of_the_views_has_any_spelling(tmp_path: Path, name: str) -> None:
    write_preview(tmp_path / name, sphere(200), [looking(eye, -eye, UP, 48, 36, 40.0) for eye in around(3)], UP)
    assert (tmp_path / name).stat().st_size > 1000
