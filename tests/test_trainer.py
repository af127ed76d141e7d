"""Training that stops anywhere, resumes there, and never gets into another's way."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from exports import write_ply
from filelock import FileLock, Timeout
from interruptions import checkpoints, interrupted, left_with, press_ctrl_c
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils import writer
from tiny import prepared, scalars, tiny_config, tiny_parser, tiny_student, tiny_teacher, trained

from distilled_splat.methods import distilled_splatfacto, splatfacto_teacher
from distilled_splat.runs.checkpoints import latest_checkpoint, load_tensors
from distilled_splat.runs.record import read_record, update_record
from distilled_splat.teachers.reading import read_teacher
from distilled_splat.training.model import GAUSSIAN_PARAMETERS
from distilled_splat.training.progress import ProgressFile, read_progress
from distilled_splat.training.trainer import EXIT_INTERRUPTED


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


def loop_of_steps(trainer: Any, count: int) -> None:
    """The heart of nerfstudio's loop: `count` steps from the first that is left, unless it is stopped."""
    trainer.stop_training = False
    for step in range(trainer._start_step, trainer._start_step + count):
        trainer.step = step
        if trainer.stop_training:
            break
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        trainer.train_iteration(step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
    trainer._after_train()


LOOPS: dict[str, Callable[[Any], None]] = {
    "so many more": lambda trainer: loop_of_steps(trainer, trainer.config.max_num_iterations),
    "so many in all": lambda trainer: loop_of_steps(trainer, trainer.config.max_num_iterations - trainer._start_step),
}
"""How nerfstudio has read `max_num_iterations` after loading a checkpoint: until 1.1.5, and later."""


@pytest.mark.parametrize("after", [5, 10, 11])
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_resumed_run_has_as_many_steps_whatever_nerfstudio_counts(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: Callable[[Any], None], after: int
) -> None:
    monkeypatch.setattr("nerfstudio.engine.trainer.Trainer.train", loop)
    run = interrupted(tiny_config(splatfacto_teacher, scene, tmp_path, 12), after)
    update_record(run, finished=False)  # as a kill after the last step leaves it
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
    trainer, made = prepared(config), []
    train_one = trainer.train_iteration
    trainer.train_iteration = lambda step: made.append(step) or train_one(step)
    trainer.train()
    assert trainer.base_dir == run and made == list(range(after + 1, 12))
    assert checkpoints(run) == ["step-000000011.ckpt"] and trainer.step == 11
    assert read_record(run)["finished"] is True and trainer.config.max_num_iterations == 12
    assert read_progress(run)["step"] == 12 and read_progress(run)["steps"] == 12


def test_evaluations_leave_the_training_as_it_is(scene: Path, tmp_path: Path) -> None:
    """LPIPS draws random weights when it is first used, and the backgrounds of later steps must not depend on that."""

    def parameters(name: str, every: int) -> dict[str, torch.Tensor]:
        config = tiny_config(splatfacto_teacher, scene, tmp_path / name, 12)
        config.steps_per_eval_image, config.steps_per_eval_all_images = every, 2 * every
        return dict(trained(config).pipeline.model.gauss_params.items())

    without, often = parameters("without", 0), parameters("often", 3)
    assert all(torch.equal(without[name], often[name]) for name in GAUSSIAN_PARAMETERS)


@pytest.mark.parametrize("after", [None, 7])
def test_what_was_logged_is_in_the_file_when_training_ends(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int | None
) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    write = RecordWriter.write

    def slow_write(self: Any, data: bytes) -> None:
        time.sleep(0.01)  # the disk is slower than the training
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", slow_write)
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
    run = trained(config).base_dir if after is None else interrupted(config, after)
    assert sorted(scalars(run)["Train Loss"]) == list(range(12 if after is None else after + 1))


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
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("distilled_splat.training.progress.time", clock)
    reports = []
    for step, clock.now in enumerate((100.0, 102.0, 106.0, 110.0)):
        trainer.after_step(step)
        reports.append(read_progress(trainer.base_dir)["seconds_left"])
    assert reports == [None, 4.0, 3.0, 0.0]


def test_the_time_left_is_by_the_steps_of_the_last_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("distilled_splat.training.progress.time", clock)
    progress = ProgressFile(tmp_path, steps=1000)
    left, written = {}, 0
    for done in range(1, 1001):
        clock.now += 5.0 if done <= 100 else 0.5  # slow steps before a pruning, fast ones after it
        if progress.due(done):
            progress.report(done, 7, None)
            written += 1
            left[done] = read_progress(tmp_path)["seconds_left"]
    assert left[2] == 5.0 * 998 and left[100] == 5.0 * 900
    assert left[300] == 0.5 * 700 and left[1000] == 0.0
    assert all(0.5 <= left[done] / (1000 - done) <= 5.0 for done in left if 1 < done < 1000)
    assert written == 100 + 450


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
            options = {"start_from": start, "stop_split_at": 3000}
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


def test_runs_begun_in_one_second_have_folders_of_their_own(scene: Path, tmp_path: Path) -> None:
    configs = [tiny_config(splatfacto_teacher, scene, tmp_path, ssim_lambda=value) for value in (0.1, 0.2)]
    for config in configs:
        config.set_timestamp()
    assert configs[0].get_base_dir() != configs[1].get_base_dir()


def test_a_finished_run_is_never_overwritten(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 2)
    config.timestamp = "mine"
    trained(config)
    again = tiny_config(splatfacto_teacher, scene, tmp_path, 2)
    again.timestamp = "mine"
    with pytest.raises(SystemExit, match=r"mine is a finished run: give another --timestamp"):
        again.set_timestamp()


def test_a_folder_in_which_another_trains_is_left_alone(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 2)
    config.timestamp = "mine"
    run = config.get_base_dir()
    run.mkdir(parents=True)
    with FileLock(run / ".lock"), pytest.raises(SystemExit, match="Another process is training in"):
        prepared(config)
    assert [path.name for path in run.iterdir()] == [".lock"]


def test_a_run_is_held_from_its_first_file_on(scene: Path, tmp_path: Path) -> None:
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path, 2))
    with pytest.raises(Timeout):
        FileLock(trainer.base_dir / ".lock").acquire(timeout=0)
    trainer.train()
    FileLock(trainer.base_dir / ".lock").acquire(timeout=0)


