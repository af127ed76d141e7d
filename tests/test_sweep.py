"""The sweep: its plan, what it refuses, and whole sweeps of a tiny scene on both engines, with a worker killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import psutil
import pytest
from tiny import tiny_config

from distilled_splat.jobs.graph import Job
from distilled_splat.methods import distilled_splatfacto
from distilled_splat.runs.fingerprints import scene_fingerprint
from distilled_splat.runs.record import read_record
from distilled_splat.teachers.kinds import VARIANTS
from distilled_splat.workflows.sweep import Sweep
from distilled_splat.workflows.sweep_plan import Student
from distilled_splat.workflows.sweep_results import results_of
from distilled_splat.workflows.teacher_configs import parsed_scene, teacher_config

PARSER = ("nerfstudio-data", "--eval-mode", "interval", "--eval-interval", "4")


def sweep(scene: Path, output: Path, *options: str, **fields: Any) -> Sweep:
    """Return a sweep of one scene at two sizes, unless fields say otherwise."""
    usual: dict[str, Any] = {"data": (scene,), "fractions": (0.2, 0.4), "output": output, "iterations": 20}
    return Sweep(**{**usual, **fields}, options=(*options, *PARSER))


def run_names(jobs: list[Job]) -> list[str]:
    """Return the names of the run folders of the jobs that train."""
    return [job.log.parent.name for job in jobs if job.steps]


def test_students_of_all_sizes_need_the_same_three_teachers(scene: Path, tmp_path: Path) -> None:
    plan = sweep(scene, tmp_path).plan()
    teachers = [f"scene, {variant} teacher" for variant in VARIANTS]
    assert {job.name: list(job.needs) for job in plan.jobs} == {
        **{name: [] for name in teachers},
        "scene, student 0.2": teachers,
        "scene, comparison 0.2": ["scene, student 0.2"],
        "scene, student 0.4": teachers,
        "scene, comparison 0.4": ["scene, student 0.4"],
    }
    folders = [job.log.parent for job in plan.jobs[:3]]
    for student in plan.students:
        model: Any = plan.configs[f"scene, student {student.fraction:g}"].pipeline.model
        assert list(model.teachers) == folders
        assert model.keep_fraction == student.fraction
    assert list(tmp_path.iterdir()) == []


def test_the_teachers_are_those_of_the_one_command(scene: Path, tmp_path: Path) -> None:
    student = tiny_config(distilled_splatfacto, scene, tmp_path, 20)
    fingerprint = scene_fingerprint(parsed_scene(student))
    names = [teacher_config(student, variant, fingerprint).timestamp for variant in VARIANTS]
    assert run_names(sweep(scene, tmp_path, device="cpu").plan().jobs)[:3] == names


def test_a_students_run_is_named_after_what_decides_its_outcome(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(output: str, *options: str, **fields: Any) -> list[str]:
        return run_names(sweep(scene, tmp_path / output, *options, **fields).plan().jobs)

    plain = names("a")
    monkeypatch.chdir(tmp_path)
    assert names("b", fractions=(0.4, 0.2)) == [*plain[:3], plain[4], plain[3]]
    heavier = names("a", "--pipeline.model.lambda-kd", "2")
    assert heavier[:3] == plain[:3] and not set(heavier[3:]) & set(plain[3:])
    longer = names("a", "--teacher-iterations", "30")
    assert not set(longer) & set(plain)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"fractions": (0.2, 0.0)}, "keep-fraction 0.0 / num-gaussians None is invalid"),
        ({"fractions": (1.5,)}, r"keep-fraction 1\.5"),
        ({"fractions": (0.2, 0.2)}, "repeats a size"),
        ({"iterations": 0}, "--iterations, --cpus and --gpus must be positive"),
        ({"cpus": 0}, "must be positive"),
        ({"slots": 0}, "--slots 0 must be positive"),
        ({"data": (Path("nowhere"),)}, r"The data in .*nowhere cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    scene: Path, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValueError, SystemExit), match=words):
        sweep(scene, tmp_path, **fields).run()
    assert list(tmp_path.iterdir()) == []


def test_scenes_of_one_name_are_refused(scene: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(scene, tmp_path / "scene"))
    with pytest.raises(ValueError, match="Two scenes have the name 'scene'"):
        sweep(scene, tmp_path, data=(scene, copy)).run()


def test_a_dry_run_lists_the_graph_and_writes_nothing(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(scene, tmp_path, dry_run=True).run()
    words = capsys.readouterr().out
    assert "to run  scene, comparison 0.4   (needs scene, student 0.4)" in words
    assert words.rstrip().endswith("7 jobs, 7 to run")
    assert list(tmp_path.iterdir()) == []


def test_results_have_each_teacher_once_and_every_student_that_was_compared(tmp_path: Path) -> None:
    rows = [{"name": name, "gaussians": 9} for name in ("standard teacher", "mean of teachers", "student")]
    students = [Student(scene, fraction, tmp_path / f"{scene} {fraction}") for scene in "ab" for fraction in (0.1, 0.5)]
    for student in students[1:]:
        student.run.mkdir()
        student.comparison.write_text(json.dumps(rows))
    results = results_of(students, tmp_path)
    assert [(result["scene"], result["name"], result["fraction"]) for result in results] == [
        ("a", "standard teacher", None),
        ("a", "mean of teachers", None),
        ("a", "student", 0.5),
        ("b", "standard teacher", None),
        ("b", "mean of teachers", None),
        ("b", "student", 0.1),
        ("b", "student", 0.5),
    ]
    assert results[2]["run"] == "a 0.5"


TRAINING = (
    "--teacher-iterations", "400", "--pipeline.model.min-refine-every", "10",
    "--pipeline.model.max-gaussians", "700", "--pipeline.model.min-teacher-psnr", "1",
)  # fmt: skip
"""Options for teachers that train long enough to be caught at it."""


@dataclass
class Swept:
    """A sweep that was run to its end."""

    output: Path
    words: str

    def results(self) -> dict[tuple[str, Any], dict[str, Any]]:
        """Return the measurements without the seconds, by name and fraction."""
        content = json.loads((self.output / "results.json").read_text())
        return {
            (row["name"], row["fraction"]): {key: value for key, value in row.items() if key != "seconds"}
            for row in content["results"]
        }

    def run_of(self, kind: str) -> Path:
        """Return the run whose name begins with the kind of a teacher or the fraction of a student."""
        (run,) = (self.output / "runs" / "scene").glob(f"*/{kind}-*/")
        return run

    def state(self) -> dict[Path, int]:
        """Return the times of all files in the runs."""
        return {path: path.stat().st_mtime_ns for path in (self.output / "runs").rglob("*") if path.is_file()}


def start(scene: Path, output: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a sweep of one size."""
    command = [
        sys.executable, "-m", "distilled_splat", "sweep", "--data", str(scene), "--output", str(output),
        "--device", "cpu", "--fractions", "0.3", "--iterations", "40", *arguments, "--", *TRAINING, *PARSER,
    ]  # fmt: skip
    output.mkdir()
    with (output / "words").open("wb") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


