"""`distilled-splat export`: files of a real run, measured, in either world, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from tiny import tiny_teacher

from distilled_splat import cli
from distilled_splat.evaluation.export import export, export_within
from distilled_splat.evaluation.held_out import open_run
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View, world_to_camera
from distilled_splat.splat.files import read_splat
from distilled_splat.splat.formats import FORMATS
from distilled_splat.teachers.reading import read_teacher

OURS = ("ply", "glb")
COMPRESSED = ("compressed-ply", "splat", "spz", "sog")


@pytest.fixture
def libraries() -> None:
    """What writes the compressed formats; tests of those are skipped where it is not installed."""
    for name in ("gsply", "gaussforge"):
        pytest.importorskip(name)


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Call the command in this process, as its entry point does."""
    monkeypatch.setattr(sys, "argv", ["distilled-splat", *map(str, arguments)])
    cli.main()


@pytest.mark.usefixtures("libraries")
def test_all_formats_are_written_measured_and_listed(
    teachers: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = teachers[0] / "config.yml"
    run_command(monkeypatch, "export", "--load-config", config, "--format", "all", "--output-dir", tmp_path / "out")
    words = capsys.readouterr().out
    for kind, form in FORMATS.items():
        path = tmp_path / "out" / f"splat{form.ending}"
        assert path.stat().st_size > 1000
        assert f" {kind} " in words and f"{path}" in words
    assert "The frame is upright: nerfstudio's frame, turned so that y points down" in words
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"splat{form.ending}" for form in FORMATS.values()
    )


