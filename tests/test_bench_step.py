"""The step benchmark times trainings as they are; here that it counts every step and every stage once."""

from __future__ import annotations

import pytest

from distilled_splat.benchmarks.captures import untouched_parser, write_capture
from distilled_splat.benchmarks.step_times import (
    WITH_PHOTO,
    WITHOUT_PHOTO,
    StepTimes,
    exponents,
    median_of,
    side_by_side,
)
from distilled_splat.benchmarks.training import time_training
from distilled_splat.benchmarks.workload import random_scene

STEPS = 12


def times_of(scene: str, kind: str, gaussians: int, width: int, whole: float) -> StepTimes:
    return StepTimes(kind, scene, gaussians, width, 10, {"whole step": whole}, 0.0)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StepTimes]:
    """A plain training, a student of it, and one with the stock loss and Adam, of 300 Gaussians at 64 x 48."""
    output = tmp_path_factory.mktemp("bench")
    gaussians = write_capture(random_scene(300, 64, 48), 64, 48, output / "capture")
    parser = untouched_parser(output / "capture")
    plain, start = time_training("ours", "random", parser, lambda model: gaussians, output / "ours", STEPS)
    student, _ = time_training(
        "student", "random", parser, lambda model: gaussians, output / "student", STEPS, teachers=(start,) * 3
    )
    stock, _ = time_training("torch", "random", parser, lambda model: gaussians, output / "torch", STEPS)
    return {times.kind: times for times in (*plain, *student, *stock)}


def test_every_kind_of_step_is_timed(timed: dict[str, StepTimes]) -> None:
    assert list(timed) == ["ours", WITH_PHOTO, WITHOUT_PHOTO, "torch"]
    for times in timed.values():
        assert (times.gaussians, times.width, times.height) == (300, 64, 48)


@pytest.mark.parametrize("kind", ["ours", WITH_PHOTO, WITHOUT_PHOTO, "torch"])
def test_stages_are_parts_of_the_step(timed: dict[str, StepTimes], kind: str) -> None:
    stages = {name: value for name, value in timed[kind].milliseconds.items() if name not in ("rest", "whole step")}
    assert timed[kind].whole > 0
    for name, milliseconds in stages.items():
        gathers_none = name == "statistics" and kind in (WITH_PHOTO, WITHOUT_PHOTO)
        assert (milliseconds == 0) if gathers_none else (0 < milliseconds < timed[kind].whole), name


def test_exponents_of_known_growth() -> None:
    steps = [
        times_of("fox", "ours", count, width, 1e-3 * count * width**0.5) for count in (10, 50) for width in (20, 80)
    ]
    found = exponents([*steps, times_of("random", "ours", 10, 20, 99.0), times_of("fox", "torch", 10, 20, 99.0)])
    assert found == pytest.approx(
        {
            "exponent by Gaussians, 20x10": 1.0,
            "exponent by Gaussians, 80x10": 1.0,
            "exponent by pixels, 10 Gaussians": 0.5,
            "exponent by pixels, 50 Gaussians": 0.5,
        }
    )


def test_students_mean_step_is_that_of_its_mixture() -> None:
    steps = [
        times_of("fox", "ours", 10, 20, 10.0),
        times_of("fox", WITH_PHOTO, 10, 20, 12.0),
        times_of("fox", WITHOUT_PHOTO, 10, 20, 9.0),
        times_of("fox", "torch", 10, 20, 50.0),
        times_of("fox", "ours", 10, 40, 20.0),
        times_of("fox", WITH_PHOTO, 10, 40, 30.0),
        times_of("fox", WITHOUT_PHOTO, 10, 40, 20.0),
    ]
    rows = side_by_side(steps)
    assert [(row.width, row.plain, row.student, row.stock) for row in rows] == [
        (20, 10.0, 10.5, 50.0),
        (40, 20.0, 25.0, None),
    ]


def test_of_several_processes_the_median_counts_in_each_stage() -> None:
    times = [times_of("fox", "ours", 10, 20, whole) for whole in (30.0, 10.0, 12.0)]
    assert median_of(times).whole == 12.0
    assert median_of(times[:2]).whole == 20.0 and median_of(times[:1]) == times[0]
