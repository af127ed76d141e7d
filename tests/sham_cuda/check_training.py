"""Teachers and students are trained, evaluated, compared, exported and shown on the sham device as on the CPU."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import pytest
import torch
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.scripts.exporter import ExportGaussianSplat
from tiny import prepared, scalars

from distilled_splat.evaluation.compare import compare
from distilled_splat.evaluation.export import export
from distilled_splat.evaluation.report import REPORT_NAME
from distilled_splat.runs.checkpoints import latest_checkpoint, load_tensors
from distilled_splat.splat.files import read_splat
from sham_cuda.device import CUDA, ShamTensor
from sham_cuda.trainings import (
    FIRST_DENSIFIED,
    STEPS,
    VARIANTS,
    Run,
    paper_student_on,
    student_on,
    teacher_on,
    train,
    train_until,
)

LIKE_THE_CPU = 1e-4
"""How far a loss may be from the CPU's, where a run has made the same choices."""
OTHER_CHOICES = 0.1
"""The same, where Gaussians with almost equal gradients may have been split or not, or have got each other's noise."""


@pytest.fixture(scope="module")
def student(scene: Path, folders: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(student_on("cuda", scene, tmp_path_factory.mktemp("student-on-device"), folders))


@pytest.fixture(scope="module")
def paper_student(scene: Path, folders: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(paper_student_on("cuda", scene, tmp_path_factory.mktemp("paper-on-device"), folders))


def compare_losses(actual: Run, expected: Run, same_choices_until: int = STEPS) -> None:
    """Assert that two runs had the same losses, about the same from a step on."""
    assert len(actual.losses) == len(expected.losses)
    for step, (here, there) in enumerate(zip(actual.losses, expected.losses)):
        assert here.keys() == there.keys(), step
        tolerance = LIKE_THE_CPU if step < same_choices_until else OTHER_CHOICES
        for name, value in here.items():
            assert math.isfinite(value), (step, name)
            assert value == pytest.approx(there[name], rel=tolerance, abs=tolerance), (step, name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_teacher_is_densified_and_learns_as_on_the_cpu(
    scene: Path, tmp_path: Path, runs: dict[str, Run], variant: str
) -> None:
    run = runs[variant]
    assert run.is_on_device
    assert len(run.grown) == len(run.pruned) == 3
    duplicated, split = (sum(counts) for counts in zip(*run.grown))
    assert duplicated > 0 and split > 0 and sum(run.pruned) > 0
    assert run.counts[FIRST_DENSIFIED - 1] == run.counts[0] != run.counts[-1]
    on_cpu = train(teacher_on("cpu", scene, tmp_path, variant))
    assert not on_cpu.is_on_device
    first_choice = {"standard": FIRST_DENSIFIED, "perturbed": 6, "dropout": FIRST_DENSIFIED}[variant]
    compare_losses(run, on_cpu, first_choice)


def test_a_student_is_cut_and_learns_as_on_the_cpu(
    scene: Path, tmp_path: Path, folders: tuple[Path, ...], runs: dict[str, Run], student: Run
) -> None:
    assert student.is_on_device
    assert student.counts[-1] == round(0.3 * runs["standard"].counts[-1]) < student.counts[0]
    assert sum("kd_loss" in losses for losses in student.losses) > 5
    compare_losses(student, train(student_on("cpu", scene, tmp_path, folders)), same_choices_until=10)


def test_a_student_by_the_papers_schedule_learns_as_on_the_cpu(
    scene: Path, tmp_path: Path, folders: tuple[Path, ...], paper_student: Run
) -> None:
    assert paper_student.is_on_device
    assert sum(map(sum, paper_student.grown)) > 0
    assert paper_student.losses[5].keys() == {"main_loss", "kd_loss", "structure_loss"}
    compare_losses(paper_student, train(paper_student_on("cpu", scene, tmp_path, folders)), same_choices_until=12)


def test_a_student_is_evaluated_while_it_trains_and_reported(student: Run) -> None:
    logged = scalars(student.folder)
    for name in ("Eval Images Metrics/psnr", "Eval Images Metrics/ssim", "Eval Images Metrics/psnr_ensemble"):
        assert logged[name] and all(math.isfinite(value) for value in logged[name].values()), name
    assert any(name.startswith("Eval Images Metrics Dict (all images)/") for name in logged)
    assert (student.folder / REPORT_NAME).read_text(encoding="utf8").count("data:image/") > 4


def test_a_student_is_compared_with_its_teachers(student: Run) -> None:
    comparison = compare(student.config_path, pictured=2)
    assert [row.name for row in comparison.rows][-2:] == ["mean of teachers", "student"]
    assert all(math.isfinite(row.psnr) and math.isfinite(row.ssim) for row in comparison.rows)
    assert len(comparison.pictures) == 2
    for picture in comparison.pictures:
        assert all(type(image) is torch.Tensor for image in picture.values())


def test_a_student_is_exported_and_measured(tmp_path: Path, student: Run) -> None:
    for frame in ("upright", "nerfstudio"):
        files = export(student.config_path, tmp_path / "ours", ("ply", "glb"), 3, frame, measure=True)
        assert [file.lost for file in files] == pytest.approx([0, 0], abs=1e-3)
    ExportGaussianSplat(load_config=student.config_path, output_dir=tmp_path / "theirs").main()
    ours, theirs = read_splat(files[0].path).gaussians, read_splat(tmp_path / "theirs" / "splat.ply").gaussians
    assert len(ours) == len(theirs) == student.counts[-1]


@pytest.mark.parametrize("half", [None, 0.3, 0.0])
def test_everything_that_the_viewer_offers_is_drawn_on_the_device(student: Run, half: float | None) -> None:
    """Of the whole scene, of a box in it, and of an empty box."""
    model = student.model.eval()
    camera = student.trainer.pipeline.datamanager.train_dataset.cameras[:1].to(CUDA)
    centre = (0.0, 0.0, 0.0) if half else (50.0, 0.0, 0.0)
    size = 2 * (half or 0.0) + 0.1
    box = None if half is None else OrientedBox.from_params(centre, (0.0, 0.0, 0.0), (size, size, size))
    outputs = model.get_outputs_for_camera(camera, obb_box=box)
    expected = {"rgb", "depth", "accumulation", "background", "ensemble", "error", "disagreement", "importance"}
    assert expected | {f"{variant} teacher" for variant in VARIANTS} <= set(outputs.keys())
    model.set_crop(box)
    for name in outputs.keys():  # noqa: SIM118  (its values are made when they are asked for)
        assert isinstance(outputs[name], ShamTensor), name
        is_colour = name == "background" and half == 0.0  # nerfstudio gives a colour where there is nothing to draw
        assert outputs[name].shape[:2] == (48, 64) or is_colour, name
        assert bool(outputs[name].isfinite().all()), name
    model.set_crop(None)
    assert bool((outputs["accumulation"] > 0).any()) == (half != 0.0)


@pytest.mark.parametrize(("before", "after"), [("cuda", "cuda"), ("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_goes_on_where_it_stopped_on_either_device(scene: Path, tmp_path: Path, before: str, after: str) -> None:
    stopped = train_until(teacher_on(before, scene, tmp_path / "before", evaluated=False), 17)
    assert stopped.is_on_device == (before == "cuda")
    config = teacher_on(after, scene, tmp_path / "after", evaluated=False, steps=25, schedule_length=25)
    config.load_dir = stopped.folder / "nerfstudio_models"
    trainer = prepared(config)
    assert trainer._start_step == 18
    for name, optimizer in trainer.optimizers.optimizers.items():
        (group,) = optimizer.param_groups
        assert bool(group["fused"]) == (after == "cuda"), "the kernel is that of the device"
        (parameter,) = group["params"]
        assert parameter is trainer.pipeline.model.gauss_params[name]
        moments = optimizer.state[parameter]
        assert all(isinstance(moments[key], ShamTensor) == (after == "cuda") for key in ("exp_avg", "exp_avg_sq"))
    trainer.train()
    assert trainer.step == 24
    assert math.isfinite(float(trainer.losses["main_loss"]))


def test_a_checkpoint_of_the_device_is_read_as_one_of_the_host(runs: dict[str, Run]) -> None:
    path = latest_checkpoint(runs["standard"].folder / "nerfstudio_models")
    assert path is not None
    with zipfile.ZipFile(path) as archive:
        pickles = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    assert len(pickles) == 1 and b"cuda:0" in pickles[0]
    parameters = load_tensors(path)["pipeline"]
    assert all(type(value) is torch.Tensor for value in parameters.values())
