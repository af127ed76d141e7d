"""Training that stops anywhere, goes on from there, and never gets into another's way."""

from __future__ import annotations

import os
import signal
import statistics
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils import writer
from tiny import prepared, scalars, tiny_config, tiny_parser, tiny_student, tiny_teacher, trained

from distilled_splat.checkpoints import latest_checkpoint, load_tensors
from distilled_splat.config import splatfacto_teacher
from distilled_splat.runs import read_record, update_record
from distilled_splat.splatfacto import GAUSSIAN_PARAMETERS
from distilled_splat.trainer import EXIT_INTERRUPTED, read_progress


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted(config: Any, after: int) -> Path:
    """Train a config until Ctrl-C in that step and return the run folder."""
    trainer = prepared(config)

    def press(step: int) -> None:
        if step == after:
            press_ctrl_c()

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], press))
    assert left_with(trainer) == EXIT_INTERRUPTED
    return trainer.base_dir


def left_with(trainer: Any) -> Any:
    """Train, and return the code or the sentence with which the process would have ended."""
    with pytest.raises(SystemExit) as left:
        trainer.train()
    return left.value.code


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("nerfstudio_models/*"))


@pytest.mark.parametrize("after", [0, 5, 10])
def test_interrupted_at_any_step_the_same_config_goes_on_there(scene: Path, tmp_path: Path, after: int) -> None:
    run = interrupted(tiny_config(splatfacto_teacher, scene, tmp_path, 12), after)
    assert checkpoints(run) == [f"step-{after:09d}.ckpt"]
    assert read_record(run)["finished"] is False

    trainer = trained(tiny_config(splatfacto_teacher, scene, tmp_path, 12))
    assert trainer.base_dir == run
    assert checkpoints(run) == ["step-000000011.ckpt"]
    assert read_record(run)["finished"] is True
    assert sorted(scalars(run)["Train Loss"]) == list(range(12))


def test_killed_after_its_last_step_a_run_is_finished_without_another(scene: Path, tmp_path: Path) -> None:
    run = trained(tiny_config(splatfacto_teacher, scene, tmp_path, 12)).base_dir
    update_record(run, finished=False)  # all that a kill between the last checkpoint and the note leaves undone
    writer.GLOBAL_BUFFER.clear()  # as in the new process that comes after it
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
    config.logging.local_writer.enable = True  # it is at a loss without a step
    trainer = trained(config)
    assert trainer.base_dir == run
    assert checkpoints(run) == ["step-000000011.ckpt"]
    assert read_record(run)["finished"] is True


def test_a_run_stopped_in_its_last_step_is_finished(scene: Path, tmp_path: Path) -> None:
    run = interrupted(tiny_config(splatfacto_teacher, scene, tmp_path, 12), after=11)
    assert read_record(run)["finished"] is True


def test_a_stop_before_the_first_step_saves_nothing(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
    config.start_paused = True
    trainer = prepared(config)
    trainer._init_viewer_state = lambda: threading.Timer(0.1, press_ctrl_c).start()
    assert left_with(trainer) == EXIT_INTERRUPTED
    assert checkpoints(trainer.base_dir) == []


def test_a_stop_while_the_loop_is_prepared_is_not_forgotten(scene: Path, tmp_path: Path) -> None:
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path, 12))
    trainer._init_viewer_state = press_ctrl_c
    assert left_with(trainer) == EXIT_INTERRUPTED
    assert checkpoints(trainer.base_dir) == ["step-000000000.ckpt"]


def test_ctrl_c_while_the_run_is_set_up_is_no_success(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path)
    trainer = config.setup()

    def pressed(**options: Any) -> None:
        raise KeyboardInterrupt

    trainer.config.pipeline.setup = pressed
    with pytest.raises(SystemExit) as left:
        trainer.setup()
    assert left.value.code == EXIT_INTERRUPTED
    assert "Stopped before the first step" in capsys.readouterr().out


def test_after_training_ctrl_c_is_the_viewers_again(scene: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path, 2))
    seen = []
    trainer.callbacks += [
        TrainingCallback([at], lambda step: seen.append(signal.getsignal(signal.SIGINT)))
        for at in (TrainingCallbackLocation.AFTER_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN)
    ]
    trainer.train()
    assert seen[0] != before and seen[-1] == before


def test_optimizers_train_on_what_is_rendered_after_resuming(scene: Path, tmp_path: Path) -> None:
    def config() -> Any:
        return tiny_config(splatfacto_teacher, scene, tmp_path, 90, num_downscales=0)

    run = interrupted(config(), after=44)
    checkpoint = latest_checkpoint(run / "nerfstudio_models")
    assert checkpoint is not None
    saved = load_tensors(checkpoint)

    trainer = prepared(config())
    assert trainer._start_step == 45
    for name in GAUSSIAN_PARAMETERS:
        optimizer = trainer.optimizers.optimizers[name]
        parameter = optimizer.param_groups[0]["params"][0]
        assert parameter is trainer.pipeline.model.gauss_params[name]
        assert torch.equal(parameter, saved["pipeline"][f"_model.gauss_params.{name}"])
        moments = saved["optimizers"][name]["state"][0]
        assert torch.equal(optimizer.state[parameter]["exp_avg_sq"], moments["exp_avg_sq"])
        assert moments["exp_avg_sq"].any() or name == "features_rest"
        assert float(optimizer.state[parameter]["step"]) == 45
    trainer.train()

    for name, parameter in trainer.pipeline.model.gauss_params.items():
        assert not torch.equal(parameter, saved["pipeline"][f"_model.gauss_params.{name}"])
    loss = scalars(run)["Train Loss"]
    passes = [statistics.mean(loss[step] for step in range(start, start + 9)) for start in (0, 36, 45, 81)]
    assert passes[1] < 0.95 * passes[0]
    assert passes[2] < 1.02 * passes[1]
    assert passes[3] < passes[2]


