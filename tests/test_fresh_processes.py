"""What works in a process that has loaded nothing yet: every module, every subcommand, and the docs' commands."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pages import commands
from tiny import tiny_student, trained

import distilled_splat

PACKAGE = Path(__file__).parents[1] / "distilled_splat"
SUBCOMMANDS = (
    "compare",
    "export",
    "report",
    "sweep",
    "demo",
    "doctor",
    "shrink",
    "info",
    "bench step",
    "bench quality",
    "bench shrink",
)
WITH_A_RUN = ("compare", "export", "report")

FIRST_IMPORTS = """
import importlib, os, sys
import distilled_splat.evaluation.report, distilled_splat.workflows.distill
for name in sys.argv[1:]:
    if os.fork() == 0:
        for loaded in [name for name in sys.modules if name.partition(".")[0] in ("distilled_splat", "nerfstudio")]:
            del sys.modules[loaded]
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"{name}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    os.wait()
"""
"""Imports each module in a child that has third-party modules only: only the order of nerfstudio's own matters."""


def run(*words: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `distilled-splat` as a process of its own."""
    command = [sys.executable, "-m", "distilled_splat", *map(str, words)]
    path = os.pathsep.join([f"{PACKAGE.parent}", os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, env=environment
    )


def test_every_module_can_be_the_first_that_is_imported() -> None:
    """A module that imports nothing of nerfstudio's itself meets it by way of those that do."""
    sources = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    names = [name for name, path in sources.items() if re.search(r"^(from|import) nerfstudio", path.read_text(), re.M)]
    assert len(names) > 10
    done = subprocess.run([sys.executable, "-c", FIRST_IMPORTS, *names], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


MOVED_IMPORT = """
import nerfstudio.models.splatfacto
import nerfstudio.model_components.lib_bilagrid as moved
del moved.total_variation_loss
from nerfstudio.configs.method_configs import method_configs
print(sorted(name for name in method_configs if name in ("splatfacto", "splatfacto-teacher", "distilled-splatfacto")))
"""
"""What nerfstudio's commands do first, beside a nerfstudio that has moved a function that we use."""


def test_a_nerfstudio_that_we_do_not_fit_keeps_its_own_methods() -> None:
    done = subprocess.run([sys.executable, "-c", MOVED_IMPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("distilled-splat's methods are left out") == 1
    assert "total_variation_loss" in done.stdout and "install a newer distilled-splat" in done.stdout
    assert done.stdout.splitlines()[-1] == "['splatfacto']"


@pytest.mark.slow
def test_every_subcommand_has_its_help() -> None:
    with ThreadPoolExecutor(2) as pool:
        for name, done in zip(SUBCOMMANDS, pool.map(lambda name: run(*name.split(), "--help"), SUBCOMMANDS)):
            assert done.returncode == 0 and f"usage: distilled-splat {name}" in done.stdout, done.stderr


def test_the_command_says_what_it_is_for_and_its_version() -> None:
    assert "Make small Gaussian splats as good as big ones" in run("--help").stdout
    assert run("--version").stdout == f"distilled-splat {distilled_splat.__version__}\n"


@pytest.mark.slow
def test_commands_of_the_docs_do_their_work(scene: Path, teachers: tuple[Path, ...], tmp_path: Path) -> None:
    """Of each subcommand that takes a finished run the first, and the sweep that only lists its jobs."""
    student = trained(tiny_student(scene, tmp_path / "student", teachers, num_gaussians=300)).base_dir
    lines = [list(item.values[0]) for item in commands()]
    ours = [words[1:] for words in lines if words[0] == "distilled-splat"]
    asked = [next(words for words in ours if words[0] == name) for name in WITH_A_RUN]
    asked += [words for words in ours if "--dry-run" in words]
    for words in asked[: len(WITH_A_RUN)]:
        place = tmp_path / words[words.index("--load-config") + 1]
        if not place.exists():
            shutil.copytree(student, place.parent)
            (place.parent / "report.html").unlink()
    shutil.copytree(scene, tmp_path / "captures" / "one")

    def done(words: list[str]) -> subprocess.CompletedProcess[str]:
        arguments = [path for word in words for path in glob.glob(word, root_dir=tmp_path) or [word]]
        return run(*arguments, folder=tmp_path)

    with ThreadPoolExecutor(2) as pool:
        compared, exported, reported, swept = pool.map(done, asked)
    for process in (compared, exported, reported, swept):
        assert process.returncode == 0, process.stderr
    assert "mean of teachers" in compared.stdout and "splat.ply" in exported.stdout
    assert next(tmp_path.glob("outputs/*/*/*/report.html")).stat().st_size > 1000
    assert "Report: " in reported.stdout and "9 jobs, 9 to run" in swept.stdout
