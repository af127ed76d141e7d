"""What a process imports before it works: seconds that somebody waits for in each command, nerfstudio's too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from exports import cloud, write_ply

HEAVY = ("cv2", "gsplat", "jinja2", "matplotlib", "nerfstudio", "numba", "numpy", "open3d", "ray", "scipy", "torch",
         "torchvision", "wandb")  # fmt: skip
WITH_NERFSTUDIO = ("matplotlib.pyplot", "nerfstudio.configs.method_configs", "numba", "open3d", "ray", "wandb")


def imported(code: str, *arguments: str | Path) -> set[str]:
    """Return the modules that a new process has after some code, whatever else it prints."""
    tell = "\nimport json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-W", "ignore", "-c", code + tell, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_command_line_needs_none_of_the_large_packages() -> None:
    """`distilled-splat --help`, and the faults of a command line."""
    assert not imported("import distilled_splat.cli") & set(HEAVY)


def test_looking_into_a_file_needs_torch_and_no_nerfstudio(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['distilled-splat', 'info', sys.argv[1]]; from distilled_splat.cli import main; main()"
    )
    found = imported(code, write_ply(tmp_path / "a.ply", cloud()))
    assert "torch" in found and not found & {"nerfstudio", "torchvision", "numba", "gsplat", "scipy", "matplotlib"}


def test_methods_cost_other_methods_no_package_that_nerfstudio_would_not_import() -> None:
    """Every ns-* command imports ours, whatever it trains."""
    code = (
        "import ast, importlib.util, pathlib, sys\n"
        "path = importlib.util.find_spec('nerfstudio.configs.method_configs').origin\n"
        "for part in ast.parse(pathlib.Path(path).read_text()).body:\n"
        "    if isinstance(part, ast.ImportFrom) and part.module != '__future__':\n"
        "        importlib.import_module(part.module)\n"
        "before = set(sys.modules)\n"
        "import distilled_splat.methods\n"
        "assert distilled_splat.methods.distilled_splatfacto is not None\n"
        "added = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "assert added <= {'distilled_splat', 'nerfstudio', 'plyfile', 'psutil'}, added\n"
    )
    assert not imported(code) & {"numba", "open3d", "ray"}


def test_a_training_of_ours_imports_no_other_methods() -> None:
    """Nor the command line of all of them, whose registry takes as long as torch."""
    found = imported("import distilled_splat.workflows.train")
    assert "nerfstudio.models.splatfacto" in found and not found & set(WITH_NERFSTUDIO)
