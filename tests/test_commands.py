"""The whole job through the real commands: one training, what can be done with it, and what cannot stop it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from kill_at_random import KEEP, SMALL_JOB, STEPS, TEACHER_STEPS, round_of_kills
from PIL import Image
from plyfile import PlyData
from tiny import scalars

from distilled_splat.runs.checkpoints import checkpoint_step, latest_checkpoint, load_tensors
from distilled_splat.runs.record import read_record
from distilled_splat.teachers.kinds import VARIANTS
from distilled_splat.teachers.reading import read_teacher

pytestmark = pytest.mark.slow

PATIENCE = 600
"""Seconds after which a command that ought to have come to something is taken for stuck."""


class Command:
    """A command that runs in a session of its own, with its output in a file."""

    def __init__(self, log: Path, name: str, *arguments: str | Path) -> None:
        self.log = log
        self.began = time.time()
        words = [str(Path(sys.executable).parent / name), *map(str, arguments)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, code: int = 0) -> str:
        """Wait for the end, see that it came with this code, and return the output."""
        self.wait_until(lambda: self.process.poll() is not None)
        assert self.process.returncode == code, self.output()
        return self.output()

    def wait_until(self, there: Callable[[], bool]) -> None:
        """Wait for something that the command is to bring about before it ends."""
        give_up = time.monotonic() + PATIENCE
        while not there():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.process.kill()
                pytest.fail(self.output())
            time.sleep(0.01)

    def press_ctrl_c(self) -> None:
        """Interrupt all that a terminal would interrupt."""
        os.killpg(self.process.pid, signal.SIGINT)

    def trains_in(self, run: Callable[[], Path | None]) -> Callable[[], bool]:
        """Return whether this command has made a step in a run folder."""

        def begun() -> bool:
            folder = run()
            progress = None if folder is None else folder / "progress.json"
            return progress is not None and progress.exists() and progress.stat().st_mtime > self.began

        return begun


def train(log: Path, scene: Path, output: Path, *more: str | Path) -> Command:
    """Start the one command."""
    return Command(
        log, "ns-train", "distilled-splatfacto",
        "--data", scene, "--output-dir", output, "--vis", "tensorboard",
        *SMALL_JOB, "--logging.steps-per-log", "1", "--pipeline.model.lambda-structure", "1",
        "--pipeline.model.lambda-kd", "1", "--pipeline.model.min-teacher-advantage", "0",
        "--pipeline.model.full-overfit-gap", "0",
        *more,
        "nerfstudio-data", "--eval-mode", "interval", "--eval-interval", "4",
    )  # fmt: skip


def runs(output: Path, method: str) -> list[Path]:
    return sorted((output / "scene" / method).glob("*/"))


def checkpoint(run: Path) -> Path:
    found = latest_checkpoint(run / "nerfstudio_models")
    assert found is not None
    return found


def step_of(run: Path | None) -> int:
    found = None if run is None else latest_checkpoint(run / "nerfstudio_models")
    return -1 if found is None else checkpoint_step(found)


def state_of(folders: list[Path]) -> dict[Path, tuple[int, int]]:
    """Return size and time of every file in some folders."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def count_in(run: Path) -> int:
    return len(read_teacher(run).gaussians)


def says(words: str, sentence: str) -> int:
    """Count a sentence in an output, which nerfstudio's console breaks into lines wherever it likes."""
    return "".join(words.split()).count("".join(sentence.split()))


@dataclass
class Trained:
    """What the one command left."""

    output: Path
    words: str
    teachers: list[Path]
    student: Path

    @property
    def promised(self) -> int:
        return round(KEEP * count_in(self.teachers[0]))


