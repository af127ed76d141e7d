"""A training that was interrupted and resumed ends as if it had never stopped: same bits, and all its times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import interrupted
from tiny import prepared, tiny_config, tiny_student, trained

from distilled_splat.methods import distilled_splatfacto_paper, splatfacto_teacher
from distilled_splat.runs.checkpoints import latest_checkpoint, load_tensors, save_tensors
from distilled_splat.runs.record import read_record
from distilled_splat.training.model import GAUSSIAN_PARAMETERS

DENSIFYING = {"refine_every": 10, "min_refine_every": 10, "warmup_length": 5, "densify_grad_thresh": 0.00002}


def teacher(scene: Path, output: Path, teachers: tuple[Path, ...], variant: str) -> Any:
    """Return a teacher's config that densifies at every tenth of 60 steps."""
    config = tiny_config(splatfacto_teacher, scene, output, 60, variant=variant, **DENSIFYING)
    config.pipeline.model.schedule_length = 60
    config.pipeline.model.stop_split_at = 50
    return config


def student(scene: Path, output: Path, teachers: tuple[Path, ...]) -> Any:
    """Return the config of a student that trusts its teachers somewhat, and is still pruned after the interruption."""
    return tiny_student(scene, output, teachers, 60, prune_stop=20000, max_teacher_disagreement=1e6)


def papers_student(scene: Path, output: Path, teachers: tuple[Path, ...]) -> Any:
    config = tiny_config(distilled_splatfacto_paper, scene, output, 60, teachers=teachers, min_teacher_psnr=1.0)
    return config


KINDS = {
    "standard": lambda *places: teacher(*places, variant="standard"),
    "perturbed": lambda *places: teacher(*places, variant="perturbed"),
    "dropout": lambda *places: teacher(*places, variant="dropout"),
    "student": student,
    "the paper's student": papers_student,
}


def splat_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: trainer.pipeline.model.gauss_params[name].detach().clone() for name in GAUSSIAN_PARAMETERS}


@pytest.mark.parametrize("after", [24, 39])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_as_without_the_interruption(
    scene: Path, teachers: tuple[Path, ...], tmp_path: Path, kind: str, after: int
) -> None:
    whole = trained(KINDS[kind](scene, tmp_path / "whole", teachers))
    run = interrupted(KINDS[kind](scene, tmp_path / "parts", teachers), after)
    torch.rand(7)  # in a new process the random numbers are others, too
    resumed = trained(KINDS[kind](scene, tmp_path / "parts", teachers))
    assert resumed.base_dir == run and resumed._start_step == after + 1
    assert whole.pipeline.model.num_points != len(whole.pipeline.model.seed_points[0])  # densified or pruned
    for name, tensor in splat_of(resumed).items():
        assert torch.equal(tensor, splat_of(whole)[name]), name


def test_a_checkpoint_of_an_older_version_is_resumed_too(scene: Path, tmp_path: Path) -> None:
    run = interrupted(teacher(scene, tmp_path, (), "standard"), 24)
    checkpoint = latest_checkpoint(run / "nerfstudio_models")
    assert checkpoint is not None
    content = {name: value for name, value in load_tensors(checkpoint).items() if name != "training"}
    save_tensors(content, tmp_path / "old.ckpt")
    (tmp_path / "old.ckpt").rename(checkpoint)
    assert trained(teacher(scene, tmp_path, (), "standard")).base_dir == run
    assert read_record(run)["finished"] is True


def test_times_and_evaluations_from_before_the_interruption_are_kept(scene: Path, tmp_path: Path) -> None:
    def config() -> Any:
        config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
        config.steps_per_eval_all_images = 3
        return config

    run = interrupted(config(), 7)
    before = read_record(run)
    assert [evaluation["step"] for evaluation in before["evaluations"]] == [3, 6]
    trained(config())
    after = read_record(run)
    assert [evaluation["step"] for evaluation in after["evaluations"]] == [3, 6, 9]
    seconds = [evaluation["seconds"] for evaluation in after["evaluations"]]
    assert seconds == sorted(seconds) and seconds[-1] > before["evaluations"][-1]["seconds"]
    assert after["seconds"] >= before["seconds"] and after["stages"]["steps"][0] > before["stages"]["steps"][0]


def test_a_killed_training_has_the_time_of_its_last_checkpoint(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
    config.steps_per_save = 4
    trainer = prepared(config)
    noted: list[dict[str, Any]] = []
    save = trainer.save_checkpoint

    def save_and_look(step: int) -> None:
        save(step)
        noted.append(read_record(trainer.base_dir))  # what a kill right after it leaves

    trainer.save_checkpoint = save_and_look
    trainer.train()
    seconds = [record["seconds"] for record in noted]
    assert len(noted) >= 3 and seconds == sorted(seconds) and seconds[-1] > 0
    assert noted[-2]["stages"]["steps"][0] > 0 and noted[-2]["finished"] is False
    assert read_record(trainer.base_dir)["finished"] is True


@pytest.mark.parametrize("change", ["a pose", "a photo fewer"])
@pytest.mark.parametrize("kind", ["standard", "student"])
def test_a_run_of_a_capture_that_has_changed_is_not_resumed(
    scene: Path, teachers: tuple[Path, ...], tmp_path: Path, kind: str, change: str
) -> None:
    capture = tmp_path / scene.name
    shutil.copytree(scene, capture)
    run = interrupted(KINDS[kind](capture, tmp_path / "runs", teachers), 24)
    meta = json.loads((capture / "transforms.json").read_text())
    if change == "a pose":
        meta["frames"][1]["transform_matrix"][0][3] += 0.01
    else:
        del meta["frames"][1]
    (capture / "transforms.json").write_text(json.dumps(meta))
    kept = sorted(path.name for path in run.rglob("*.ckpt"))
    with pytest.raises(SystemExit, match=r"have changed since the run|was trained in another frame"):
        prepared(KINDS[kind](capture, tmp_path / "runs", teachers))
    assert kept and sorted(path.name for path in run.rglob("*.ckpt")) == kept
