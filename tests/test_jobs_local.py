"""The local engine with real processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jobs import CtrlC, Record, begun, saves_when_stopped, script_job, waits_for

from distilled_splat.jobs import local
from distilled_splat.jobs.command import last_words
from distilled_splat.jobs.graph import Job, Schedule, State
from distilled_splat.jobs.local import cpu_slots, gpu_slots, machine_slots, run_local
from distilled_splat.runs.processes import PARENT_VARIABLE


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SECONDS_BETWEEN_LOOKS", 0.02)


def run(jobs: list[Job], slots: int = 2, keep_going: bool = True) -> tuple[Schedule, Record]:
    """Run jobs as a command that is given (again) does."""
    schedule, record = Schedule(jobs, [job.name for job in jobs if job.done()], keep_going), Record()
    assert run_local(schedule, cpu_slots(slots, slots), record) is None
    return schedule, record


def test_a_failure_stops_what_depends_on_it_and_the_same_again_does_the_rest(tmp_path: Path) -> None:
    broken = "print('no luck'); assert (here / 'mended').exists()"
    jobs = [
        script_job(tmp_path, "a"),
        script_job(tmp_path, "b", broken),
        script_job(tmp_path, "c", needs=("a",)),
        script_job(tmp_path, "d", needs=("a", "b")),
    ]
    schedule, record = run(jobs)
    assert schedule.names(State.FAILED) == ["b"] and schedule.names(State.BLOCKED) == ["d"]
    assert sorted(begun(tmp_path)) == ["a", "b", "c"]
    assert record.codes == {"a": 0, "b": 1, "c": 0}
    assert "no luck" in last_words(jobs[1]) and "AssertionError" in last_words(jobs[1], 1)

    (tmp_path / "mended").touch()
    schedule, record = run(jobs)
    assert set(schedule.states.values()) == {State.DONE}
    assert begun(tmp_path)[3:] == ["b", "d"]
    assert run(jobs)[1].events == []


def test_without_keeping_on_nothing_begins_after_a_failure(tmp_path: Path) -> None:
    jobs = [script_job(tmp_path, "a", "sys.exit(3)"), script_job(tmp_path, "b")]
    schedule, record = run(jobs, slots=1, keep_going=False)
    assert begun(tmp_path) == ["a"] and record.codes == {"a": 3}
    assert schedule.names(State.WAITING) == ["b"]


def test_a_job_that_ends_well_but_leaves_nothing_has_failed(tmp_path: Path) -> None:
    assert run([script_job(tmp_path, "a", "sys.exit(0)")])[1].codes == {"a": 1}


def test_a_job_that_cannot_be_started_has_its_reason_in_the_log(tmp_path: Path) -> None:
    missing = Job("a", ("-m", "no_such_module"), tmp_path / "new" / "log", (tmp_path / "never").exists)
    assert run([missing])[1].codes == {"a": 1}
    assert "no_such_module" in last_words(missing)


def test_three_jobs_on_three_slots_run_at_the_same_time(tmp_path: Path) -> None:
    jobs = [script_job(tmp_path, name, waits_for(3)) for name in ("a", "b", "c")]
    assert run(jobs, slots=3)[1].codes == {"a": 0, "b": 0, "c": 0}


def test_on_one_slot_one_runs_at_a_time_in_order(tmp_path: Path) -> None:
    alone = "with open(here / 'only', 'x'): time.sleep(0.05)\nos.remove(here / 'only')"
    jobs = [script_job(tmp_path, name, alone) for name in ("a", "b", "c")]
    _, record = run(jobs, slots=1)
    assert record.codes == {"a": 0, "b": 0, "c": 0}
    assert begun(tmp_path) == ["a", "b", "c"]


def test_each_slot_confines_its_job(tmp_path: Path) -> None:
    tell = waits_for(2) + "\n(here / os.environ['CUDA_VISIBLE_DEVICES']).touch()"
    schedule = Schedule([script_job(tmp_path, name, tell) for name in ("a", "b")])
    run_local(schedule, gpu_slots(["GPU-5e", "3"]), Record())
    assert (tmp_path / "GPU-5e").exists() and (tmp_path / "3").exists()


def test_slots_share_threads_and_devices_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [slot["OMP_NUM_THREADS"] for slot in cpu_slots(8, 3)] == ["3", "3", "2"]
    assert [slot["OMP_NUM_THREADS"] for slot in cpu_slots(2, 3)] == ["1", "1", "1"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in gpu_slots(["4", "6"], 3)] == ["4", "6", "4"]
    assert machine_slots("cpu", 4) == machine_slots("cpu", 4, 1) == [{}]
    assert len(machine_slots("cpu", 4, 3)) == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert machine_slots("cuda", 4) == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    with pytest.raises(ValueError, match="The number of slots is 0"):
        machine_slots("cpu", 4, 0)


def test_ctrl_c_lets_the_jobs_save_and_begins_no_other(tmp_path: Path) -> None:
    jobs = [script_job(tmp_path, "a", saves_when_stopped()), script_job(tmp_path, "b")]
    schedule, watcher = Schedule(jobs), CtrlC(tmp_path / "ready")
    assert run_local(schedule, [{}], watcher) == "SIGINT"
    assert (tmp_path / "saved").exists() and watcher.codes == {"a": 130}
    assert begun(tmp_path) == ["a"]
    assert set(run(jobs)[0].states.values()) == {State.DONE}


def test_a_job_knows_who_started_it(tmp_path: Path) -> None:
    tell = f"assert int(os.environ[{PARENT_VARIABLE!r}]) == os.getppid() == {os.getpid()}"
    assert run([script_job(tmp_path, "a", tell)])[1].codes == {"a": 0}
