"""Disks that take nothing more and trainings that diverge: one sentence, and what was finished stays whole."""

from __future__ import annotations

import errno
import math
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import checkpoints, interrupted, left_with
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from tiny import prepared, tiny_config, tiny_student, trained

from distilled_splat.methods import splatfacto_teacher
from distilled_splat.runs.faults import not_finite, writing_to
from distilled_splat.runs.record import read_record
from distilled_splat.teachers.kinds import VARIANTS
from distilled_splat.teachers.reading import read_teacher


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Let the system refuse longer files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_sentence(code: Any) -> str:
    assert isinstance(code, str) and "\n" not in code
    return code


def test_a_disk_that_takes_no_checkpoint_leaves_the_former_one(scene: Path, tmp_path: Path) -> None:
    def config() -> Any:
        return tiny_config(splatfacto_teacher, scene, tmp_path, 12)

    run = interrupted(config(), after=5)
    before = (run / "nerfstudio_models" / "step-000000005.ckpt").read_bytes()
    trainer = prepared(config())
    with files_no_longer_than(len(before) // 2):
        sentence = one_sentence(left_with(trainer))
    assert f"Cannot write to {run} (File too large)" in sentence and "another output folder" in sentence
    assert checkpoints(run) == ["step-000000005.ckpt"]
    assert (run / "nerfstudio_models" / "step-000000005.ckpt").read_bytes() == before
    assert not list(run.glob(".*.part"))
    assert read_record(run)["finished"] is False
    trained(config())
    assert checkpoints(run) == ["step-000000011.ckpt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_refusals_to_write_are_one_sentence_and_other_errors_pass(tmp_path: Path, number: int) -> None:
    for name in (None, str(tmp_path / "run" / "config.yml"), str(tmp_path)):
        with pytest.raises(SystemExit) as refused, writing_to(tmp_path / "run"):
            raise OSError(number, os.strerror(number), name)
        assert os.strerror(number) in one_sentence(refused.value.code)
    with pytest.raises(OSError), writing_to(tmp_path / "run"):
        raise OSError(number, os.strerror(number), str(tmp_path / "photos" / "1.png"))
    with pytest.raises(FileNotFoundError), writing_to(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no", str(tmp_path / "x"))


def on_a_disk_of_its_own(folder: Path, options: str, command: list[str]) -> subprocess.Popen[str]:
    """Start a command that sees another file system in a folder; skip where the system does not allow that."""
    mount = f'mount -t tmpfs -o {options} tmpfs "$0"'
    words = ["unshare", "--mount", "--map-root-user", "bash", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*words, mount, folder], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    return subprocess.Popen(
        [*words, f'{mount} && exec "$@"', folder, *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_on_a_full_and_on_a_read_only_disk(scene: Path, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "ns-train"), "splatfacto-teacher", "--data", str(scene),
        "--output-dir", str(tmp_path), "--vis", "tensorboard", "--max-num-iterations", "20",
    ]  # fmt: skip
    started = {
        reason: on_a_disk_of_its_own(tmp_path, options, command)
        for reason, options in {"No space left on device": "size=200k", "Read-only file system": "ro"}.items()
    }
    for reason, process in started.items():
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 1, output + errors
        assert "Traceback" not in output + errors
        sentence = errors.strip().splitlines()[-1]
        assert f"({reason})" in sentence and "The same command resumes" in sentence


def spoil(trainer: Any, after: int, name: str, value: float = math.nan) -> None:
    """Put a number that is none into a parameter after a step."""

    def spoil_it(step: int) -> None:
        if step == after:
            trainer.pipeline.model.gauss_params[name].data[0] = value

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], spoil_it))


def test_a_loss_that_is_no_number_stops_the_run_and_nothing_of_it_is_saved(scene: Path, tmp_path: Path) -> None:
    def config() -> Any:
        config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
        config.steps_per_save = 5
        return config

    trainer = prepared(config())
    trainer.pipeline.model.opacities.data.fill_(3.0)
    spoil(trainer, 7, "features_dc")
    sentence = one_sentence(left_with(trainer))
    checkpoint = trainer.checkpoint_dir / "step-000000005.ckpt"
    assert "diverged in step 8: main_loss is nan" in sentence and str(checkpoint) in sentence
    assert checkpoints(trainer.base_dir) == [checkpoint.name]
    assert read_record(trainer.base_dir)["finished"] is False
    assert bool(torch.isfinite(read_teacher(checkpoint).gaussians.sh).all())
    again = trained(config())
    assert again._start_step == 6 and checkpoints(again.base_dir) == ["step-000000011.ckpt"]


def test_gaussians_that_are_no_numbers_are_never_saved(scene: Path, tmp_path: Path) -> None:
    """A Gaussian whose centre is NaN is not rendered, so that no loss tells of it."""
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path, 12))
    spoil(trainer, 11, "means", math.inf)
    sentence = one_sentence(left_with(trainer))
    assert "step 11: means is NaN or infinite for 1 of 400 Gaussians. There is no checkpoint yet" in sentence
    assert checkpoints(trainer.base_dir) == []