@pytest.fixture(scope="module")
def trained(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The one command, run to its end."""
    output = tmp_path_factory.mktemp("one command")
    words = train(output / "log", scene, output, "--teacher-slots", "3").wait()
    teachers = [
        next(run for run in runs(output, "splatfacto-teacher") if run.name.startswith(kind)) for kind in VARIANTS
    ]
    (student,) = runs(output, "distilled-splatfacto")
    return Trained(output, words, teachers, student)


@dataclass
class Interruptions:
    """What came of a command that was stopped again and again."""

    output: Path
    words: list[str]
    teacher_steps: list[int]
    student_steps: list[int]
    teacher_finished_after_kill: bool
    others_untouched: bool


@pytest.fixture(scope="module", autouse=True)
def interruptions(
    scene: Path, trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[Interruptions]]:
    """The same command, stopped in each stage in two ways, beside the other tests; two teachers are there already."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(interrupt_again_and_again, scene, trained, tmp_path_factory.mktemp("interrupted"))


def interrupt_again_and_again(scene: Path, trained: Trained, output: Path) -> Interruptions:
    method = output / "scene" / "splatfacto-teacher"
    for run in trained.teachers[:2]:
        shutil.copytree(run, method / run.name)
    others = [method / run.name for run in trained.teachers[:2]]
    before = state_of(others)
    teacher = method / trained.teachers[2].name
    words, teacher_steps, student_steps = [], [], []

    def student() -> Path | None:
        return next(iter(runs(output, "distilled-splatfacto")), None)

    command = train(output / "log 1", scene, output)
    command.wait_until(command.trains_in(lambda: teacher))
    command.press_ctrl_c()
    words.append(command.wait(130))
    teacher_steps.append(step_of(teacher))

    command = train(output / "log 2", scene, output)
    command.wait_until(command.trains_in(lambda: teacher))
    command.process.kill()
    words.append(command.wait(-signal.SIGKILL))
    with FileLock(teacher / ".lock", timeout=PATIENCE):  # the orphan holds it until it ends
        teacher_steps.append(step_of(teacher))
        finished_after_kill = read_record(teacher)["finished"]

    command = train(output / "log 3", scene, output)
    command.wait_until(command.trains_in(student))
    command.press_ctrl_c()
    words.append(command.wait(130))
    teacher_steps.append(step_of(teacher))
    student_steps.append(step_of(student()))

    run = student()
    assert run is not None
    command = Command(output / "log 4", "ns-train", "distilled-splatfacto", "--load-config", run / "config.yml")
    command.wait_until(lambda: step_of(student()) > student_steps[0])
    command.process.kill()
    words.append(command.wait(-signal.SIGKILL))
    student_steps.append(step_of(student()))

    words.append(train(output / "log 5", scene, output).wait())
    student_steps.append(step_of(student()))
    return Interruptions(output, words, teacher_steps, student_steps, finished_after_kill, state_of(others) == before)


def test_help_lists_the_three_methods(tmp_path: Path) -> None:
    words = Command(tmp_path / "log", "ns-train", "--help").wait()
    for name in ("splatfacto-teacher", "distilled-splatfacto", "distilled-splatfacto-paper"):
        assert f" {name} " in words


def test_one_command_trains_three_teachers_and_a_student(trained: Trained) -> None:
    assert len(runs(trained.output, "splatfacto-teacher")) == 3
    for place, (run, variant) in enumerate(zip(trained.teachers, VARIANTS), start=1):
        record = read_record(run)
        assert record["finished"] is True and record["variant"] == variant
        assert step_of(run) == TEACHER_STEPS - 1
        assert says(trained.words, f"Teacher {place} of 3, {variant}: {run}") == 1
    record = read_record(trained.student)
    assert record["finished"] is True
    assert record["teachers"] == [str(run) for run in trained.teachers]
    for run in (*trained.teachers, trained.student):
        assert {"config.yml", "dataparser_transforms.json"} <= {path.name for path in run.iterdir()}
    assert says(trained.words, "Student of 3 teachers (standard, perturbed, dropout)") == 1


def test_teachers_train_side_by_side_where_there_are_slots(trained: Trained) -> None:
    begun = [trained.words.index(f"Teacher {place} of 3, {kind}: /") for place, kind in enumerate(VARIANTS, start=1)]
    done = [trained.words.index(f"Teacher {place} of 3, {kind}: done") for place, kind in enumerate(VARIANTS, start=1)]
    assert max(begun) < min(done) and max(done) < trained.words.index("Student: /")


def test_the_progress_of_teachers_and_student_is_shown_alike(trained: Trained) -> None:
    for name, steps in (("Teacher 3 of 3, dropout", TEACHER_STEPS), ("Student", STEPS)):
        assert says(trained.words, f"{name}: step {steps} of {steps}, ") == 1
        assert says(trained.words, f"{name}: done in") == 1
    assert "PSNR" in trained.words and "left in total" in trained.words
    assert "Train Iter (time)" not in trained.words.split("Student of 3 teachers")[1]


def test_the_student_has_the_promised_count_and_no_teacher_in_its_checkpoint(trained: Trained) -> None:
    assert count_in(trained.teachers[0]) != 400, "densification was at work"
    assert count_in(trained.student) == trained.promised
    state = load_tensors(checkpoint(trained.student))["pipeline"]
    names = ("means", "scales", "quats", "features_dc", "features_rest", "opacities")
    assert {key for key in state if "gauss_params" in key} == {f"_model.gauss_params.{name}" for name in names}
    assert sum(value.numel() for key, value in state.items() if "gauss_params" not in key) < 1000


def test_every_loss_is_in_the_training_log(trained: Trained) -> None:
    logged = scalars(trained.student)
    photos, labels = (set(logged[f"Train Loss Dict/{name}"]) for name in ("main_loss", "kd_loss"))
    assert labels == set(range(STEPS))
    assert set(range(0, STEPS, 10)) <= photos and 0.3 * STEPS < len(photos) < 0.7 * STEPS, "the others have no photo"
    assert sorted(logged["Train Loss Dict/structure_loss"]) == list(range(STEPS)), "its interval scales with the run"
    assert all(-1e-6 < value < 1 for value in logged["Train Loss Dict/structure_loss"].values())
    loss = list(logged["Train Loss"].values())
    assert np.isfinite(loss).all()


@dataclass
class Uses:
    """What the ns-* commands made of the student, its teachers being away."""

    folder: Path
    viewer_page: str


@pytest.fixture(scope="module")
def uses(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Uses:
    folder = tmp_path_factory.mktemp("uses")
    config = ("--load-config", trained.student / "config.yml")
    home, away = trained.teachers[0].parent, trained.output / "away"
    home.rename(away)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        commands = [
            Command(folder / "eval.log", "ns-eval", *config, "--output-path", folder / "eval.json"),
            Command(folder / "export.log", "ns-export", "gaussian-splat", *config, "--output-dir", folder / "export"),
            Command(
                folder / "render.log", "ns-render", "dataset", *config,
                "--output-path", folder / "frames", "--split", "test", "--rendered-output-names", "rgb",
            ),
        ]  # fmt: skip
        for command in commands:
            command.wait()
        address = ("--viewer.websocket-host", "127.0.0.1", "--viewer.websocket-port", str(port))
        viewer = Command(folder / "viewer.log", "ns-viewer", *config, *address)
        pages: list[str] = []

        def served() -> bool:
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request("GET", "/")
                pages.append(connection.getresponse().read().decode(errors="replace"))
            except OSError:
                return False
            finally:
                connection.close()
            return True

        viewer.wait_until(served)
        viewer.process.kill()
        viewer.process.wait()
    finally:
        away.rename(home)
    return Uses(folder, pages[-1])


def test_eval_writes_quality_and_size(trained: Trained, uses: Uses) -> None:
    results = json.loads((uses.folder / "eval.json").read_text())["results"]
    assert results["psnr"] > 10 and 0 < results["ssim"] <= 1
    assert results["gaussian_count"] == trained.promised
    assert results["megabytes"] == pytest.approx(trained.promised * 62 * 4 / 1e6)
    assert not any(np.isnan(value) for value in results.values())


def test_render_writes_the_held_out_views(uses: Uses) -> None:
    frames = sorted((uses.folder / "frames").rglob("*.*"))
    assert len(frames) == 3
    for frame in frames:
        with Image.open(frame) as image:
            assert image.size == (64, 48)
            assert np.asarray(image).std() > 5


def test_the_export_holds_the_promised_count_in_the_usual_order(trained: Trained, uses: Uses) -> None:
    (path,) = (uses.folder / "export").glob("*.ply")
    vertices = PlyData.read(path)["vertex"]
    names = [prop.name for prop in vertices.properties]
    rest = [f"f_rest_{i}" for i in range(45)]
    colour = ["f_dc_0", "f_dc_1", "f_dc_2", *rest]
    shape = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert names == ["x", "y", "z", "nx", "ny", "nz", *colour, *shape]
    assert vertices.count == trained.promised
    gaussians = read_teacher(trained.student).gaussians
    np.testing.assert_allclose(np.stack([vertices[axis] for axis in "xyz"], axis=1), gaussians.means.numpy())
    np.testing.assert_allclose(vertices["opacity"], gaussians.logit_opacities.numpy())
    assert path.stat().st_size == pytest.approx(trained.promised * 62 * 4, rel=0.1)


def test_an_independent_reader_opens_the_export(trained: Trained, uses: Uses) -> None:
    gsply = pytest.importorskip("gsply")
    (path,) = (uses.folder / "export").glob("*.ply")
    assert len(gsply.plyread(str(path)).means) == trained.promised


def test_the_viewer_serves_its_page(uses: Uses) -> None:
    assert "<html" in uses.viewer_page


def test_compare_measures_teachers_their_mean_and_the_student(trained: Trained, tmp_path: Path) -> None:
    rows_path, picture = tmp_path / "rows.json", tmp_path / "picture.png"
    config = trained.student / "config.yml"
    arguments = ("--load-config", config, "--json", rows_path, "--picture", picture)
    words = Command(tmp_path / "log", "distilled-splat", "compare", *arguments).wait()
    rows = json.loads(rows_path.read_text())
    kinds = ["standard teacher", "perturbed teacher", "dropout teacher", "mean of teachers", "student"]
    assert [row["name"] for row in rows] == kinds
    assert all(kind in words for kind in kinds)
    assert rows[-1]["gaussians"] == trained.promised
    assert rows[3]["gaussians"] == sum(row["gaussians"] for row in rows[:3])
    assert all(row["psnr"] > 10 for row in rows)
    assert all(sum(row["photos"]["psnr"]) / len(row["photos"]["psnr"]) == pytest.approx(row["psnr"]) for row in rows)
    assert "student minus standard teacher: PSNR" in words
    is_left_out = "LPIPS (VGG) is left out" in words
    assert all((row["lpips_vgg"] is None) == is_left_out for row in rows)
    with Image.open(picture) as image:
        assert image.width > 4 * 64


def test_the_same_command_again_takes_the_teachers_and_makes_a_new_student(scene: Path, trained: Trained) -> None:
    before = state_of([*trained.teachers, trained.student])
    words = train(trained.output / "log again", scene, trained.output).wait()
    assert says(words, "is already trained") == 3
    assert len(runs(trained.output, "splatfacto-teacher")) == 3
    assert state_of([*trained.teachers, trained.student]) == before
    first, second = runs(trained.output, "distilled-splatfacto")
    assert first == trained.student
    assert count_in(second) == trained.promised


def test_teachers_are_given_in_three_forms_and_the_size_as_a_number(
    scene: Path, trained: Trained, tmp_path: Path
) -> None:
    standard, perturbed, dropout = trained.teachers
    forms = (dropout, perturbed / "config.yml", checkpoint(standard))
    options = ("--pipeline.model.num-gaussians", "123", "--timestamp", "mine")
    words = train(tmp_path / "log", scene, tmp_path, "--pipeline.model.teachers", *forms, *options).wait()
    assert says(words, "Student of 3 teachers (dropout, perturbed, standard): 123 Gaussians") == 1
    (run,) = runs(tmp_path, "distilled-splatfacto")
    assert run.name == "mine" and count_in(run) == 123
    assert not runs(tmp_path, "splatfacto-teacher")

    refused = train(tmp_path / "log 2", scene, tmp_path, "--pipeline.model.teachers", *forms, *options).wait(1)
    assert f"{run} is a finished run" in refused.splitlines()[-1]
    assert "Traceback" not in refused


def test_a_refusal_is_one_sentence_and_an_exit_code(scene: Path, trained: Trained, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    words = train(tmp_path / "log", scene, tmp_path, "--pipeline.model.teachers", missing).wait(1)
    assert words.rstrip().splitlines()[-1].startswith(f"{missing} does not exist")
    assert "Traceback" not in words


def test_ctrl_c_leaves_with_130_and_one_sentence(interruptions: Future[Interruptions]) -> None:
    story = interruptions.result()
    first, _, third = story.words[:3]
    assert says(first, "Stopped by SIGINT. The same command resumes this teacher") == 1
    assert says(third, "Stopped by SIGINT; saved after") == 1
    assert "Traceback" not in first + third


def test_ctrl_c_in_a_command_that_does_not_train_is_one_sentence_too(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    command = Command(tmp_path / "demo.log", "distilled-splat", "demo", "--only-scene", "--output", folder)
    command.wait_until(lambda: any(tmp_path.glob(".scene-*/scene/images/*")))
    command.press_ctrl_c()
    said = command.wait(130)
    assert says(said, "Stopped by Ctrl-C.") == 1 and "Traceback" not in said
    assert not folder.exists() and not list(tmp_path.glob(".scene-*"))


def test_an_interrupted_teacher_goes_on_from_its_checkpoint(interruptions: Future[Interruptions]) -> None:
    story = interruptions.result()
    stopped, killed, finished = story.teacher_steps
    assert 0 <= stopped < killed < finished == TEACHER_STEPS - 1
    (run,) = [run for run in runs(story.output, "splatfacto-teacher") if run.name.startswith("dropout")]
    words = (run / "training.log").read_text()
    for step in (stopped, killed):
        assert says(words, f"from step-{step:09d}.ckpt") == 1
    logs = [scalars(run, path.name)["Train Loss"] for path in sorted(run.glob("events.*"))]
    assert [min(log) for log in logs] == [0, stopped + 1, killed + 1]


def test_a_teacher_does_not_outlive_its_command(interruptions: Future[Interruptions]) -> None:
    assert interruptions.result().teacher_finished_after_kill is False


def test_an_interrupted_student_goes_on_and_has_the_promised_count(
    interruptions: Future[Interruptions], trained: Trained
) -> None:
    story = interruptions.result()
    stopped, killed, finished = story.student_steps
    assert 0 <= stopped < killed < finished == STEPS - 1
    assert says(story.words[3], f"from step-{stopped:09d}.ckpt") == 1
    assert says(story.words[4], f"from step-{killed:09d}.ckpt") == 1
    (run,) = runs(story.output, "distilled-splatfacto")
    assert read_record(run)["finished"] is True
    assert count_in(run) == trained.promised


def test_interruptions_leave_finished_teachers_and_make_no_more_folders(interruptions: Future[Interruptions]) -> None:
    story = interruptions.result()
    assert story.others_untouched
    assert len(runs(story.output, "splatfacto-teacher")) == 3
    assert len(runs(story.output, "distilled-splatfacto")) == 1


def test_kills_at_random_moments_lose_nothing(scene: Path, trained: Trained, tmp_path: Path) -> None:
    """A few of the kills of `kill_at_random.py`; the teachers are there already."""
    method = tmp_path / "scene" / "splatfacto-teacher"
    for run in trained.teachers:
        shutil.copytree(run, method / run.name)
    before = state_of([method])
    story = round_of_kills(scene, tmp_path, kills=2, chance=random.Random(0), longest=16)
    assert story.rounds == 1
    assert state_of([method]) == before


def test_of_two_commands_at_once_one_trains_and_the_other_says_so(
    scene: Path, trained: Trained, tmp_path: Path
) -> None:
    teachers = ("--pipeline.model.teachers", *trained.teachers, "--timestamp", "mine")
    both = [train(tmp_path / f"log {number}", scene, tmp_path, *teachers) for number in range(2)]
    codes = sorted(command.process.wait(PATIENCE) for command in both)
    assert codes == [0, 1], [command.output() for command in both]
    (loser,) = [command.output() for command in both if command.process.returncode == 1]
    reasons = ("Another process is training in", "Another process has trained in", "holds a finished run")
    assert sum(says(loser, reason) for reason in reasons) == 1
    assert "Traceback" not in loser
    (run,) = runs(tmp_path, "distilled-splatfacto")
    assert read_record(run)["finished"] is True and count_in(run) == trained.promised
