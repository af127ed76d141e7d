"""Every command in the docs is one that the real command lines take, and the example of a teacher trains."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tyro
from pages import ROOT, blocks, commands
from tiny import CPU, tiny_config, tiny_parser, tiny_student, trained

from distilled_splat.student.model import DistilledModelConfig
from distilled_splat.teachers.ensemble import TeacherEnsemble
from distilled_splat.teachers.kinds import TeacherModelConfig
from distilled_splat.teachers.reading import read_teacher

PARSERS = {
    "ns-train": "nerfstudio.configs.method_configs:AnnotatedBaseConfigUnion",
    "ns-viewer": "nerfstudio.scripts.viewer.run_viewer:RunViewer",
    "ns-eval": "nerfstudio.scripts.eval:ComputePSNR",
    "ns-export": "nerfstudio.scripts.exporter:Commands",
    "ns-render": "nerfstudio.scripts.render:Commands",
    "distilled-splat": "distilled_splat.cli:Command",
}
"""Where the type lies that a program parses its command line into."""


def parser_of(program: str) -> Any:
    """Return what a program parses its command line into."""
    assert program in PARSERS, f"no page may tell people to run {program}: its command line is not known here"
    module, _, name = PARSERS[program].partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("words", commands())
def test_a_command_in_the_docs_is_one(words: list[str], example: Any) -> None:
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments and set(arguments) <= set(targets)
    elif program == "pip":
        asked = re.findall(r"\[(\w+)\]", " ".join(arguments))
        extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
        assert arguments[0] == "install" and all(re.search(rf"^{name} = \[", extras, re.MULTILINE) for name in asked)
    elif program == "export":
        assert all("=" in word for word in arguments)
    elif arguments[:1] == [example.config.method_name]:
        known = {name: example.config for name in (example.config.method_name, "another")}
        tyro.cli(tyro.extras.subcommand_type_from_defaults(known), args=arguments)
    else:
        tyro.cli(parser_of(program), args=arguments)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The method in the example of docs/extending.md, imported from the file that it says it is."""
    (code,) = blocks(ROOT / "docs" / "extending.md", "python")
    folder = tmp_path_factory.mktemp("example")
    (folder / "my_teacher.py").write_text(code)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("my_teacher").method
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("my_teacher", None)


def test_a_teacher_of_another_kind_trains_and_teaches(
    scene: Path, teachers: tuple[Path, ...], example: Any, tmp_path: Path
) -> None:
    trainer = trained(tiny_config(example, scene, tmp_path / "teacher", iterations=8, parser=tiny_parser()))
    assert trainer.base_dir.parent.name == "noisy-teacher"
    teacher = read_teacher(trainer.base_dir)
    assert len(TeacherEnsemble([teacher], CPU).members) == 1
    student = trained(tiny_student(scene, tmp_path / "student", (teachers[0], trainer.base_dir), num_gaussians=300))
    assert len(read_teacher(student.base_dir).gaussians) == 300


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs"])
def test_every_option_that_a_page_names_is_there(page: str) -> None:
    files = sorted((ROOT / page).glob("*.md")) if page == "docs" else [ROOT / page]
    known = {field.name.replace("_", "-") for field in fields(DistilledModelConfig)} | {
        field.name.replace("_", "-") for field in fields(TeacherModelConfig)
    }
    for file in files:
        named = set(re.findall(r"--pipeline\.model\.([a-z0-9-]+)", file.read_text(encoding="utf8")))
        assert named <= known, file.name