@pytest.mark.usefixtures("libraries")
def test_a_plain_file_loses_nothing_and_the_others_little(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    files = export(teachers[0] / "config.yml", tmp_path, (*OURS, *COMPRESSED), 4, "upright", measure=True)
    assert [file.kind for file in files] == [*OURS, *COMPRESSED]
    for file in files:
        assert file.psnr is not None and file.lost is not None
        assert file.psnr > 5 and abs(file.lost) < 0.5
        assert file.megabytes == file.path.stat().st_size / 1e6
    assert all(abs(file.lost or 0.0) < 1e-4 for file in files[:2])
    assert all(file.megabytes < files[0].megabytes for file in files[2:])


def test_the_degree_is_cut_as_asked_and_the_size_follows(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    count = len(read_teacher(teachers[0]).gaussians)
    for degree in range(4):
        (file,) = export(teachers[0] / "config.yml", tmp_path, ("ply",), degree, "nerfstudio", measure=False)
        assert file.sh_degree == degree and file.psnr is None
        properties = 14 + 3 * (degree + 1) ** 2
        assert len(PlyData.read(file.path)["vertex"].properties) == properties
        assert 0 < file.path.stat().st_size - 4 * properties * count < 4000


def test_the_target_is_met_by_the_file_that_loses_least(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    config = teachers[0] / "config.yml"
    count = len(read_teacher(teachers[0]).gaussians)
    target = (4 * 41 * count + 2000) / 1e6  # degree 2 has 41 floats
    best, fitting = export_within(config, tmp_path, ("ply",), 4, "nerfstudio", target)
    assert fitting[0].megabytes == best.megabytes <= target
    assert best.sh_degree == 2
    assert best.path == tmp_path / "splat.ply" and best.path.stat().st_size <= 1e6 * target
    with pytest.raises(ValueError, match=rf"^{count} Gaussians do not fit into 0.001 MB: the smallest file, ply of"):
        export_within(config, tmp_path, ("ply",), 4, "nerfstudio", 0.001)
    assert [path.name for path in tmp_path.iterdir()] == ["splat.ply"]


@pytest.mark.usefixtures("libraries")
def test_the_target_says_what_was_chosen(
    teachers: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = teachers[0] / "config.yml"
    run_command(monkeypatch, "export", "--load-config", config, "--target-mb", 0.05, "--output-dir", tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= 50_000
    assert f"{path}" in capsys.readouterr().out.splitlines()[-1]


def test_a_file_in_the_captures_frame_fits_the_captures_own_cameras(
    scene: Path, teachers: tuple[Path, ...], tmp_path: Path
) -> None:
    """The reference is transforms.json itself: nothing here knows nerfstudio's transform."""
    run = open_run(teachers[0] / "config.yml")
    (file,) = export(teachers[0] / "config.yml", tmp_path, ("ply",), 4, "capture", measure=True)
    assert file.lost is not None and abs(file.lost) < 0.01
    exported = read_splat(file.path).gaussians
    frames = {
        Path(frame["file_path"]).name: frame for frame in json.loads((scene / "transforms.json").read_text())["frames"]
    }
    held = next(run.held_out())
    name = run.datamanager.eval_dataset.image_filenames[0].name
    pose = torch.tensor(frames[name]["transform_matrix"], dtype=torch.float32)
    view = View(world_to_camera(pose), held.view.K, held.view.width, held.view.height)
    with torch.no_grad():
        there = render(exported, view).over(held.background)
        here = run.image(held)
    assert float((there - here).abs().mean()) < 1e-3
    assert float(here.std()) > 0.02
    moved = np.linalg.norm(exported.means.numpy() - read_teacher(teachers[0]).gaussians.means.numpy(), axis=1)
    assert moved.mean() > 0.1


def test_an_upright_file_is_the_runs_turned_from_z_up_to_y_down(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    """A camera that is turned with the scene, by numbers written out here, takes the same picture."""
    config = teachers[0] / "config.yml"
    files = export(config, tmp_path, OURS, 4, "upright", measure=False)
    own = read_teacher(teachers[0]).gaussians
    run = open_run(config)
    held = next(run.held_out())
    turned = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    view = View(held.view.viewmat @ turned.T, held.view.K, held.view.width, held.view.height)
    for file in files:
        exported = read_splat(file.path).gaussians
        x, y, z = own.means.T
        assert torch.allclose(exported.means, torch.stack((x, -z, y), dim=1), atol=1e-6)
        with torch.no_grad():
            there, here = (
                render(splat, camera).over(held.background) for splat, camera in ((exported, view), (own, held.view))
            )
        assert float((there - here).abs().mean()) < 1e-4 and float(here.std()) > 0.02


def test_a_run_that_was_moved_is_exported_where_it_is(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    moved = tmp_path / "a run ü" / "elsewhere"
    shutil.copytree(teachers[0], moved)
    (file,) = export(moved / "config.yml", moved / "export", ("ply",), 4, "nerfstudio", measure=True)
    assert file.psnr is not None and abs(file.lost or 0.0) < 1e-4


@pytest.mark.usefixtures("libraries")
def test_an_antialiased_run_is_measured_as_each_file_says(scene: Path, tmp_path: Path) -> None:
    """A .splat has no place for it, so viewers know no better than to render it plainly."""
    run = tiny_teacher(scene, tmp_path / "run", iterations=12, rasterize_mode="antialiased").base_dir
    files = export(run / "config.yml", tmp_path, ("splat", "ply", "spz"), 4, "nerfstudio", measure=True)
    modes = [read_splat(file.path).antialiased for file in files]
    assert modes == [None, True, True]
    assert [read_teacher(file.path).antialiased for file in files] == [False, True, True]
    finished = open_run(run / "config.yml", teachers=())

    def psnr(path: Path, antialiased: bool) -> float:
        gaussians = read_splat(path).gaussians
        return finished.mean_psnr(
            lambda held: render(gaussians, held.view, antialiased=antialiased).over(held.background)
        )

    for file, mode in zip(files, modes):
        mode = bool(mode)
        assert file.psnr == pytest.approx(psnr(file.path, mode), abs=1e-5)
        assert abs(psnr(file.path, mode) - psnr(file.path, not mode)) > 1e-3
    gsply, spz = pytest.importorskip("gsply"), files[-1]
    assert torch.allclose(torch.from_numpy(gsply.read_spz(spz.path).means), read_splat(spz.path).gaussians.means)


def test_a_plain_run_says_so_in_its_spz(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    pytest.importorskip("gsply")
    (file,) = export(teachers[0] / "config.yml", tmp_path, ("spz",), 4, "nerfstudio", measure=False)
    assert read_splat(file.path).antialiased is False


def test_refusals_are_one_sentence(teachers: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = teachers[0] / "config.yml"
    lone = tmp_path / "lone.ckpt"
    (checkpoint,) = (teachers[0] / "nerfstudio_models").glob("*.ckpt")
    shutil.copy(checkpoint, lone)
    cases = [
        ((tmp_path / "config.yml",), "does not exist"),
        ((lone,), "is not the config.yml of a run: give the one"),
        ((lone, "--frame", "capture", "--no-measure"), "the capture's frame is unknown"),
        ((config, "--target-mb", "0"), "--target-mb needs a positive number"),
        ((config, "--target-mb", "1", "--no-measure"), "needs --measure to choose"),
    ]
    for arguments, sentence in cases:
        with pytest.raises(SystemExit) as refused:
            run_command(monkeypatch, "export", "--output-dir", tmp_path / "out", "--load-config", *arguments)
        assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_lost_photos_are_one_sentence(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teachers[0], run)
    config = run / "config.yml"
    lines = config.read_text().splitlines()
    name = read_data_name(lines)
    config.write_text("\n".join("- nowhere" if line.strip() == f"- {name}" else line for line in lines))
    with pytest.raises(ValueError, match="cannot be opened with its photos"):
        export(config, tmp_path / "out", ("ply",), 4, "nerfstudio", measure=True)
    assert export(config, tmp_path / "out", ("ply",), 4, "nerfstudio", measure=False)[0].path.exists()


def read_data_name(lines: list[str]) -> str:
    """Return the last part of the data's path in a config.yml, where a path is a list of its parts."""
    start = next(place for place, line in enumerate(lines) if line.startswith("data:"))
    parts = [line.strip()[2:] for line in lines[start + 1 : start + 20] if line.strip().startswith("- ")]
    return next(part for part in reversed(parts) if part == "scene")
