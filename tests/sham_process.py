"""Run checks on the sham CUDA device, which takes a whole process: see sham_cuda."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Optional

TESTS = Path(__file__).parent


def run_checks(*names: str, output: Optional[Path] = None) -> None:
    """Run tests/sham_cuda/check_<name>.py, all in one process of pytest with the sham device.

    Args:
        names: of the files.
        output: folder for what the checks write, to be looked at afterwards.

    Raises:
        AssertionError: with pytest's report, unless all tests in them ran and passed.
    """
    files = [str(TESTS / "sham_cuda" / f"check_{name}.py") for name in names]
    kept = [] if output is None else [f"--basetemp={output}"]
    command = [sys.executable, "-m", "pytest", "-p", "sham_cuda.plugin", "-p", "no:cacheprovider", *kept, *files]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    report = result.stdout + result.stderr
    summary = report.strip().splitlines()[-1] if report.strip() else ""
    passed = result.returncode == 0 and re.search(r"\d+ passed", summary) and "skipped" not in summary
    assert passed, report
