"""Exported files as teachers: ns-export's, and the same splat in the capture's own frame."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import cloud, columns_of, ply_bytes, same, write_ply
from foreign_files import spz_of
from nerfstudio.scripts.exporter import ExportGaussianSplat
from tiny import tiny_student, tiny_teacher, trained

from distilled_splat.evaluation.export import export
from distilled_splat.evaluation.held_out import open_run
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View, world_to_camera
from distilled_splat.splat.frames import DataFrame, inverse, moved
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.gltf_writer import encode_glb
from distilled_splat.teachers.fit import TeacherFrame, in_frame, readings_of
from distilled_splat.teachers.reading import read_frame, read_teacher

STEPS = 250
"""Enough to tell a splat that stands in the right place from one that does not."""
LEAST = 15.0
"""The default."""


@dataclasses.dataclass
class Exports:
    """A scene whose recorded poses are far from nerfstudio's frame, a teacher of it, and its export in every frame.

    `file` lies in the world of the matrices in transforms.json; `capture_rub` is a .spz in the capture's with y and z
    negated, as that format's document has them; `upright` and `upright_glb` are what our export makes by itself.
    """

    scene: Path
    run: Path
    nerfstudio: Path
    capture: Path
    file: Path
    capture_rub: Path
    upright: Path
    upright_glb: Path


APPLIED = [[1, 0, 0, 0.5], [0, 0, -1, 2.0], [0, 1, 0, 0]]
"""What ns-process-data notes when it has turned a capture: recorded y and z are -z and y of the file."""
APPLIED_SCALE = 0.5


def to_the_capture(gaussians: Gaussians, run: Path) -> Gaussians:
    """Take a splat from the frame of a run to that of the capture's own poses."""
    frame = read_frame(run)
    assert frame is not None
    turn, offset, scale = frame[0][:, :3], frame[0][:, 3:], frame[1]
    return moved(gaussians, torch.cat((turn.T, -scale * turn.T @ offset), dim=1), 1 / scale)


def to_the_file(gaussians: Gaussians, run: Path) -> Gaussians:
    """Take a splat from the frame of a run to that of transforms.json; a test below holds it against the cameras."""
    frame = read_frame(run)
    assert frame is not None
    applied = torch.tensor([*APPLIED, [0, 0, 0, 1]])
    return moved(gaussians, *inverse(frame[0] @ torch.linalg.inv(applied), frame[1] / APPLIED_SCALE))


@pytest.fixture(scope="module")
def exports(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    folder = tmp_path_factory.mktemp("exports")
    turned = Path(shutil.copytree(scene, folder / "scene"))
    meta = json.loads((turned / "transforms.json").read_text())
    meta["applied_transform"], meta["applied_scale"] = APPLIED, APPLIED_SCALE
    (turned / "transforms.json").write_text(json.dumps(meta))
    run = tiny_teacher(turned, folder / "run", iterations=STEPS).base_dir
    ExportGaussianSplat(load_config=run / "config.yml", output_dir=folder / "export").main()
    nerfstudio = folder / "export" / "splat.ply"
    there = to_the_capture(read_teacher(nerfstudio).gaussians, run)
    capture = write_ply(folder / "capture.ply", there)
    file = write_ply(folder / "file.ply", to_the_file(read_teacher(nerfstudio).gaussians, run))
    capture_rub = folder / "capture_rub.spz"
    upright = moved(there, torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0]]), 1.0)
    capture_rub.write_bytes(spz_of(upright))
    ours = export(run / "config.yml", folder / "ours", ("ply", "glb"), 4, "upright", measure=False)
    return Exports(turned, run, nerfstudio, capture, file, capture_rub, *(file.path for file in ours))


