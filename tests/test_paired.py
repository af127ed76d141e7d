"""Differences photo by photo: by scipy's paired t test, in the comparison's words, in the benchmark's table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from distilled_splat.evaluation.compare import Comparison, Row, print_table
from distilled_splat.evaluation.paired import Difference, paired_difference, paired_differences
from distilled_splat.workflows.controls_report import differences_table, table, write_report

OURS, THEIRS = [31.0, 28.4, 30.1, 25.9, 33.3], [30.2, 28.5, 29.1, 25.2, 32.9]


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    found = paired_difference([OURS], [THEIRS])
    low, high = ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert found is not None and found.margin is not None and found.photos == 5
    assert (found.mean - found.margin, found.mean + found.margin) == pytest.approx((low, high))


def test_seeds_are_averaged_before_photos_are_compared() -> None:
    apart = [[value + 1 for value in OURS], [value - 1 for value in OURS]]
    found, expected = paired_difference(apart, [THEIRS] * 3), paired_difference([OURS], [THEIRS])
    assert found is not None and expected is not None
    assert (found.mean, found.margin) == pytest.approx((expected.mean, expected.margin))


def test_photos_that_are_hard_for_both_do_not_widen_the_interval() -> None:
    found = paired_difference([[20.5, 40.5, 30.5]], [[20.0, 40.0, 30.0]])
    assert found == Difference(0.5, 0.0, 3)


def test_a_photo_that_was_not_measured_is_left_out_and_one_photo_has_no_interval() -> None:
    assert paired_difference([[1.0, math.nan, 3.0]], [[0.5, 2.0, 2.5]]) == Difference(0.5, 0.0, 2)
    assert paired_difference([[1.0, math.nan]], [[0.5, 2.0]]) == Difference(0.5, None, 1)
    assert paired_difference([[math.nan]], [[2.0]]) is None


@pytest.mark.parametrize(("ours", "theirs"), [([], [[1.0]]), ([[1.0, 2.0]], [[1.0]]), ([[1.0], [1.0, 2.0]], [[1.0]])])
def test_other_photos_are_not_compared(ours: list[list[float]], theirs: list[list[float]]) -> None:
    assert paired_difference(ours, theirs) is None


def test_only_what_all_runs_have_is_compared() -> None:
    both = {"psnr": [1.0, 2.0], "lpips_vgg": [0.1, 0.2]}
    assert list(paired_differences([both], [both, {"psnr": [1.0, 1.0]}])) == ["psnr"]


def row(name: str, psnr: list[float], lpips_vgg: list[float]) -> Row:
    lpips = sum(lpips_vgg) / len(lpips_vgg) if lpips_vgg else None
    photos = {"psnr": psnr, "ssim": [0.9] * len(psnr), **({"lpips_vgg": lpips_vgg} if lpips_vgg else {})}
    return Row(name, 10, 0.1, sum(psnr) / len(psnr), 0.9, None, lpips_vgg=lpips, photos=photos)


def printed(comparison: Comparison) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w", encoding="utf8"))  # noqa: SIM115
    print_table(comparison, console)
    return console.export_text()


def test_a_comparison_names_the_net_and_says_what_the_student_has_over_its_standard_teacher() -> None:
    rows = [row("dropout teacher", THEIRS, [0.3] * 5), row("standard teacher", THEIRS, [0.25] * 5)]
    student = row("student", OURS, [0.2, 0.2, 0.2, 0.2, 0.25])
    words = printed(Comparison([*rows, student], [], standard="standard teacher"))
    low, high = ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert "LPIPS (VGG)" in words and "0.3000" in words and "0.2100" in words
    expected = f"student minus standard teacher: PSNR {(low + high) / 2:+.2f} ± {(high - low) / 2:.2f}, SSIM +0.0000"
    assert expected in words and "LPIPS (VGG) -0.0400 ± 0.0278 (mean and 95 % interval over 5 photos)" in words


def test_a_comparison_without_lpips_has_no_such_column_but_the_reason() -> None:
    words = printed(Comparison([row("student", OURS, [])], [], notes=["LPIPS (VGG) is left out: because."]))
    assert words.count("LPIPS") == 1 and words.endswith("\nLPIPS (VGG) is left out: because.\n")
    assert "minus" not in words


def result(row: str, fraction: float | None, seed: int, photos: dict[str, list[float]] | None) -> dict[str, Any]:
    found = {
        "scene": "fox", "row": row, "fraction": fraction, "seed": seed, "gaussians": 1000, "megabytes": 0.248,
        "psnr": 30.0, "ssim": 0.9, "seconds": 60.0,
    }  # fmt: skip
    return found if photos is None else {**found, "photos": photos, "lpips_vgg": 0.21}


RESULTS = [
    result("standard teacher", None, 0, {"psnr": THEIRS, "lpips_vgg": [0.2] * 5}),
    result("no labels, from the standard teacher", 0.12, 0, {"psnr": OURS}),
    result("our default", 0.12, 0, {"psnr": [value + 1 for value in OURS], "lpips_vgg": [0.1] * 5}),
    result("our default", 0.12, 1, {"psnr": [value + 2 for value in OURS], "lpips_vgg": [0.1] * 5}),
    result("paper: grid 32", 0.12, 0, {"psnr": OURS}),
    result("paper: without labels and structural loss", 0.12, 0, {"psnr": [value - 1 for value in OURS]}),
    result("three kinds", 0.12, 0, None),
]


def test_the_benchmark_has_each_row_minus_its_control_and_minus_the_teacher() -> None:
    head, _, *lines = differences_table(RESULTS).splitlines()
    assert head == "| scene | size | row | minus | PSNR | LPIPS (VGG) | photos |"
    found = {tuple(line.split(" | ")[2:4]): line.split(" | ")[4:] for line in lines}
    assert found["our default", "no labels, from the standard teacher"] == ["+1.50 ± 0.00", "", "5 |"]
    assert found["our default", "standard teacher"][0].startswith("+2.06 ±")
    assert found["our default", "standard teacher"][1] == "-0.1000 ± 0.0000"
    assert found["paper: grid 32", "paper: without labels and structural loss"][0] == "+1.00 ± 0.00"
    assert ("no labels, from the standard teacher", "standard teacher") in found
    assert len(lines) == 6 and not any("three kinds" in line for line in lines)


def test_results_without_photos_stay_in_the_first_table(tmp_path: Path) -> None:
    old = [{name: value for name, value in one.items() if name not in ("photos", "lpips_vgg")} for one in RESULTS]
    assert differences_table(old) == "" and "LPIPS" not in table(old)
    write_report(tmp_path, RESULTS)
    content = (tmp_path / "table.md").read_text(encoding="utf8")
    assert content == f"{table(RESULTS)}\n{differences_table(RESULTS)}"
    assert "| SSIM | LPIPS (VGG) | depth error" in content and "| 0.2100 ± 0.0000 |" in content
