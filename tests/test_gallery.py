"""What a student can be looked at beside, in its training and after it, with teachers and without."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from tiny import scalars, tiny_student, trained

from distilled_splat.evaluation.held_out import open_run
from distilled_splat.ops.heat import heat
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.student.gallery import MISSING_GREY, Outputs, importance_picture
from distilled_splat.student.viewer import Connection
from distilled_splat.teachers.reading import read_teacher

KINDS = ("standard teacher", "perturbed teacher", "dropout teacher")


@pytest.fixture(scope="module")
def student(scene: Path, teachers: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a student of three teachers that lie beside it, where they can be lost."""
    output = tmp_path_factory.mktemp("student")
    own = tuple(output / kind for kind in ("standard", "perturbed", "dropout"))
    for run, copy in zip(teachers, own):
        shutil.copytree(run, copy)
    options = {"num_gaussians": 300, "lambda_structure": 1.0, "lambda_kd": 1.0, "min_teacher_advantage": 0.0}
    config = tiny_student(scene, output, own, **options)
    config.steps_per_eval_image = 2
    return trained(config).base_dir


def outputs_of(run: Path) -> tuple[Any, Any]:
    """Return a finished run's model and its outputs of the first held-out camera."""
    finished = open_run(run / "config.yml")
    camera, _ = finished.datamanager.fixed_indices_eval_dataloader[0]
    with torch.no_grad():
        return finished.model, finished.model.get_outputs_for_camera(camera)


def test_outputs_beside_a_training_are_computed_under_its_lock() -> None:
    """One output needs another."""
    lock = Lock()
    outputs = Outputs({"rgb": torch.zeros(2, 2, 3)}, {}, lock)

    def one() -> torch.Tensor:
        assert lock.locked()
        return torch.ones(2, 2, 3)

    outputs.later = {"one": one, "both": lambda: outputs["one"] + outputs["one"]}
    assert (outputs["both"] == 2).all() and (outputs["one"] == 1).all() and not lock.locked()


def test_an_output_beside_a_training_that_lacks_memory_is_grey() -> None:
    lock = Lock()

    def large() -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    outputs = Outputs({"rgb": torch.zeros(2, 2, 3)}, {"large": large}, lock)
    assert outputs["large"].shape == (2, 2, 3) and (outputs["large"] == MISSING_GREY).all() and not lock.locked()
    with pytest.raises(torch.OutOfMemoryError):
        Outputs({}, {"large": large})["large"]