def words(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, without the line breaks that nerfstudio's console puts in."""
    return "".join(capsys.readouterr().out.split())


def student(exports: Exports, output: Path, *teachers: Path, **options: Any) -> Any:
    return tiny_student(exports.scene, output, teachers, 4, num_gaussians=37, **options)


def test_an_export_is_the_run_that_it_was_made_from(exports: Exports) -> None:
    export, run = read_teacher(exports.nerfstudio), read_teacher(exports.run)
    kept = run.gaussians.logit_opacities >= -5.5373  # ns-export leaves out what is fainter
    assert same(export.gaussians, run.gaussians[kept])


def test_one_student_of_a_run_and_of_exports_in_both_frames(
    exports: Exports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trained(student(exports, tmp_path, exports.run, exports.nerfstudio, exports.capture))
    output = words(capsys)
    assert f"{exports.nerfstudio}fitsbestinthenerfstudioframe" in output
    assert f"{exports.capture}fitsbestinthecaptureframe" in output
    assert trainer.pipeline.model.num_points == 37
    run, nerfstudio, capture = trainer.pipeline.model.teaching.labels.ensemble.members
    kept = run.logit_opacities >= -5.5373
    assert same(nerfstudio, run[kept]) and same(capture, dataclasses.replace(nerfstudio, quats=capture.quats), 1e-4)
    figures = [float(value) for value in re.findall(r"([\d.]+)dBinthe", output)]
    # four of each file: in nerfstudio's, the capture's, the file's and the upright frame
    assert figures[0] - max(figures[1:4]) > 1 and figures[5] == pytest.approx(figures[0], abs=0.11)


def test_a_splat_in_the_frame_of_transforms_json_is_found_out(
    exports: Exports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trained(student(exports, tmp_path / "one", exports.file))
    assert f"{exports.file}fitsbestinthefileframe" in words(capsys)
    expected = read_teacher(exports.nerfstudio).gaussians
    (member,) = trainer.pipeline.model.teaching.labels.ensemble.members
    assert same(member, dataclasses.replace(expected, quats=member.quats), 1e-4)
    gallery: Any = open_run(trainer.base_dir / "config.yml").model.gallery
    assert gallery.frame == "file" and same(gallery.find(torch.device("cpu")).members[0], member)


def test_the_frame_of_transforms_json_is_that_of_its_own_cameras(exports: Exports) -> None:
    """The reference is the file itself: nothing here knows what was applied, or nerfstudio's transform."""
    run = open_run(exports.run / "config.yml")
    frames = json.loads((exports.scene / "transforms.json").read_text())["frames"]
    poses = {Path(frame["file_path"]).name: frame["transform_matrix"] for frame in frames}
    held = next(run.held_out())
    pose = torch.tensor(poses[run.datamanager.eval_dataset.image_filenames[0].name], dtype=torch.float32)
    view = View(world_to_camera(pose), held.view.K, held.view.width, held.view.height)
    with torch.no_grad():
        there = render(read_teacher(exports.file).gaussians, view).over(held.background)
        here = render(read_teacher(exports.nerfstudio).gaussians, held.view).over(held.background)
    assert float(here.std()) > 0.02 and float((there - here).abs().mean()) < 1e-3


def test_a_spz_with_the_axes_of_its_document_is_found_out(
    exports: Exports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trained(student(exports, tmp_path / "found", exports.capture_rub))
    output = words(capsys)
    assert f"{exports.capture_rub}fitsbestinthecapture-rubframe" in output
    assert len(re.findall(r"[\d.]+dBinthe", output)) == 8
    (member,) = trainer.pipeline.model.teaching.labels.ensemble.members
    expected = read_teacher(exports.nerfstudio).gaussians
    assert torch.allclose(member.means, expected.means, atol=1e-3)
    named = trained(student(exports, tmp_path / "named", exports.capture_rub, teacher_frame="capture-rub"))
    assert same(named.pipeline.model.teaching.labels.ensemble.members[0], member)
    with pytest.raises(SystemExit, match=r"capture_rub\.spz does not fit this data"):
        trained(student(exports, tmp_path, exports.capture_rub, teacher_frame="capture", min_teacher_psnr=LEAST))


def test_what_our_export_writes_by_itself_is_found_out(
    exports: Exports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trained(student(exports, tmp_path / "found", exports.upright, exports.upright_glb))
    output = words(capsys)
    assert f"{exports.upright}fitsbestintheuprightframe" in output
    assert f"{exports.upright_glb}fitsbestintheuprightframe" in output
    expected = read_teacher(exports.run).gaussians
    for member in trainer.pipeline.model.teaching.labels.ensemble.members:
        assert same(member, dataclasses.replace(expected, quats=member.quats), 1e-4)
    gallery: Any = open_run(trainer.base_dir / "config.yml").model.gallery
    assert gallery.frame == "upright" and gallery.missing == ()


@pytest.mark.parametrize(
    ("frame", "turn"), [("capture-rdf", [-1.0, -1.0, 1.0]), ("capture-rub", [-1.0, 1.0, -1.0]), ("capture", [1.0] * 3)]
)
def test_the_axes_of_a_glb_are_taken_as_named(tmp_path: Path, frame: TeacherFrame, turn: list[float]) -> None:
    """What we write is turned half about z; others hold the numbers of a .ply, or axes right, up and back."""
    to_data = torch.tensor([[0.0, -1, 0, 3], [1, 0, 0, 2], [0, 0, 1, 1]]), 2.0
    here, data = cloud(20), DataFrame(to_data, to_data)
    path = tmp_path / "splat.glb"
    path.write_bytes(encode_glb(moved(here, torch.diag(torch.tensor(turn)) @ torch.eye(3, 4), 1.0)))
    teacher = read_teacher(path)
    assert frame in readings_of(teacher, data)
    found, expected = in_frame(teacher, frame, data).gaussians, moved(here, *to_data)
    assert same(found, dataclasses.replace(expected, quats=found.quats), 1e-4)
    turns = torch.nn.functional.cosine_similarity(found.quats, expected.quats)
    assert torch.allclose(turns.abs(), torch.ones(20), atol=1e-5)


def test_a_frame_that_was_found_out_is_known_after_the_training(exports: Exports, tmp_path: Path) -> None:
    trainer = trained(student(exports, tmp_path / "one", exports.capture))
    gallery: Any = open_run(trainer.base_dir / "config.yml").model.gallery
    (member,) = gallery.find(torch.device("cpu")).members
    assert gallery.missing == () and same(member, trainer.pipeline.model.teaching.labels.ensemble.members[0])

    trainer = trained(student(exports, tmp_path / "mixed", exports.capture, exports.nerfstudio))
    gallery = open_run(trainer.base_dir / "config.yml").model.gallery
    assert len(gallery.find(torch.device("cpu")).members) == 0
    assert gallery.missing == ("capture.ply (unknown frame)", "splat.ply (unknown frame)")


@pytest.mark.parametrize("count", [1, 5])
def test_any_number_of_teachers_of_any_size(exports: Exports, tmp_path: Path, count: int) -> None:
    gaussians = read_teacher(exports.nerfstudio).gaussians
    sizes = [len(gaussians) // (place + 1) for place in range(count)]
    paths = [write_ply(tmp_path / f"{size}.ply", gaussians[torch.arange(size)]) for size in sizes]
    trainer = trained(student(exports, tmp_path, *paths, teacher_frame="nerfstudio"))
    assert [len(member) for member in trainer.pipeline.model.teaching.labels.ensemble.members] == sizes
    assert trainer.pipeline.model.num_points == 37


def test_a_frame_that_is_named_is_taken_and_measured(exports: Exports, tmp_path: Path) -> None:
    model = trained(student(exports, tmp_path / "named", exports.capture, teacher_frame="capture")).pipeline.model
    expected = read_teacher(exports.nerfstudio).gaussians
    assert torch.allclose(model.teaching.labels.ensemble.members[0].means, expected.means, atol=1e-4)
    with pytest.raises(SystemExit, match=r"capture\.ply does not fit this data: the PSNR of its renders is only"):
        trained(student(exports, tmp_path, exports.capture, teacher_frame="nerfstudio", min_teacher_psnr=LEAST))


def test_a_splat_that_fits_in_no_frame_is_refused_with_all_figures(exports: Exports, tmp_path: Path) -> None:
    gaussians = read_teacher(exports.nerfstudio).gaussians
    white = dataclasses.replace(gaussians, sh_dc=gaussians.sh_dc + 5)
    path = write_ply(tmp_path / "white.ply", white)
    with pytest.raises(SystemExit) as refused:
        trained(student(exports, tmp_path, exports.run, path, min_teacher_psnr=LEAST))
    sentence = str(refused.value.code)
    figure = r"[\d.-]+ dB in the"
    assert re.search(
        rf"is only {figure} nerfstudio frame, {figure} capture frame, {figure} file frame and {figure} upright frame\.",
        sentence,
    )
    assert str(path) in sentence and "--pipeline.model.teacher-frame" in sentence and "\n" not in sentence


def test_colours_that_overflow_to_nan_fit_nowhere(exports: Exports, tmp_path: Path) -> None:
    """No number in the file is infinite, but sums of them are; and NaN compares as neither less nor more."""
    columns = columns_of(read_teacher(exports.nerfstudio).gaussians)
    absurd = {name: value * 0 + (-1) ** i * 3e38 for i, (name, value) in enumerate(columns.items()) if "f_" in name}
    path = tmp_path / "absurd.ply"
    path.write_bytes(ply_bytes({**columns, **absurd}))
    with pytest.raises(SystemExit, match=r"does not fit this data: .* nan dB in the nerfstudio frame"):
        trained(student(exports, tmp_path / "auto", path, min_teacher_psnr=LEAST))
    with pytest.raises(SystemExit, match=r"does not fit this data: .* is only nan dB"):
        trained(student(exports, tmp_path, path, min_teacher_psnr=LEAST, teacher_frame="nerfstudio"))
