"""One display for all trainings of a command: lines elsewhere, bars on a terminal, and the time left for the whole."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from distilled_splat.jobs.graph import Job
from distilled_splat.runs.files import write_json
from distilled_splat.workflows import progress
from distilled_splat.workflows.progress import Progress, clock

TEACHERS = ("standard", "perturbed", "dropout")


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Three teachers and a student, a hundred steps each."""
    return [
        Job(name, (), tmp_path / name / "log", (tmp_path / name / "done").exists, needs, steps=100)
        for name, needs in [*((teacher, ()) for teacher in TEACHERS), ("student", TEACHERS)]
    ]


def report(job: Job, step: int, seconds_left: float | None, **more: float) -> None:
    """Write what a training writes of its progress."""
    content = {"step": step, "steps": 100, "seconds_left": seconds_left, "gaussians": 7, **more}
    write_json(job.log.parent / "progress.json", content)


def printed(monkeypatch: pytest.MonkeyPatch, terminal: bool = False) -> io.StringIO:
    """Have what is shown in a file, and the files read at each look."""
    file = io.StringIO()
    monkeypatch.setattr(progress, "CONSOLE", Console(file=file, force_terminal=terminal, width=120))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_READINGS", 0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_FORECASTS", 0)
    return file


def test_elsewhere_there_is_a_line_for_a_beginning_a_tenth_and_an_end(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = printed(monkeypatch)
    with Progress(jobs, slots=1) as shown:
        shown.begun(jobs[0])
        shown.look()
        for step in (1, 10, 11, 12, 50):
            report(jobs[0], step, 100 - step, psnr=20.04)
            shown.look()
        shown.ended(jobs[0], 0)
    assert file.getvalue().splitlines() == [
        f"standard: {jobs[0].log.parent}",
        "standard: step 10 of 100, 7 Gaussians, PSNR 20.0, 1:30 left; 6:30 left in total",
        "standard: step 50 of 100, 7 Gaussians, PSNR 20.0, 0:50 left; 5:50 left in total",
        "standard: done in 0:00",
    ]


def test_the_time_left_is_that_of_the_schedule(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    printed(monkeypatch)
    shown = Progress(jobs, slots=3)
    for job in jobs[:3]:
        shown.begun(job)
        report(job, 50, 100)
    shown.look()
    assert shown.left == 100 + 200
    for job in jobs[:3]:
        shown.ended(job, 0)
    assert shown.left == 200
    shown.begun(jobs[3])
    report(jobs[3], 90, 5)
    shown.look()
    assert shown.left == 5


def test_a_training_that_has_made_one_step_says_nothing_of_the_time_left(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = printed(monkeypatch)
    shown = Progress(jobs, slots=1)
    shown.begun(jobs[0])
    report(jobs[0], 41, None)
    shown.look()
    assert shown.left is None
    assert file.getvalue().splitlines()[-1] == "standard: step 41 of 100, 7 Gaussians"
    report(jobs[0], 60, 80)
    shown.ended(jobs[0], 0)
    assert shown.left == 600
    shown.begun(jobs[1])
    report(jobs[1], 75, None)
    shown.look()
    assert shown.left == 2 * 25 + 2 * 200


def test_what_an_earlier_attempt_reported_is_not_shown(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    file = printed(monkeypatch)
    report(jobs[0], 90, 1)
    os.utime(jobs[0].log.parent / "progress.json", (1, 1))
    shown = Progress(jobs, slots=1)
    shown.begun(jobs[0])
    shown.look()
    assert "step" not in file.getvalue() and shown.left is None


def test_a_report_at_the_tick_before_the_beginning_is_shown(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    printed(monkeypatch)
    shown = Progress(jobs, slots=1)
    shown.begun(jobs[0])
    report(jobs[0], 50, 50)
    tick = shown.begun_at[jobs[0].name] - 0.01
    os.utime(jobs[0].log.parent / "progress.json", (tick, tick))
    shown.look()
    assert shown.left == 350


def test_a_job_that_is_done_counts_from_the_start(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    printed(monkeypatch)
    for job in jobs[:2]:
        job.log.parent.mkdir()
        (job.log.parent / "done").touch()
    shown = Progress(jobs, slots=1)
    shown.begun(jobs[2])
    report(jobs[2], 20, 80)
    shown.look()
    assert shown.left == 180


def test_a_terminal_has_a_bar_for_what_runs_and_one_for_all(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    file = printed(monkeypatch, terminal=True)
    with Progress(jobs, slots=1) as shown:
        shown.begun(jobs[0])
        report(jobs[0], 50, 50, psnr=21.3)
        shown.look()
        shown.bars.refresh()
    words = file.getvalue()
    assert "step 50 of 100, 7 Gaussians, PSNR 21.3, 0:50 left" in words
    assert "0 of 4 done, 5:50 left" in words
    assert "left in total" not in words


def test_times_are_written_as_clocks_write_them() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 61, 3599.7, 7322)] == ["0:00", "1:00", "1:01", "1:00:00", "2:02:02"]