def test_the_time_left_is_by_the_steps_after_the_first(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path, 4))
    now = iter([100.0, 102.0, 106.0, 110.0])
    monkeypatch.setattr("distilled_splat.trainer.time", SimpleNamespace(monotonic=lambda: next(now)))
    reports = []
    for step in range(4):
        trainer.after_step(step)
        reports.append(read_progress(trainer.base_dir)["seconds_left"])
    assert reports == [None, 4.0, 3.0, 0.0]


def test_load_dir_goes_on_in_a_run_of_its_own(scene: Path, tmp_path: Path) -> None:
    run = interrupted(tiny_config(splatfacto_teacher, scene, tmp_path / "first", 12), after=7)
    config = tiny_config(splatfacto_teacher, scene, tmp_path / "second", 12)
    config.load_dir = run / "nerfstudio_models"
    trainer = trained(config)
    assert trainer.base_dir != run
    assert sorted(scalars(trainer.base_dir)["Train Loss"]) == [8, 9, 10, 11]
    assert checkpoints(run) == ["step-000000007.ckpt"]
    assert read_progress(trainer.base_dir)["step"] == 12


@pytest.mark.parametrize("after", [0, 8, 15, 18])
def test_an_interrupted_student_has_the_promised_count_in_the_end(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], after: int
) -> None:
    def config() -> Any:
        return tiny_student(scene, tmp_path, teachers, 20, num_gaussians=37)

    run = interrupted(config(), after)
    trainer = trained(config())
    assert trainer.base_dir == run
    assert trainer.pipeline.model.num_points == 37


def test_a_students_centres_move_in_proportion_to_the_capture(scene: Path, tmp_path: Path) -> None:
    """A capture that is four times as large asks for steps four times as large, at the end of the run, too."""
    rates = {}
    for scale in (1.0, 4.0):
        parser = tiny_parser()
        parser.scale_factor = scale
        output = tmp_path / f"{scale}"
        teacher = tiny_teacher(scene, output, parser=parser).base_dir
        for start in ("teacher", "points"):
            options = {"start_from": start, "stop_split_at": 3000, "first_cut": 3000}
            trainer = prepared(tiny_student(scene, output / start, (teacher,), 30, parser=parser, **options))
            groups = trainer.optimizers.optimizers
            first = {name: groups[name].param_groups[0]["lr"] for name in GAUSSIAN_PARAMETERS}
            trainer.train()
            rates[scale, start] = first, groups["means"].param_groups[0]["lr"]
    for start, factor in (("teacher", 4.0), ("points", 1.0)):
        (small, small_end), (large, large_end) = rates[1.0, start], rates[4.0, start]
        assert large["means"] == pytest.approx(factor * small["means"])
        assert large_end == pytest.approx(factor * small_end)
        assert small_end < small["means"] / 10
        assert all(large[name] == small[name] for name in GAUSSIAN_PARAMETERS if name != "means")


def test_settings_that_differ_begin_at_the_first_step(scene: Path, tmp_path: Path) -> None:
    interrupted(tiny_config(splatfacto_teacher, scene, tmp_path, 12), after=5)
    other = tiny_config(splatfacto_teacher, scene, tmp_path, 12, ssim_lambda=0.3)
    other.set_timestamp()
    assert other.load_dir is None


def test_a_finished_run_is_never_overwritten(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 2)
    config.timestamp = "mine"
    trained(config)
    again = tiny_config(splatfacto_teacher, scene, tmp_path, 2)
    again.timestamp = "mine"
    with pytest.raises(SystemExit, match=r"mine holds a finished run: give another --timestamp"):
        again.set_timestamp()


def test_a_folder_in_which_another_trains_is_left_alone(scene: Path, tmp_path: Path) -> None:
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path, 2))
    with FileLock(trainer.base_dir / ".lock"):
        assert "Another process is training in" in left_with(trainer)
    assert checkpoints(trainer.base_dir) == []


def test_a_run_notes_what_a_student_must_know_of_it(teachers: tuple[Path, ...]) -> None:
    records = [read_record(run) for run in teachers]
    assert [record["variant"] for record in records] == ["standard", "perturbed", "dropout"]
    for record in records:
        assert len(record["photos"]) == 9 and "0001.png" not in record["photos"]
        assert record["seconds"] > 0


def test_several_devices_are_refused(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path)
    with pytest.raises(SystemExit, match=r"--machine\.num-devices is 2"):
        config.setup(world_size=2)


def test_a_run_that_another_process_finished_meanwhile_is_left_alone(scene: Path, tmp_path: Path) -> None:
    late, early = (tiny_config(splatfacto_teacher, scene, tmp_path, 4) for _ in range(2))
    late.timestamp = early.timestamp = "mine"
    waiting = prepared(late)
    run = trained(early).base_dir
    before = (run / "nerfstudio_models" / "step-000000003.ckpt").read_bytes()
    assert "Another process has trained in" in left_with(waiting)
    assert (run / "nerfstudio_models" / "step-000000003.ckpt").read_bytes() == before
    assert read_record(run)["finished"] is True
