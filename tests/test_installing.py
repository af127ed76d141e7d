"""The table of platforms in docs/install.md: for each there is, or is not, a set of packages that fit each other.

A resolver is asked for what another machine would get. It needs an index; without one these tests are skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from pages import ROOT

PLATFORMS = {
    "Linux, x86-64": "x86_64-manylinux_2_{glibc}",
    "Linux, ARM (aarch64)": "aarch64-manylinux_2_{glibc}",
    "macOS, Apple silicon": "aarch64-apple-darwin",
    "macOS, Intel": "x86_64-apple-darwin",
    "Windows, x86-64": "x86_64-pc-windows-msvc",
}
"""What the resolver calls the rows."""
COMPILED = ("pyliblzfse", "xatlas")
"""What is compiled where it is installed; of everything else there must be a wheel."""
ASKED = {("Linux, x86-64", "3.10"), ("Linux, ARM (aarch64)", "3.12"), ("macOS, Apple silicon", "3.11"),
         ("macOS, Intel", "3.11"), ("Windows, x86-64", "3.12")}  # fmt: skip
"""The cells that every run of the tests asks for; the variable ALL_PLATFORMS asks for all."""
NO_ANSWER = ("Failed to fetch", "error sending request", "network was disabled")


def cells() -> list[tuple[str, str, str, str]]:
    """Return platform, oldest system, Python and what the table says of them."""
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf8")
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line]
    head, _, *rows = table[: 2 + len(PLATFORMS)]
    pythons = [name.removeprefix("Python ") for name in head[2:]]
    return [(row[0], row[1], python, said) for row in rows for python, said in zip(pythons, row[2:])]


def triple(platform: str, oldest: str, python: str) -> str:
    """Return the resolver's name of a platform, with the oldest glibc that a row of the table allows for a Python."""
    versions = re.search(rf"2\.(\d+) for Python {re.escape(python)}", oldest) or re.search(r"glibc 2\.(\d+)", oldest)
    return PLATFORMS[platform].format(glibc=versions[1] if versions else "")


def test_the_table_has_every_platform() -> None:
    assert {platform for platform, *_ in cells()} == set(PLATFORMS)
    assert len(cells()) == 3 * len(PLATFORMS) and {said for *_, said in cells()} <= {"runs", "untested", "no"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "oldest", "python", "said"),
    [cell for cell in cells() if "ALL_PLATFORMS" in os.environ or (cell[0], cell[2]) in ASKED],
)
def test_a_resolver_finds_what_the_table_says(platform: str, oldest: str, python: str, said: str) -> None:
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-config",
        "--python-platform", triple(platform, oldest, python), "--python-version", python,
        "--only-binary", ":all:", *(word for name in COMPILED for word in ("--no-binary", name)),
    ]  # fmt: skip
    macos = re.search(r"macOS (\d+)", oldest)
    environment = {**os.environ, **({"MACOSX_DEPLOYMENT_TARGET": f"{macos[1]}.0"} if macos else {})}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if any(words in done.stderr for words in NO_ANSWER):
        pytest.skip(f"no package index answers: {done.stderr.strip().splitlines()[-1]}")
    assert (done.returncode == 0) == (said != "no"), done.stderr
    if said == "no":
        assert "torch>=2.6" in done.stderr
    else:
        assert "nerfstudio==1.1.5" in done.stdout