def test_a_run_notes_what_a_student_must_know_of_it(teachers: tuple[Path, ...]) -> None:
    records = [read_record(run) for run in teachers]
    assert [record["variant"] for record in records] == ["standard", "perturbed", "dropout"]
    for record in records:
        assert len(record["photos"]) == 9 and "0001.png" not in record["photos"]
        assert record["seconds"] > 0


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("machine.num_devices", 2, r"one device: set --machine\.num-devices"),
        ("machine.device_type", "mps", r"--machine\.device-type mps is not supported: use cpu\."),
        ("machine.device_type", "cuda", r"torch finds no CUDA device here: leave out --machine\.device-type"),
        ("mixed_precision", True, r"full precision.*leave out --mixed-precision"),
        ("use_grad_scaler", True, r"full precision.*--use-grad-scaler"),
    ],
)
def test_what_cannot_be_trained_here_is_refused(
    option: str, value: Any, sentence: str, scene: Path, tmp_path: Path
) -> None:
    for method in (splatfacto_teacher, distilled_splatfacto):
        config = tiny_config(method, scene, tmp_path)
        owner = config.machine if option.startswith("machine.") else config
        setattr(owner, option.removeprefix("machine."), value)
        with pytest.raises(SystemExit, match=sentence):
            config.setup()


def test_by_default_it_saves_by_time(scene: Path, tmp_path: Path) -> None:
    """A step takes no time here that could be told from none, so every step is one too many or all are too few."""
    kept: dict[float, list[str]] = {}
    for seconds in (0.0, 3600.0):
        config = tiny_config(splatfacto_teacher, scene, tmp_path / str(seconds), 5)
        config.seconds_per_save, config.save_only_latest_checkpoint = seconds, False
        kept[seconds] = checkpoints(trained(config).base_dir)
    assert kept[0.0] == [f"step-{step:09d}.ckpt" for step in range(5)]
    assert kept[3600.0] == ["step-000000004.ckpt"]


