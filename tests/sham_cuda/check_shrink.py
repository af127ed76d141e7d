"""What a splat is shrunk by, on the sham device as on the CPU: views, their renders, and the measure."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from solids import moved_to, solid

from distilled_splat.evaluation.lod import account_for
from distilled_splat.ops.views import View
from distilled_splat.ops.voxels import squared_effects
from distilled_splat.shrink.budget import measure_paces
from distilled_splat.shrink.camera_choice import choose_reading
from distilled_splat.shrink.capture import write_capture
from distilled_splat.shrink.given_cameras import read_cameras
from distilled_splat.shrink.kept_views import read_views, write_views
from distilled_splat.shrink.measure import compared, pictures
from distilled_splat.shrink.preview import write_preview
from distilled_splat.shrink.selection import select
from distilled_splat.shrink.shrinking import Shrinking
from distilled_splat.shrink.viewpoints import invented_views
from distilled_splat.splat.chunks import chunks_of, cut
from distilled_splat.splat.formats import FORMATS
from distilled_splat.student.pruning import with_unseen
from distilled_splat.teachers.ensemble import TeacherEnsemble
from distilled_splat.teachers.reading import Teacher


def on_the_cpu(view: View) -> View:
    return View(view.viewmat.cpu(), view.K.cpu(), view.width, view.height)


def test_views_their_renders_and_the_measure_are_those_of_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "big.ply").write_bytes(FORMATS["ply"].encode(moved_to(solid(1500), 2.0, 5.0)))
    job = Shrinking((tmp_path / "big.ply",), tmp_path / "small.ply", FORMATS["ply"], 3, Console(file=io.StringIO()))
    big, big_here = job.original, job.original.to("cpu")
    assert job.device.type == "cuda" and big.means.is_cuda
    here, there = invented_views(big, 8, 0), invented_views(big_here, 8, 0)
    assert len(here.train) == len(there.train) == 8 and len(here.test) == len(there.test)
    for view, other in zip((*here.train, *here.test), (*there.train, *there.test)):
        assert view.viewmat.is_cuda and view.K.is_cuda
        assert torch.allclose(view.viewmat.cpu(), other.viewmat, atol=1e-5)

    for name, device, views in (("cuda", job.device, here), ("cpu", torch.device("cpu"), there)):
        teacher = Teacher(tmp_path / "big.ply", big_here, False, None, {})
        write_capture(tmp_path / name, TeacherEnsemble([teacher], device), views.train, views.test)
    for path in sorted((tmp_path / "cuda" / "images").iterdir()):
        images = [np.asarray(Image.open(tmp_path / name / "images" / path.name), np.int16) for name in ("cuda", "cpu")]
        assert np.abs(images[0] - images[1])[images[1][..., 3] > 20].max() <= 2

    few = torch.arange(0, len(big), 3, device=job.device)
    on_device = compared("", pictures(big[few], here.test, False), pictures(big, here.test, False), 1, None)
    on_cpu = compared("", pictures(big_here[few.cpu()], there.test, False),
                      pictures(big_here, there.test, False), 1, None)  # fmt: skip
    assert on_device.psnr == pytest.approx(on_cpu.psnr, abs=0.01)
    assert on_device.ssim == pytest.approx(on_cpu.ssim, abs=1e-3)
    write_preview(tmp_path / "preview.png", big, here.train, here.up)

    write_views(tmp_path / "views.json", here)
    kept = read_views(tmp_path / "views.json", job.device)
    assert kept is not None and kept.train[0].viewmat.is_cuda
    assert torch.equal(kept.train[0].viewmat.cpu(), here.train[0].viewmat.cpu())
    paces = measure_paces(big, here.train, 100, 1.0)
    assert 0 < paces.picture < paces.step and paces.original == len(big)
    weights = torch.rand(len(big), device=job.device)
    weights[::3] = 0
    counted = with_unseen(weights, squared_effects(big))
    assert counted.is_cuda
    assert torch.allclose(counted.cpu(), with_unseen(weights.cpu(), squared_effects(big_here)), rtol=1e-5)
    found, expected = (
        select(splat, seen.train, [200], 3, False)[200] for splat, seen in ((big, here), (big_here, there))
    )
    assert found.rows.is_cuda and int(found.rows.sum()) == 200 and found.psnr == pytest.approx(expected.psnr, abs=0.5)

    frames = json.loads((tmp_path / "cpu" / "transforms.json").read_text())
    (tmp_path / "given.json").write_text(json.dumps(frames))
    (tmp_path / "transforms.json").write_text(json.dumps(frames))
    name, views = choose_reading(read_cameras(tmp_path / "transforms.json"), big, job.device)
    assert len(views) == len(frames["frames"]) and name


def test_levels_of_detail_and_files_are_those_of_the_cpu(tmp_path: Path) -> None:
    ball = solid(600)
    levels = [ball, ball[torch.arange(150)]]
    chunks = list(chunks_of(cut(levels, 200)))
    accounts, errors = account_for([level.to("cuda") for level in levels], chunks)
    expected, same_errors = account_for(levels, chunks)
    assert errors == pytest.approx(same_errors, rel=1e-3) and len(accounts) == len(expected) == 8
    for account, other in zip(accounts, expected):
        assert account.errors == pytest.approx(other.errors, rel=1e-2)
        assert (*account.low, *account.high) == pytest.approx((*other.low, *other.high), abs=1e-5)
    for kind in ("ply", "glb"):
        assert FORMATS[kind].encode(ball.to("cuda")) == FORMATS[kind].encode(ball)
