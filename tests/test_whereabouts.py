"""A run that was copied with its data and teachers is measured where it lies; options name what is elsewhere."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import tiny_student, tiny_teacher, trained

from distilled_splat import cli
from distilled_splat.evaluation.compare import compare
from distilled_splat.evaluation.held_out import open_run
from distilled_splat.evaluation.report import write_report
from distilled_splat.runs.record import read_record

PARTS = ("captures", "outputs")


@dataclass
class Project:
    """A folder with captures/scene and outputs/, made elsewhere and copied to `home`; what was elsewhere is gone."""

    home: Path
    student: Path
    teacher: Path

    @property
    def config(self) -> Path:
        return self.student / "config.yml"

    @property
    def data(self) -> Path:
        return self.home / "captures" / "scene"


@pytest.fixture(scope="module", params=["absolute", "relative"])
def brought_home(request: Any, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with an output folder that was named in either way."""
    away, home = tmp_path_factory.mktemp("away"), tmp_path_factory.mktemp("home") / "project"
    shutil.copytree(scene, away / "captures" / "scene")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(away)
        start = away if request.param == "absolute" else Path()
        data, output = start / "captures" / "scene", start / "outputs"
        teacher = tiny_teacher(data, output, iterations=12).base_dir
        trained(tiny_student(data, output, (teacher,), num_gaussians=300))
    for part in PARTS:
        shutil.move(away / part, home / part)
    return home


@pytest.fixture
def project(brought_home: Path, tmp_path: Path) -> Project:
    home = Path(shutil.copytree(brought_home, tmp_path / "project"))
    (student,) = home.glob("outputs/scene/distilled-splatfacto/*")
    (teacher,) = home.glob("outputs/scene/splatfacto-teacher/*")
    return Project(home, student, teacher)


def run(*arguments: str | Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["distilled-splat", *map(str, arguments)])
        cli.main()


def test_data_and_teachers_are_found_beside_the_run(project: Project) -> None:
    opened = open_run(project.config)
    assert opened.teachers == (project.teacher,)
    assert opened.datamanager.train_dataset.image_filenames[0].is_relative_to(project.data)
    names = [row.name for row in compare(project.config).rows]
    assert names == ["standard teacher", "mean of teachers", "student"]
    content = write_report(project.config).read_text(encoding="utf8")
    assert "standard teacher" in content and (project.student / "report.html").exists()


def test_what_lies_elsewhere_is_asked_for_by_its_option_and_taken_from_there(project: Project, tmp_path: Path) -> None:
    data, teacher = tmp_path / "elsewhere", tmp_path / "standard"
    shutil.move(project.data, data)
    shutil.move(project.teacher, teacher)
    asked = ("--load-config", project.config)
    for command in ("compare", "report", "export"):
        with pytest.raises(SystemExit, match=r"cannot be opened with its photos: .*give their folder with --data"):
            run(command, *asked)
    for command in ("compare", "report"):
        with pytest.raises(SystemExit, match=r"The teacher .* does not exist.* teachers with --teachers"):
            run(command, *asked, "--data", data)
    rows = tmp_path / "rows.json"
    run("compare", *asked, "--data", data, "--teachers", teacher, "--json", rows)
    run("report", *asked, "--data", data, "--teachers", teacher)
    run("export", *asked, "--data", data)
    assert "standard teacher" in rows.read_text()
    assert (project.student / "report.html").exists() and (project.student / "export" / "splat.ply").exists()


def test_a_renamed_copy_is_opened_as_itself(project: Project) -> None:
    """The original is there, too, with another student."""
    copy = Path(shutil.copytree(project.student, project.student.parent / "renamed"))
    other = trained(tiny_student(project.data, project.home / "other", (project.teacher,), num_gaussians=200)).base_dir
    shutil.rmtree(project.student / "nerfstudio_models")
    shutil.copytree(other / "nerfstudio_models", project.student / "nerfstudio_models")
    assert [compare(folder / "config.yml", []).rows[-1].gaussians for folder in (copy, project.student)] == [300, 200]
    assert open_run(copy / "config.yml").teachers == (project.teacher,)


def test_teachers_are_named_as_the_run_is(scene: Path, teachers: tuple[Path, ...], tmp_path: Path) -> None:
    """So ns-viewer finds them where it finds the run: by absolute paths, or from the folder it is started in."""
    teacher = Path(shutil.copytree(teachers[0], tmp_path / "teachers" / "one"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for output, expected in ((Path("outputs"), Path("teachers/one")), (tmp_path / "outputs 2", teacher)):
            student = trained(tiny_student(scene, output, (teacher,), num_gaussians=300)).base_dir
            config = yaml.load((student / "config.yml").read_text(), Loader=yaml.Loader)
            assert config.pipeline.model.teachers == (expected,)
            assert read_record(student)["teachers"] == [f"{teacher}"]


def test_a_folder_of_the_same_name_here_is_not_taken(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "another project"
    shutil.copytree(project.data, other / "captures" / "scene")
    monkeypatch.chdir(other)
    opened = open_run(project.config)
    assert opened.datamanager.train_dataset.image_filenames[0].is_relative_to(project.data)