def test_only_the_viewers_own_thread_takes_the_trainers_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer holds it when it evaluates."""
    connection = Connection()
    connection.train_lock = Lock()
    assert connection.lock_to_take() is None
    thread = RenderStateMachine.__new__(RenderStateMachine)
    monkeypatch.setattr("threading.current_thread", lambda: thread)
    assert connection.lock_to_take() is connection.train_lock


def test_outputs_are_computed_once_and_only_when_they_are_asked_for() -> None:
    asked: list[str] = []

    def late() -> torch.Tensor:
        asked.append("late")
        return torch.ones(1, requires_grad=True) * 2

    outputs = Outputs({"rgb": torch.zeros(1)}, {"late": late})
    assert list(outputs.keys()) == list(outputs) == ["rgb", "late"]
    assert "late" in outputs and "rgb" in outputs and "other" not in outputs
    assert not asked
    outputs["depth"] = torch.ones(1)
    assert list(outputs.keys()) == ["rgb", "depth", "late"]
    assert float(outputs["late"]) == float(outputs["late"]) == 2
    assert asked == ["late"] and not outputs["late"].requires_grad
    with pytest.raises(KeyError):
        outputs["other"]


def test_pictures_are_what_their_names_say(student: Path) -> None:
    model, outputs = outputs_of(student)
    assert list(outputs.keys())[-1] == "ensemble"
    pictures = torch.stack([outputs[kind] for kind in KINDS])
    own = read_teacher(student.parents[2] / "perturbed")
    camera = next(open_run(student / "config.yml").held_out())
    assert torch.allclose(pictures[1], render(own.gaussians, camera.view).over(camera.background))
    assert torch.allclose(outputs["ensemble"], pictures.mean(dim=0))
    assert torch.allclose(outputs["disagreement"][..., 0], pictures.std(dim=0, correction=0).mean(dim=-1))
    assert torch.allclose(outputs["error"][..., 0], (outputs["rgb"] - pictures.mean(dim=0)).abs().mean(dim=-1))
    assert outputs["importance"].shape == outputs["rgb"].shape
    assert float(outputs["importance"].std()) > 0.02
    assert model.gallery.is_complete


def test_a_lost_teacher_greys_out_its_picture_only(student: Path) -> None:
    home = student.parents[2] / "dropout"
    away = home.with_name("away")
    home.rename(away)
    try:
        model, outputs = outputs_of(student)
        assert "dropout teacher" not in outputs and "dropout (missing)" in outputs
        grey = outputs["dropout (missing)"]
        assert grey.shape == outputs["rgb"].shape and float(grey.max()) == float(grey.min())
        assert torch.allclose(outputs["ensemble"], (outputs[KINDS[0]] + outputs[KINDS[1]]) / 2)
        assert not model.gallery.is_complete
        finished = open_run(student / "config.yml")
        camera, batch = finished.datamanager.fixed_indices_eval_dataloader[0]
        metrics, _ = finished.model.get_image_metrics_and_images(finished.model.get_outputs_for_camera(camera), batch)
        assert "psnr_ensemble" not in metrics
    finally:
        away.rename(home)


def test_points_are_brighter_the_more_they_weigh() -> None:
    """One big opaque Gaussian in front, one faint one beside it."""
    from distilled_splat.splat.gaussians import Gaussians

    gaussians = Gaussians(
        means=torch.tensor([[-0.5, 0.0, 2.0], [0.5, 0.0, 2.0]]),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        log_scales=torch.full((2, 3), -2.0),
        logit_opacities=torch.tensor([4.0, -3.0]),
        sh_dc=torch.zeros(2, 3),
        sh_rest=torch.zeros(2, 15, 3),
    )
    K = torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]])
    picture = importance_picture(gaussians, View(torch.eye(4), K, 40, 30), torch.zeros(3), False)
    ends = heat(torch.tensor([0.0, 1.0]))
    assert torch.allclose(picture[14:16, 9:11].mean(dim=(0, 1)), ends[1], atol=0.2)
    assert torch.allclose(picture[14:16, 29:31].mean(dim=(0, 1)), ends[0], atol=0.2)
    assert float(picture[:, 18:22].max()) < 1e-3, "points stay small"


def test_evaluation_measures_the_student_against_its_teachers(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nerfstudio.scripts import eval as ns_eval

    monkeypatch.setattr(
        sys,
        "argv",
        ["ns-eval", "--load-config", f"{student / 'config.yml'}", "--output-path", f"{tmp_path / 'e.json'}"],
    )
    ns_eval.entrypoint()
    results = json.loads((tmp_path / "e.json").read_text())["results"]
    finished = open_run(student / "config.yml")
    expected = []
    for camera, _ in finished.datamanager.fixed_indices_eval_dataloader:
        with torch.no_grad():
            outputs = finished.model.get_outputs_for_camera(camera)
            expected.append(-10 * torch.log10(torch.mean((outputs["rgb"] - outputs["ensemble"]) ** 2)))
    assert results["psnr_ensemble"] == pytest.approx(float(torch.stack(expected).mean()), abs=1e-3)
    assert results["gaussian_count"] == 300 and results["megabytes"] > 0


def test_training_logs_pictures_of_student_ensemble_and_error(student: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = student.glob("events.*")
    events = EventAccumulator(str(path), size_guidance={"images": 0, "scalars": 0}).Reload()
    images = {tag.rsplit("/", 1)[-1] for tag in events.Tags()["images"]}
    assert {"img", "student", "ensemble", "error"} <= images
    logged = scalars(student)
    for loss in ("main_loss", "kd_loss", "structure_loss"):
        assert f"Train Loss Dict/{loss}" in logged
    assert any(name.endswith("gaussian_count") for name in logged)
    assert any(name.endswith("psnr_ensemble") for name in logged)


def test_the_panel_follows_a_training_with_a_viewer(scene: Path, teachers: tuple[Path, ...], tmp_path: Path) -> None:
    """A viewer's text that changes within a step must not wait for that step."""
    config = tiny_student(scene, tmp_path, teachers, iterations=6, num_gaussians=300)
    config.vis, config.steps_per_eval_image = "viewer+tensorboard", 2
    config.viewer.quit_on_train_completion = True
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        config.viewer.websocket_port = probe.getsockname()[1]
    trainer = trained(config)
    model = trainer.pipeline.model
    assert "Gaussians" in model.viewer_panel.gui_handle.content
    assert "dB on a held-out photo at step" in model.viewer_panel.gui_handle.content
    path = model.controls.export(model.gaussians().detach())
    assert path.parent == trainer.base_dir / "export" and path.name.startswith("student-")
    assert len(read_teacher(path).gaussians) == 300
    assert f"{path}" in model.viewer_panel.gui_handle.content


def test_colours_of_nothing_are_none() -> None:
    """As of a splat that the viewer's box leaves nothing of."""
    assert heat(torch.zeros(0)).shape == (0, 3)
    assert heat(torch.zeros(2, 0)).shape == (2, 0, 3)
