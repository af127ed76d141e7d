"""docs/architecture.md is true: which subpackage imports from which, without import cycles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import distilled_splat

ROOT = Path(__file__).parents[1]
PACKAGE = Path(distilled_splat.__file__).parent
DOORS = ("__init__", "__main__")
"""Top-level modules that only re-export from the subpackages."""


def modules() -> dict[str, Path]:
    """Return all modules by their dotted names below the package; a subpackage's `__init__` has its name."""
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imported(path: Path) -> Iterator[str]:
    """Go through the full names of all that a module imports, wherever in it, symbols as `module.symbol`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} imports by a relative name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def uses() -> dict[str, set[str]]:
    """Return which of our modules each of our modules imports."""
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for full in imported(path):
            ours = full.removeprefix("distilled_splat.")
            if full.startswith("distilled_splat."):
                found[name].add(ours if ours in known else ours.rpartition(".")[0])
    return {name: {used for used in others if used and used != name} for name, others in found.items()}


def subpackage(module: str) -> str:
    return module.partition(".")[0]


def arrows() -> dict[str, set[str]]:
    """Return from which other subpackages each subpackage imports."""
    found: dict[str, set[str]] = {}
    for module, others in uses().items():
        if module not in DOORS:
            found.setdefault(subpackage(module), set()).update(
                subpackage(other) for other in others if subpackage(other) != subpackage(module)
            )
    return found


def table() -> dict[str, set[str]]:
    """Return the same from the page."""
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([\w, ]+) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    return {name: set() if allowed == "nothing" else set(allowed.split(", ")) for name, allowed in rows}


def test_subpackages_import_what_the_page_allows() -> None:
    assert arrows() == table()


def test_there_are_no_import_cycles() -> None:
    assert list(TopologicalSorter(table()).static_order())
    inner = {name: others for name, others in uses().items() if name not in DOORS}
    assert list(TopologicalSorter(inner).static_order())


def test_only_one_subpackage_imports_gsplat() -> None:
    """The reading of .ply and .spz files by gsply, another package, is none of this."""
    knowing = {
        subpackage(name) for name, path in modules().items() if any(re.match(r"gsplat\b", i) for i in imported(path))
    }
    assert knowing == {"ops"}


def test_every_module_has_a_docstring() -> None:
    for name, path in modules().items():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf8"))), f"{name} has no docstring"


def test_no_test_imports_from_another() -> None:
    """What several tests use has a module of its own."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert not any(name.startswith("test_") for name in imported(path)), path
