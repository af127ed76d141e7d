"""What several test files share: a tiny scene, and three hardly trained teachers of it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import NO_BROWSER

SPLAT_FILES = Path(os.environ.get("SPLAT_FILES", Path(__file__).parents[2] / "shared" / "data" / "splats"))
"""Files of other programs, which are not part of the project. Where they are not, the tests of them are left out."""
collect_ignore = [] if SPLAT_FILES.is_dir() else ["test_brought_files.py"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say so where files of other programs are not there."""
    if not SPLAT_FILES.is_dir():
        terminalreporter.write_line("test_brought_files.py is left out: set SPLAT_FILES to the folder of its files.")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what CI asks for: see CONTRIBUTING.md."""
    parser.addoption("--fail-on-skip", action="store_true", help="a test that is skipped fails")
    parser.addoption("--without-browser", action="store_true", help="but for those that need a browser")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Look whether the test is skipped."""
    return without_silence((yield), item)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """Look whether a whole file is skipped."""
    return without_silence((yield), collector)


def without_silence(report: Any, node: Any) -> Any:
    """Turn a skip into a failure where `--fail-on-skip` is given, so that nothing is left out in silence."""
    if report.skipped and node.config.getoption("--fail-on-skip") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not (NO_BROWSER in reason and node.config.getoption("--without-browser")):
            report.outcome, report.longrepr = "failed", f"{node.nodeid} is skipped: {reason}"
    return report


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos of 64 x 48 pixels and 400 points."""
    from distilled_splat.demo.scene import make_scene

    return make_scene(tmp_path_factory.mktemp("data") / "scene", views=12, width=64, height=48, points=400)


@pytest.fixture(scope="session")
def teachers(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The run folders of a standard, a perturbed and a dropout teacher, twelve steps each."""
    from tiny import tiny_teacher

    from distilled_splat.teachers.kinds import VARIANTS

    output = tmp_path_factory.mktemp("teachers")
    runs = []
    for variant in VARIANTS:
        trainer = tiny_teacher(scene, output / variant, iterations=12, variant=variant)
        runs.append(trainer.base_dir)
    return tuple(runs)


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[str]:
    """The address of a Ray cluster of two nodes with one processor each."""
    pytest.importorskip("ray", reason='Ray is not installed: pip install "distilled-splat[ray]"')
    from ray.cluster_utils import Cluster

    def started(attempts: int = 5) -> Cluster:
        nodes = Cluster()
        try:
            nodes.add_node(num_cpus=1, include_dashboard=False)
            nodes.add_node(num_cpus=1)
        except Exception:  # Ray gives a node half a minute to start, which is little on a busy machine
            nodes.shutdown()
            if attempts == 1:
                raise
            return started(attempts - 1)
        return nodes

    nodes = started()
    yield str(nodes.address)
    nodes.shutdown()
