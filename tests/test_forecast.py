"""How long graphs take: the simulation against bounds, the formula against the simulation, the docs against both."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from campaign import Campaign, shortest
from graphs import graphs, job
from hypothesis import given
from hypothesis import strategies as st

from distilled_splat.jobs.forecast import makespan, simulated
from distilled_splat.jobs.graph import Job

SCALING = Path(__file__).parent.parent / "docs" / "scaling.md"


def scene_graph(scene: str, students: int) -> list[Job]:
    """Return the graph of one scene of a sweep."""
    teachers = [f"{scene} {kind}" for kind in ("standard", "perturbed", "dropout")]
    jobs = [job(name) for name in teachers]
    for student in range(students):
        jobs += [job(f"{scene} student {student}", *teachers)]
        jobs += [job(f"{scene} other {student}", f"{scene} student {student}")]
    return jobs


@pytest.mark.parametrize(("slots", "teachings"), [(1, 3), (2, 2), (3, 1), (8, 1)])
def test_three_teachers_on_three_slots_take_the_time_of_one(slots: int, teachings: int) -> None:
    jobs = scene_graph("a", 1)
    seconds = {job.name: 600.0 for job in jobs}
    times = simulated(jobs, seconds, slots)
    assert times["a student 0"][0] == teachings * 600
    assert makespan(times) == (teachings + 2) * 600


@given(graphs(), st.lists(st.integers(0, 50), min_size=9, max_size=9), st.integers(1, 5))
def test_a_simulated_schedule_obeys_needs_slots_and_bounds(jobs: list[Job], lengths: list[int], slots: int) -> None:
    seconds = {job.name: float(lengths[int(job.name)]) for job in jobs}
    times = simulated(jobs, seconds, slots)
    for each in jobs:
        begin, end = times[each.name]
        assert end - begin == seconds[each.name]
        assert all(times[need][1] <= begin for need in each.needs)
    for begin, _ in times.values():
        assert sum(first <= begin < last for first, last in times.values()) <= slots
    least = shortest(jobs, seconds, slots)
    assert least <= makespan(times) <= 2 * least + 1e-9


@given(graphs(), st.sets(st.integers(0, 8)))
def test_what_is_done_takes_no_time(jobs: list[Job], finished: set[int]) -> None:
    done = {f"{i}" for i in finished}
    times = simulated(jobs, {job.name: 1.0 for job in jobs}, 3, done)
    assert not set(times) & done
    assert makespan(simulated(jobs, {}, 3, [job.name for job in jobs])) == 0


@given(
    st.integers(1, 40), st.integers(1, 3), st.integers(1, 30),
    st.floats(1, 1000), st.floats(1, 1000), st.floats(0, 100), st.floats(0, 30),
)  # fmt: skip
def test_the_formula_encloses_the_simulation(
    scenes: int, students: int, slots: int, teacher: float, student: float, other: float, start: float
) -> None:
    campaign = Campaign(scenes, students, slots, teacher, student, other, start)
    jobs = [job for scene in range(scenes) for job in scene_graph(f"{scene}", students)]
    kinds = {"student": student, "other": other}
    seconds = {job.name: start + kinds.get(job.name.split()[1], teacher) for job in jobs}
    assert len(jobs) == campaign.jobs
    assert campaign.work_seconds == pytest.approx(sum(seconds.values()))
    assert campaign.least_seconds == pytest.approx(shortest(jobs, seconds, slots))
    time = makespan(simulated(jobs, seconds, slots))
    assert campaign.least_seconds * (1 - 1e-9) <= time <= campaign.most_seconds * (1 + 1e-9)


def test_the_docs_say_what_the_formula_says() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \|(.*)\|$", SCALING.read_text(encoding="utf8"), re.M)
    assert len(rows) >= 4
    for scenes, slots, teacher_minutes, cells in rows:
        minutes = float(teacher_minutes)
        campaign = Campaign(int(scenes), 3, int(slots), 60 * minutes, 60 * minutes)
        assert [cell.strip() for cell in cells.split("|")] == [
            f"{campaign.least_seconds / 3600:.1f}",
            f"{campaign.most_seconds / 3600:.1f}",
            f"{campaign.gigabytes / 1000:.1f}",
            f"{campaign.gigabytes_at_a_time / 1000:.1f}",
            f"{campaign.megabytes_per_second:.0f}",
            f"{replace(campaign, saves=6).megabytes_per_second:.0f}",
            f"{campaign.jobs_per_minute:.1f}",
        ]