def test_steps_between_checkpoints_can_be_asked_for(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 6)
    config.steps_per_save, config.seconds_per_save, config.save_only_latest_checkpoint = 2, 0.0, False
    assert checkpoints(trained(config).base_dir) == [f"step-{step:09d}.ckpt" for step in (2, 4, 5)]


def test_a_run_that_another_process_finished_meanwhile_is_left_alone(scene: Path, tmp_path: Path) -> None:
    late, early = (tiny_config(splatfacto_teacher, scene, tmp_path, 4) for _ in range(2))
    late.timestamp = early.timestamp = "mine"
    waiting = prepared(late)
    run = trained(early).base_dir
    before = (run / "nerfstudio_models" / "step-000000003.ckpt").read_bytes()
    assert "Another process has trained in" in left_with(waiting)
    assert (run / "nerfstudio_models" / "step-000000003.ckpt").read_bytes() == before
    assert read_record(run)["finished"] is True


def other_option(config: Any, run: Path) -> None:
    config.timestamp, config.pipeline.model.ssim_lambda = run.name, 0.3


def earlier_step(config: Any, run: Path) -> None:
    config.timestamp, config.load_dir, config.load_step = run.name, run / "nerfstudio_models", 3


def foreign_checkpoint(config: Any, run: Path) -> None:
    config.timestamp, config.load_checkpoint = run.name, run / "nerfstudio_models" / "step-000000005.ckpt"


@pytest.mark.parametrize("ask", [other_option, earlier_step, foreign_checkpoint])
def test_a_start_that_is_refused_leaves_the_interrupted_run(scene: Path, tmp_path: Path, ask: Any) -> None:
    run = interrupted(tiny_config(splatfacto_teacher, scene, tmp_path, 12), after=5)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    config = tiny_config(splatfacto_teacher, scene, tmp_path, 12)
    ask(config, run)
    with pytest.raises(SystemExit, match=r"is an interrupted run with other settings.*: give another --") as refused:
        prepared(config)
    assert ("(--pipeline.model.ssim-lambda)" in str(refused.value)) == (ask is other_option)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    trainer = trained(tiny_config(splatfacto_teacher, scene, tmp_path, 12))
    assert trainer.base_dir == run and trainer._start_step == 6


@pytest.mark.parametrize("stops", [1, 2])
def test_load_config_goes_on_with_a_students_own_run(
    scene: Path, tmp_path: Path, teachers: tuple[Path, ...], stops: int
) -> None:
    """Its config.yml names another frame of the teacher than the command, as it was found out."""
    export = write_ply(tmp_path / "teacher.ply", read_teacher(teachers[0]).gaussians)

    def config() -> Any:
        return tiny_student(scene, tmp_path, (export,), 20, num_gaussians=37)

    run = interrupted(config(), after=5)
    assert loaded(run).pipeline.model.teacher_frame != config().pipeline.model.teacher_frame
    for stop in range(1, stops):
        assert interrupted(loaded(run), after=5 + stop) == run
    trainer = prepared(loaded(run))
    assert trainer.base_dir == run and trainer._start_step == 5 + stops
    command = prepared(config())
    assert command.base_dir == run and command._start_step == 5 + stops
    command.train()
    assert read_record(run)["finished"] is True


def loaded(run: Path) -> Any:
    return yaml.load((run / "config.yml").read_text(), Loader=yaml.Loader)


def test_a_refusal_takes_away_a_new_folder_but_never_a_checkpoint(scene: Path, tmp_path: Path) -> None:
    """The cap on the Gaussians is one that no machine could hold."""
    capped = tiny_config(splatfacto_teacher, scene, tmp_path / "new", 12, max_gaussians=10**12)
    with pytest.raises(SystemExit, match="the most effective first"):
        prepared(capped)
    assert not capped.get_base_dir().exists()

    run = interrupted(tiny_config(splatfacto_teacher, scene, tmp_path / "begun", 12), after=5)
    again = tiny_config(splatfacto_teacher, scene, tmp_path / "begun", 12)
    again.set_timestamp()
    again.pipeline.model.max_gaussians = 10**12
    with pytest.raises(SystemExit, match="the most effective first"):
        again.setup().setup()
    assert again.get_base_dir() == run and checkpoints(run) == ["step-000000005.ckpt"]
