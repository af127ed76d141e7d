"""`--minutes`: views and steps that fit into a time, by what a step takes here."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from solids import solid, sphere

from distilled_splat.ops.space import sphere_directions
from distilled_splat.runs.record import RECORD_NAME, read_record
from distilled_splat.shrink.budget import (
    FEWEST_STEPS,
    FEWEST_VIEWS,
    MOST_STEPS,
    START,
    Paces,
    TooLittleTime,
    choose_work,
    measure_paces,
    thinned,
)
from distilled_splat.shrink.invented_cameras import looking
from distilled_splat.shrink.shrinking import Shrinking
from distilled_splat.shrink.viewpoints import invented_views
from distilled_splat.splat.formats import FORMATS

PACES = Paces(start=20.0, picture=0.02, step=0.06, growth=0.4, original=60_000)


def total(paces: Paces, counts: list[int], views: int, iterations: int) -> float:
    return paces.of_all(counts) + views * paces.of_views(counts) + iterations * paces.of_steps(counts)


@given(
    st.floats(1, 1e5), st.floats(1e-3, 1.0), st.floats(0, 1), st.integers(2, 1000),
    st.lists(st.integers(10, 59_999), min_size=1, max_size=4).map(lambda counts: sorted(counts, reverse=True)),
)  # fmt: skip
def test_what_is_chosen_fits_and_leaves_little_time(
    seconds: float, step: float, growth: float, views: int, counts: list[int]
) -> None:
    paces = Paces(10.0, step / 3, step, growth, 60_000)
    try:
        choice = choose_work(paces, seconds, counts, views)
    except TooLittleTime as error:
        least = total(paces, counts, min(views, FEWEST_VIEWS), FEWEST_STEPS)
        assert error.missing > 0 and seconds + error.missing >= least * (1 - 1e-6)
        choose_work(paces, (seconds + error.missing) * 1.001, counts, views)
        return
    assert min(views, FEWEST_VIEWS) <= choice.views <= views and FEWEST_STEPS <= choice.iterations <= MOST_STEPS
    took = total(paces, counts, choice.views, choice.iterations)
    assert took <= seconds * (1 + 1e-6)
    assert took > 0.85 * seconds or (choice.iterations == MOST_STEPS and choice.views == views)


def test_more_time_is_more_of_both() -> None:
    choices = [choose_work(PACES, seconds, [6000], 200) for seconds in (60, 120, 300, 1200)]
    assert sorted(choice.views for choice in choices) == [choice.views for choice in choices]
    steps = [choice.iterations for choice in choices]
    assert sorted(steps) == steps and steps[-1] > 5 * steps[0] and choices[-1].views == 200


def test_a_step_with_more_gaussians_takes_longer_by_what_was_measured() -> None:
    assert PACES.step_of(60_000) == 0.06 and PACES.step_of(6_000) == pytest.approx(0.06 * 0.1**0.4)
    assert PACES.of_steps([6000]) < PACES.of_steps([30000]) < 0.06
    both, one, other = (PACES.of_steps(counts) for counts in ([6000, 3000], [6000], [3000]))
    assert one < both < one + other  # the smaller one starts with the larger one
    assert PACES.of_views([6000, 3000]) < PACES.of_views([6000]) + PACES.of_views([3000])


def test_steps_are_measured() -> None:
    ball = sphere(4000)
    views = [looking(3 * side, -side, torch.tensor([0.0, 0.0, 1.0]), 64, 48, 60.0) for side in sphere_directions(9)]
    paces = measure_paces(ball, views, 400, 7.0)
    assert paces.start == 7 * START and paces.original == 4000 and 0 < paces.picture < paces.step and paces.growth >= 0
    few = thinned(ball, 400)
    assert len(few) == 400
    areas = [float(torch.exp(2 * splat.log_scales[:, 0]).sum()) for splat in (ball, few)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-3)


@pytest.mark.slow
def test_the_command_keeps_what_it_has_chosen(tmp_path: Path) -> None:
    (tmp_path / "big.ply").write_bytes(FORMATS["ply"].encode(solid(900)))

    def shrink(minutes: str) -> subprocess.CompletedProcess[str]:
        words = [str(Path(sys.executable).parent / "distilled-splat"), "shrink", "big.ply", "--output", "small.ply",
                 "--num-gaussians", "200", "--views", "30", "--minutes", minutes, "--keep-work"]  # fmt: skip
        return subprocess.run(
            words, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )

    little = shrink("0.01")
    assert little.returncode == 1 and "Traceback" not in little.stdout
    found = re.search(r"--minutes 0.01 is too short .* give at least ([\d.]*\d)", " ".join(little.stdout.split()))
    assert found and float(found[1]) > 0.01 and not (tmp_path / "small.ply").exists()
    (work,) = (tmp_path / ".small.ply.work").iterdir()
    (work / RECORD_NAME).write_text(json.dumps({"choices": {"30 minutes for [200]": [25, 20]}}))
    begun = shrink("30")
    assert begun.returncode == 0 and "Within 30 minutes: 20 steps on 25 of the 30 views" in begun.stdout, begun.stdout
    assert "Reusing the views" in begun.stdout and (work / "runs/capture-25/distilled-splatfacto").is_dir()
    meta = json.loads((work / "capture-25" / "transforms.json").read_text())
    assert len(meta["train_filenames"]) == 25


def test_a_choice_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "big.ply").write_bytes(FORMATS["ply"].encode(solid(900)))
    console = Console(file=io.StringIO(), soft_wrap=True)
    job = Shrinking((tmp_path / "big.ply",), tmp_path / "small.ply", FORMATS["ply"], 3, console)
    job.began, job.beginning = time.time(), 1.0  # not those of the tests' own process
    views = invented_views(job.original, 30, 0)
    first = job.choice(tmp_path, views, [200], 60.0)
    assert first.iterations > FEWEST_STEPS and first.views == len(views.train)
    assert read_record(tmp_path)["choices"] == {"60 minutes for [200]": [first.views, first.iterations]}
    job.began -= 1800
    assert job.choice(tmp_path, views, [200], 60.0) == first
    other = job.choice(tmp_path, views, [300], 40.0)
    assert len(read_record(tmp_path)["choices"]) == 2 and other.iterations <= first.iterations
    assert views.fewer(10).test == views.test and len(views.fewer(10).train) == 10


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_what_is_not_a_time_is_one_sentence(tmp_path: Path, minutes: str) -> None:
    words = [str(Path(sys.executable).parent / "distilled-splat"), "shrink", str(tmp_path / "big.ply"),
             f"--minutes={minutes}"]  # fmt: skip
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 1 and "is invalid" in " ".join(done.stdout.split()) and "Traceback" not in done.stdout
