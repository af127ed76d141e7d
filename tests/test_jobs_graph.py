"""The graph of jobs and its schedule: orders, failures and what need not run, on random graphs."""

from __future__ import annotations

import random

import pytest
from graphs import graphs, job
from hypothesis import given
from hypothesis import strategies as st

from distilled_splat.jobs.graph import Job, Schedule, State, in_order, unnecessary


def all_needs(jobs: list[Job], name: str, skipped: set[str]) -> set[str]:
    """Return all that a job needs, directly or not, by following the needs of those that are not skipped."""
    by_name = {job.name: job for job in jobs}
    found: set[str] = set()
    front = [name]
    while front:
        for need in by_name[front.pop()].needs:
            if need not in found | skipped:
                found.add(need)
                front.append(need)
    return found


@given(graphs())
def test_an_order_puts_needs_first_and_else_keeps_what_was_given(jobs: list[Job]) -> None:
    ordered = in_order(jobs)
    assert sorted(job.name for job in ordered) == sorted(job.name for job in jobs)
    seen: set[str] = set()
    for place, each in enumerate(ordered):
        assert set(each.needs) <= seen
        free = [other for other in jobs if other not in ordered[:place] and set(other.needs) <= seen]
        assert each is free[0]
        seen.add(each.name)


@given(graphs(), st.sets(st.integers(0, 8)), st.sets(st.integers(0, 8)), st.booleans(), st.randoms())
def test_a_schedule_begins_what_can_be_begun_and_a_failure_stops_what_depends_on_it(
    jobs: list[Job], failing: set[int], finished: set[int], keep_going: bool, chance: random.Random
) -> None:
    done = {f"{i}" for i in finished} & {job.name for job in jobs}
    fails = {f"{i}" for i in failing}
    skipped = unnecessary(jobs, done)
    schedule = Schedule(jobs, done, keep_going)
    succeeded, failed, running = set(skipped), set(), []
    while True:
        while (following := schedule.next_job()) is not None:
            assert following.name not in succeeded | failed | set(running)
            assert set(following.needs) <= succeeded
            assert keep_going or not failed
            schedule.begin(following.name)
            running.append(following.name)
        if not running:
            break
        name = running.pop(chance.randrange(len(running)))
        (failed if name in fails else succeeded).add(name)
        schedule.end(name, name not in fails)
    states = schedule.states
    assert {name for name, state in states.items() if state is State.FAILED} == failed
    for each in jobs:
        if each.name in skipped:
            assert states[each.name] is State.DONE
        elif all_needs(jobs, each.name, skipped) & failed:
            assert states[each.name] is State.BLOCKED
        elif keep_going:
            assert states[each.name] is (State.FAILED if each.name in fails else State.DONE)


@given(graphs(), st.sets(st.integers(0, 8)))
def test_what_must_run_are_the_missing_ends_and_all_that_they_miss(jobs: list[Job], finished: set[int]) -> None:
    done = {f"{i}" for i in finished}
    by_name = {job.name: job for job in jobs}
    needed = {need for job in jobs for need in job.needs}
    must: set[str] = set()
    front = [name for name in by_name if name not in needed | done]
    while front:
        name = front.pop()
        must.add(name)
        front += [need for need in by_name[name].needs if need not in done | must]
    assert unnecessary(jobs, done) == set(by_name) - must


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ([job("a"), job("a", "b"), job("b")], "Two jobs have the name 'a'"),
        ([job("a", "c")], "'a' needs 'c', which is not in the graph"),
        ([job("a", "a")], "in a circle: 'a'"),
        ([job("a"), job("b", "c"), job("c", "b"), job("d", "c")], "in a circle: '[bc]', '[bc]'\\."),
    ],
)
def test_what_is_no_graph_is_refused(jobs: list[Job], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Schedule(jobs)


def test_a_long_chain_is_blocked_to_its_end() -> None:
    chain = [job("0"), *(job(f"{i}", f"{i - 1}") for i in range(1, 3000))]
    schedule = Schedule(chain)
    schedule.begin("0")
    schedule.end("0", succeeded=False)
    assert len(schedule.names(State.BLOCKED)) == 2999
    assert schedule.next_job() is None