def test_a_learning_rate_beyond_all_measure_is_found_out(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...]
) -> None:
    config = tiny_student(scene, tmp_path, teachers, 40, num_gaussians=37)
    config.optimizers["scales"]["optimizer"].lr = 1e38
    config.optimizers["scales"]["scheduler"] = None
    trainer = prepared(config)
    sentence = one_sentence(left_with(trainer))
    assert "diverged in step" in sentence and "lower the learning rates" in sentence
    assert checkpoints(trainer.base_dir) == []


def test_the_first_number_that_is_none_is_named() -> None:
    one = torch.ones(4, 3)
    assert not_finite({"main_loss": torch.tensor(1.0)}, {"means": one}) is None
    assert not_finite({"a": torch.tensor(1.0), "kd_loss": torch.tensor(-math.inf)}, {}) == "kd_loss is -inf"
    bad = one.clone()
    bad[1] = math.nan
    bad[3, 2] = math.inf
    assert not_finite({}, {"means": one, "scales": bad}) == "scales is NaN or infinite for 2 of 4 Gaussians"


def test_what_a_kill_left_half_written_is_swept_up(scene: Path, tmp_path: Path) -> None:
    run = interrupted(tiny_config(splatfacto_teacher, scene, tmp_path, 12), after=5)
    (run / ".step-000000010.ckpt.99.part").write_bytes(b"half")
    trained(tiny_config(splatfacto_teacher, scene, tmp_path, 12))
    assert not list(run.glob(".*.part"))


def test_a_config_is_whole_or_absent(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
    config.timestamp = "mine"
    config.save_config()
    path = config.get_base_dir() / "config.yml"
    before = path.read_bytes()
    with files_no_longer_than(4000), pytest.raises(SystemExit, match="Cannot write to"):
        config.save_config()
    assert path.read_bytes() == before


@pytest.mark.parametrize("lost", ["whole", "checkpoint"])
def test_a_lost_teacher_of_ones_own_is_named(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], lost: str
) -> None:
    kept = [Path(shutil.copytree(run, tmp_path / variant)) for run, variant in zip(teachers, VARIANTS)]
    interrupted(tiny_student(scene, tmp_path / "out", tuple(kept), 12, num_gaussians=37), after=5)
    shutil.rmtree(kept[1] if lost == "whole" else kept[1] / "nerfstudio_models")
    with pytest.raises(SystemExit) as refused:
        prepared(tiny_student(scene, tmp_path / "out", tuple(kept), 12, num_gaussians=37))
    sentence = one_sentence(refused.value.code)
    assert str(kept[1]) in sentence and ("does not exist" in sentence or "has no checkpoint" in sentence)
    shutil.copytree(teachers[1], kept[1], dirs_exist_ok=True)
    student = trained(tiny_student(scene, tmp_path / "out", tuple(kept), 12, num_gaussians=37))
    assert student._start_step == 6 and student.pipeline.model.num_points == 37
