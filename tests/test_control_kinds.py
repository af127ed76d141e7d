"""The rows of the quality benchmark: what they train is what their names say."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tyro

from distilled_splat.methods import distilled_splatfacto, distilled_splatfacto_paper, splatfacto_teacher
from distilled_splat.runs.fingerprints import settings_of
from distilled_splat.workflows.control_kinds import (
    ALL_ROWS,
    KINDS,
    PAPER,
    PAPER_ABLATION,
    ROWS,
    STOCK,
    STOCK_OPTIONS,
    STUDENT,
    TEACHER,
    TEACHERS,
    THREE_KINDS,
    teachers_for,
    wanted_rows,
)
from distilled_splat.workflows.controls import slug

METHODS = {STUDENT: distilled_splatfacto, PAPER: distilled_splatfacto_paper, TEACHER: splatfacto_teacher}


def parsed(method: str, *options: str) -> Any:
    """Return the config that ns-train makes of these options."""
    config = METHODS[method].config
    return tyro.cli(type(config), default=copy.deepcopy(config), args=list(options))


def changes(method: str, *options: str) -> dict[str, Any]:
    """Return what options change in the model's config of a method."""
    return settings_of(parsed(method, *options)).get("pipeline", {}).get("model", {})


def paper(change: str) -> Any:
    return next(kind for kind in PAPER_ABLATION if kind.row == f"paper: {change}")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("without labels", {"lambda_kd": 0.0}),
        ("without the structural loss", {"lambda_structure": 0.0}),
        ("without labels and structural loss", {"lambda_kd": 0.0, "lambda_structure": 0.0}),
        ("grid 32", {"structure_resolutions": [32]}),
        ("grid 256", {"structure_resolutions": [256]}),
        ("without the dropout teacher", {}),
    ],
)
def test_a_row_of_the_papers_ablation_changes_what_it_names_and_nothing_else(row: str, expected: dict) -> None:
    kind = paper(row)
    assert kind.method == PAPER and changes(PAPER, *kind.options) == expected


def test_every_row_can_be_trained() -> None:
    for kind in (*KINDS, *PAPER_ABLATION):
        parsed(kind.method, *kind.options).pipeline.model.check()


@pytest.mark.parametrize(
    ("row", "teachers"),
    [
        ("without the standard teacher", ["dropout", "perturbed"]),
        ("without the perturbed teacher", ["dropout", "standard"]),
        ("without the dropout teacher", ["perturbed", "standard"]),
        ("one perturbed teacher", ["perturbed"]),
        ("three perturbed teachers", ["perturbed", "perturbed 2", "perturbed 3"]),
        ("three dropout teachers", ["dropout", "dropout 2", "dropout 3"]),
        ("grid 64", ["dropout", "perturbed", "standard"]),
    ],
)
def test_a_row_has_the_teachers_that_it_names(row: str, teachers: list[str]) -> None:
    assert sorted(paper(row).teachers) == teachers


def test_only_the_teachers_that_the_rows_need_are_trained() -> None:
    assert teachers_for([]) == THREE_KINDS
    assert teachers_for([paper("one dropout teacher"), paper("grid 32")]) == THREE_KINDS
    assert set(teachers_for([paper("three dropout teachers")])) == {*THREE_KINDS, "dropout 2", "dropout 3"}
    assert set(teachers_for((*KINDS, *PAPER_ABLATION))) == set(TEACHERS)


def test_teachers_keep_the_seeds_that_runs_on_disk_were_trained_with() -> None:
    assert TEACHERS[:5] == ("standard", "perturbed", "dropout", "standard 2", "standard 3")


def test_stock_is_splatfacto_with_its_own_settings() -> None:
    from nerfstudio.models.splatfacto import SplatfactoModelConfig

    config, stock = parsed(TEACHER, *STOCK_OPTIONS, "--pipeline.model.schedule-length", "3000"), SplatfactoModelConfig()
    for name, value in vars(stock).items():
        if name not in ("_target", "camera_optimizer", "loss_coefficients"):
            assert getattr(config.pipeline.model, name) == value, name


def test_rows_are_wanted_by_name_or_pattern() -> None:
    assert wanted_rows(()) == ROWS and not any(row.startswith("paper: ") for row in ROWS)
    assert wanted_rows(("paper: grid *", STOCK)) == (STOCK, "paper: grid 32", "paper: grid 64", "paper: grid 256")
    assert set(wanted_rows(("*",))) == set(ALL_ROWS)


@pytest.mark.parametrize("pattern", ["paper: grid 48", "Paper: *", ""])
def test_a_pattern_without_a_row_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="There is no row"):
        wanted_rows(("our default", pattern))


def test_every_row_and_every_teacher_has_a_folder_of_its_own() -> None:
    assert len({slug(row) for row in ALL_ROWS}) == len(ALL_ROWS)
    assert len({slug(name) for name in TEACHERS}) == len(TEACHERS)
