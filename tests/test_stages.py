"""Teachers are found again by what decides their outcome, and by nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from PIL import Image
from tiny import CPU, prepared, tiny_config

from distilled_splat.methods import distilled_splatfacto, splatfacto_teacher
from distilled_splat.runs.fingerprints import scene_fingerprint, settings_fingerprint
from distilled_splat.runs.lock import LOCKS
from distilled_splat.runs.record import unfinished_run, update_record
from distilled_splat.teachers.kinds import VARIANTS
from distilled_splat.workflows import training_jobs
from distilled_splat.workflows.progress import Progress
from distilled_splat.workflows.teacher_configs import parsed_scene, teacher_config, teacher_configs
from distilled_splat.workflows.teachers_first import teacher_jobs, train_teachers
from distilled_splat.workflows.training_jobs import prepare


def teacher_names(scene: Path, output: Path, iterations: int = 20, **options: Any) -> list[str]:
    """Return the run folders' names of the teachers that a student's command would train."""
    student = tiny_config(distilled_splatfacto, scene, output, iterations, **options)
    fingerprint = scene_fingerprint(parsed_scene(student))
    return [teacher_config(student, variant, fingerprint).timestamp for variant in VARIANTS]


@pytest.fixture
def moved_scene(scene: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scene, tmp_path / "elsewhere" / "renamed"))


def test_the_same_command_names_the_same_teachers_wherever_data_and_runs_lie(
    scene: Path, moved_scene: Path, tmp_path: Path
) -> None:
    names = teacher_names(scene, tmp_path / "a")
    assert [name.split("-")[0] for name in names] == list(VARIANTS)
    assert teacher_names(scene, tmp_path / "b") == names
    assert teacher_names(moved_scene, tmp_path / "a") == names


def test_an_interrupted_teacher_goes_on_when_its_data_has_been_moved(
    scene: Path, moved_scene: Path, tmp_path: Path
) -> None:
    first, again = (
        teacher_configs(tiny_config(distilled_splatfacto, place, tmp_path, 20))[0] for place in (scene, moved_scene)
    )
    again.experiment_name = first.experiment_name
    assert again.get_base_dir() == first.get_base_dir()
    prepared(first).save_checkpoint(3)
    LOCKS[first.get_base_dir().absolute()].release(force=True)  # as the end of its process does
    prepare(again)
    again.set_timestamp()
    assert again.load_dir == first.get_checkpoint_dir()


@pytest.mark.parametrize("kinds", [("standard",), ("dropout", "standard"), VARIANTS])
def test_a_student_has_the_kinds_of_teachers_that_it_asks_for(
    kinds: tuple[Any, ...], scene: Path, tmp_path: Path
) -> None:
    by_kind = dict(zip(VARIANTS, teacher_names(scene, tmp_path)))
    student = tiny_config(distilled_splatfacto, scene, tmp_path, 20)
    student.teacher_kinds = kinds
    student.check()
    assert [config.timestamp for config in teacher_configs(student)] == [by_kind[kind] for kind in kinds]


@pytest.mark.parametrize("kinds", [(), ("standard", "standard"), ("standard", "dropout", "standard")])
def test_kinds_that_are_no_set_are_refused(kinds: tuple[Any, ...], scene: Path, tmp_path: Path) -> None:
    student = tiny_config(distilled_splatfacto, scene, tmp_path, 20)
    student.teacher_kinds = kinds
    with pytest.raises(SystemExit, match=r"^--teacher-kinds .*: give one or more of standard, perturbed, dropout"):
        student.check()


def test_what_concerns_the_student_alone_leaves_the_teachers(scene: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"keep_fraction": 0.3, "lambda_kd": 1.0, "prune_times": 3, "structure_every": 0}
    assert teacher_names(scene, tmp_path, **options) == teacher_names(scene, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"ssim_lambda": 0.3},
        {"sh_degree": 2},
        {"rasterize_mode": "antialiased"},
        {"iterations": 21},
        {"min_refine_every": 7},
    ],
)
def test_an_option_of_splatfacto_makes_other_teachers(scene: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    assert not set(teacher_names(scene, tmp_path, **options)) & set(teacher_names(scene, tmp_path))


def test_changed_optimizers_are_the_teachers_too(scene: Path, tmp_path: Path) -> None:
    student = tiny_config(distilled_splatfacto, scene, tmp_path)
    plain = teacher_config(student, "standard", "scene")
    assert plain.optimizers == splatfacto_teacher.config.optimizers, "no cooldown"
    student.optimizers["scales"]["scheduler"].fraction = 0.5
    assert teacher_config(student, "standard", "scene").timestamp == plain.timestamp
    student.optimizers["scales"]["optimizer"].lr = 0.01
    student.optimizers["means"]["scheduler"].lr_final = 1e-5
    changed = teacher_config(student, "standard", "scene")
    assert changed.timestamp != plain.timestamp
    assert changed.optimizers["scales"]["optimizer"].lr == 0.01 and changed.optimizers["scales"]["scheduler"] is None
    assert changed.optimizers["means"]["scheduler"].lr_final == 1e-5
    assert changed.optimizers["quats"] == plain.optimizers["quats"]


def test_a_changed_photo_mask_pose_or_point_makes_other_teachers(
    scene: Path, moved_scene: Path, tmp_path: Path
) -> None:
    names = {tuple(teacher_names(scene, tmp_path))}
    photo = moved_scene / "images" / "0002.png"
    with Image.open(photo) as image:
        changed = image.copy()
    changed.putpixel((3, 3), (0, 255, 0))
    changed.save(photo)
    names.add(tuple(teacher_names(moved_scene, tmp_path)))

    meta = json.loads((moved_scene / "transforms.json").read_text())
    meta["frames"][1]["transform_matrix"][0][3] += 0.01
    (moved_scene / "transforms.json").write_text(json.dumps(meta))
    names.add(tuple(teacher_names(moved_scene, tmp_path)))

    changed.convert("L").save(moved_scene / "mask.png")
    for frame in meta["frames"]:
        frame["mask_path"] = "mask.png"
    (moved_scene / "transforms.json").write_text(json.dumps(meta))
    names.add(tuple(teacher_names(moved_scene, tmp_path)))

    points = (moved_scene / "sparse_pc.ply").read_bytes()
    (moved_scene / "sparse_pc.ply").write_bytes(points[:-9] + bytes(9))
    names.add(tuple(teacher_names(moved_scene, tmp_path)))
    assert len(names) == 5


def test_teachers_differ_from_each_other_in_order_of_photos_and_chance(scene: Path, tmp_path: Path) -> None:
    student = tiny_config(distilled_splatfacto, scene, tmp_path, 20)
    configs = [teacher_config(student, variant, "scene") for variant in VARIANTS]
    assert len({config.machine.seed for config in configs}) == 3
    seeds = {config.pipeline.datamanager.train_cameras_sampling_seed for config in configs}  # type: ignore[attr-defined]
    assert len(seeds) == 3


def test_a_teacher_never_opens_a_viewer_or_waits_for_one(scene: Path, tmp_path: Path) -> None:
    student = tiny_config(distilled_splatfacto, scene, tmp_path)
    for vis in ("viewer", "viewer+tensorboard", "viewer_legacy", "tensorboard"):
        student.vis = vis
        assert teacher_config(student, "standard", "scene").vis == "tensorboard"


def test_data_given_to_the_dataparser_is_the_teachers_too(scene: Path, tmp_path: Path) -> None:
    student = tiny_config(distilled_splatfacto, scene, tmp_path, 20)
    names = teacher_names(scene, tmp_path, 20)
    student.data = student.pipeline.datamanager.data = None
    student.pipeline.datamanager.dataparser.data = scene
    fingerprint = scene_fingerprint(parsed_scene(student))
    configs: list[Any] = [teacher_config(student, variant, fingerprint) for variant in VARIANTS]
    assert [config.timestamp for config in configs] == names
    for config in configs:
        datamanager = config.pipeline.datamanager.setup(device=CPU, test_mode="inference")
        assert datamanager.train_dataset.image_filenames[0].is_relative_to(scene)


def test_data_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    student = tiny_config(distilled_splatfacto, tmp_path / "nowhere", tmp_path)
    with pytest.raises(SystemExit, match=r"The data in .*nowhere cannot be read"):
        parsed_scene(student)


def test_where_a_run_is_shown_or_stored_is_no_setting(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(distilled_splatfacto, scene, tmp_path)
    fingerprint = settings_fingerprint(config)
    config.vis, config.output_dir, config.steps_per_save, config.timestamp = "wandb", tmp_path / "x", 7, "name"
    assert settings_fingerprint(config) == fingerprint
    config.pipeline.model.camera_optimizer = CameraOptimizerConfig(mode="SE3")
    assert settings_fingerprint(config) != fingerprint


def test_the_machine_does_not_decide_what_a_run_is(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(distilled_splatfacto, scene, tmp_path)
    fingerprint, name = settings_fingerprint(config), teacher_config(config, "standard", "scene").timestamp
    datamanager: Any = config.pipeline.datamanager
    config.machine.device_type, datamanager.cache_images, datamanager.float_cache_megabytes = "cuda", "cpu", 0.0
    config.pipeline.model.label_cache_megabytes, config.seconds_per_save = 0.0, 7.0
    assert settings_fingerprint(config) == fingerprint
    assert teacher_config(config, "standard", "scene").timestamp == name
    config.machine.seed += 1
    assert settings_fingerprint(config) != fingerprint


def test_only_the_newest_run_of_the_settings_is_gone_on_with(tmp_path: Path) -> None:
    update_record(tmp_path / "2026-01-01_000000", fingerprint="same", finished=False)
    update_record(tmp_path / "2026-01-02_000000", fingerprint="other", finished=False)
    assert unfinished_run(tmp_path, "same") == tmp_path / "2026-01-01_000000"
    update_record(tmp_path / "2026-01-03_000000", fingerprint="same", finished=True)
    assert unfinished_run(tmp_path, "same") is None
    assert unfinished_run(tmp_path / "nowhere", "same") is None


def test_other_methods_do_not_pay_for_this_plugin() -> None:
    code = (
        "import sys, distilled_splat.methods; print('numba' in sys.modules, 'distilled_splat.cpu.simd' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split()[-2:] == ["False", "False"]


def test_a_teacher_that_another_process_trains_is_left_to_it(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_jobs, "SECONDS_FOR_AN_ORPHAN", 0)
    config = teacher_config(tiny_config(distilled_splatfacto, scene, tmp_path), "standard", "scene")
    run = config.get_base_dir()
    run.mkdir(parents=True)
    with FileLock(run / ".lock"), pytest.raises(SystemExit, match="Another process is training in") as refused:
        prepare(config)
    assert str(run) in str(refused.value)
    assert [path.name for path in run.iterdir()] == [".lock"]


@pytest.mark.parametrize("left", [True, False], ids=["a checkpoint", "nothing"])
def test_a_teacher_that_fails_is_said_to_go_on_only_from_a_checkpoint_that_is_there(
    scene: Path, tmp_path: Path, left: bool
) -> None:
    configs = teacher_configs(tiny_config(distilled_splatfacto, scene, tmp_path, 20))
    if left:
        configs[0].get_checkpoint_dir().mkdir(parents=True)
        (configs[0].get_checkpoint_dir() / "step-000000010.ckpt").write_bytes(b"")
    jobs = [replace(job, argv=("-c", "raise SystemExit('It did not work.')")) for job in teacher_jobs(configs)]
    with pytest.raises(SystemExit) as failed:
        train_teachers(configs, jobs, [{}], Progress(jobs, 1))
    end = (
        "The same command resumes from its last checkpoint." if left else "Repair this and run the same command again."
    )
    assert str(failed.value).endswith(end) and "It did not work. Its log is" in str(failed.value)


@pytest.mark.slow
def test_a_teacher_that_fails_is_named_with_its_log_and_no_other_is_begun(moved_scene: Path, tmp_path: Path) -> None:
    photo = moved_scene / "images" / "0002.png"
    photo.write_bytes(photo.read_bytes()[:200])
    configs = teacher_configs(tiny_config(distilled_splatfacto, moved_scene, tmp_path / "output", 20))
    jobs = teacher_jobs(configs)
    with pytest.raises(SystemExit, match=r"^Teacher 1 of 3 \(standard-\w+\) failed with exit code 1: .*\.$") as failed:
        train_teachers(configs, jobs, [{}], Progress(jobs, 1))
    assert str(jobs[0].log) in str(failed.value) and "0002.png" in str(failed.value)
    assert [job.log.exists() for job in jobs] == [True, False, False]


def test_a_number_of_slots_that_is_none_is_refused(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(distilled_splatfacto, scene, tmp_path)
    config.teacher_slots = 0
    config.set_timestamp()
    with pytest.raises(SystemExit, match="--teacher-slots: The number of slots is 0"):
        config.setup().setup()