def ended(output: Path, process: subprocess.Popen[bytes]) -> Swept:
    """Wait for the end of a sweep, and see that it ended well."""
    code = process.wait(timeout=600)
    words = (output / "words").read_text()
    assert code == 0, words
    return Swept(output, words)


def training_of(kind: str, sweep: subprocess.Popen[bytes]) -> Optional[psutil.Process]:
    """Wait until a sweep has started a training of this kind and return it, or None if the sweep ends first."""
    while sweep.poll() is None:
        for each in psutil.process_iter(["cmdline"]):
            if each.info["cmdline"] and f"/{kind}-" in each.info["cmdline"][-1]:
                return each
        time.sleep(0.05)
    return None


@pytest.fixture(scope="module")
def swept(scene: Path, two_nodes: str, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep on a Ray cluster of two nodes, the worker of the perturbed teacher killed while it trains."""
    output = tmp_path_factory.mktemp("ray") / "sweep"
    process = start(scene, output, "--engine", "ray", "--address", two_nodes)
    training = training_of("perturbed", process)
    assert training is not None, (output / "words").read_text()
    while process.poll() is None and not any(output.glob("runs/scene/splatfacto-teacher/perturbed-*/progress.json")):
        time.sleep(0.002)
    training.suspend()  # or it may be through before its worker is gone
    worker = training.parent()
    assert worker is not None
    worker.kill()
    psutil.wait_procs([worker], timeout=60)
    training.resume()
    return ended(output, process)


@pytest.mark.slow
def test_a_killed_worker_stops_nothing_and_nothing_is_trained_twice(swept: Swept) -> None:
    for kind in (*VARIANTS, "0.3"):
        run = swept.run_of(kind)
        assert read_record(run)["finished"] is True
        starts = (run / "training.log").read_text().count("Saving checkpoints to")
        assert starts == (2 if kind == "perturbed" else 1)
    log = "".join((swept.run_of("perturbed") / "training.log").read_text().split())
    assert "Stoppedbytheendofthecommandthatstartedthistraining" in log
    assert "Resumingtheinterruptedrun" in log


KINDS = ["standard teacher", "perturbed teacher", "dropout teacher", "mean of teachers"]


@pytest.mark.slow
def test_a_sweep_puts_all_into_one_table(swept: Swept) -> None:
    results = swept.results()
    assert list(results) == [*((kind, None) for kind in KINDS), ("student", 0.3)]
    assert all(row["psnr"] > 8 for row in results.values())
    assert all(kind in swept.words for kind in KINDS)
    assert results["student", 0.3]["gaussians"] == round(0.3 * results["standard teacher", None]["gaussians"])
    assert swept.output / results["student", 0.3]["run"] == swept.run_of("0.3")


@pytest.mark.slow
def test_on_another_engine_the_sweep_goes_on_with_what_is_there(
    scene: Path, swept: Swept, capsys: pytest.CaptureFixture[str]
) -> None:
    before, results = swept.state(), swept.results()
    again = sweep(scene, swept.output, *TRAINING, fractions=(0.3,), iterations=40, device="cpu")
    again.run()
    assert swept.state() == before and swept.results() == results

    larger = replace(again, fractions=(0.3, 0.5))
    replace(larger, dry_run=True).run()
    assert capsys.readouterr().out.rstrip().endswith("7 jobs, 2 to run")
    larger.run()
    words = capsys.readouterr().out
    assert all(kind in words for kind in KINDS)
    after = swept.state()
    assert {path: after[path] for path in before} == before
    assert list(swept.results().items())[:-1] == list(results.items())
    assert swept.results()["student", 0.5]["gaussians"] == round(0.5 * results["standard teacher", None]["gaussians"])


@pytest.mark.slow
def test_a_sweep_in_which_a_job_fails_says_so(scene: Path, swept: Swept, tmp_path: Path) -> None:
    output = Path(shutil.copytree(swept.output, tmp_path / "copy"))
    broken = Swept(output, "").run_of("0.3")
    (broken / "comparison.json").unlink()
    (broken / "config.yml").unlink()
    again = sweep(scene, output, *TRAINING, fractions=(0.3,), iterations=40, device="cpu")
    words = r"scene, comparison 0\.3 failed; its log is .*comparison\.log\n(.|\n)*config\.yml(.|\n)*1 jobs failed\."
    with pytest.raises(SystemExit, match=words):
        again.run()
    assert json.loads((output / "results.json").read_text())["results"] == []


@pytest.mark.parametrize(
    "options",
    [
        ("--pipeline.model.num-gaussians", "500"),
        ("--pipeline.model.keep-fraction", "0.5"),
        ("--pipeline.model.teachers", "some/run"),
    ],
)
def test_what_a_sweep_sets_itself_is_refused(scene: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match=f"{options[0]} does not work in a sweep"):
        sweep(scene, tmp_path, *options).run()
    assert list(tmp_path.iterdir()) == []
