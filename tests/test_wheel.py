"""The wheel, installed beside nerfstudio without this folder: it has all its files, and trains."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without this folder on its path, and return what it says."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of what is in the repository."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "distilled_splat", source / "distilled_splat", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", ".", "-w", "wheel", cwd=source)
    (built,) = (source / "wheel").glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_has_every_file(wheel: Path) -> None:
    kinds = (".py", ".typed", ".jinja", ".js", ".gz", ".md", ".txt")
    files = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "distilled_splat").rglob("*") if path.suffix in kinds
    }
    files |= {"distilled_splat/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == files


@pytest.mark.slow
def test_the_wheel_trains_beside_nerfstudio(
    wheel: Path, scene: Path, teachers: tuple[Path, ...], tmp_path: Path
) -> None:
    """The environment is a new one that sees this one's packages, but not our own, whose place only this one knows."""
    python = tmp_path / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "environment", cwd=tmp_path)
    place = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (place / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-warn-conflicts")
    run(*pip, "--target", place, wheel, cwd=tmp_path)
    found = run(python, "-c", "import distilled_splat; print(distilled_splat.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(place)
    run(
        python, "-m", "nerfstudio.scripts.train", "distilled-splatfacto", "--data", scene, "--output-dir", "out",
        "--max-num-iterations", "10", "--vis", "tensorboard", "--pipeline.model.teachers", teachers[0],
        "--pipeline.model.min-teacher-psnr", "1", "nerfstudio-data", "--eval-mode", "interval", "--eval-interval", "4",
        cwd=tmp_path,
    )  # fmt: skip
    (record,) = tmp_path.glob("out/scene/distilled-splatfacto/*/distilled_splat.json")
    assert json.loads(record.read_text())["finished"] is True
    assert (record.parent / "report.html").exists()
