"""Jobs that begin as copies of one process: a module that is imported once, and processes of their own all the same."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from jobs import CtrlC, Record

from distilled_splat.jobs import local
from distilled_splat.jobs.command import last_words
from distilled_splat.jobs.graph import Job, Schedule, State
from distilled_splat.jobs.local import run_local
from distilled_splat.jobs.nursery import CAN_COPY, Nursery
from distilled_splat.runs.processes import PARENT_VARIABLE

pytestmark = pytest.mark.skipif(not CAN_COPY, reason="processes are copied on Linux only")

MODULE = """
import os, pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
with open(here / "imported", "a") as file: file.write("once\\n")
print("said while importing")

def prepare_to_be_copied():
    with open(here / "imported", "a") as file: file.write("prepared\\n")

def main():
    print(sys.argv, os.getpid(), os.getppid(), os.getsid(0) == os.getpid(), sys.stdin.read() == "")
    exec(sys.argv[2])
    (here / sys.argv[1]).touch()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module, which the jobs' process finds."""
    (tmp_path / "a_job.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([f"{tmp_path}", *sys.path]))
    monkeypatch.setattr(local, "SECONDS_BETWEEN_LOOKS", 0.02)
    return tmp_path


def job(folder: Path, name: str, code: str = "") -> Job:
    """Return a job that runs code in the module's `main`, and then leaves a file of its name."""
    return Job(name, ("-m", "a_job", name, code), folder / "logs" / f"{name}.log", (folder / name).exists)


def run(jobs: list[Job], watcher: Record | None = None) -> tuple[Schedule, Record, str | None]:
    """Run jobs one after the other."""
    schedule, watcher = Schedule(jobs), watcher or Record()
    with Nursery("a_job") as nursery:
        reason = run_local(schedule, [{"A_SLOT": "yes"}], watcher, nursery.start)
    return schedule, watcher, reason


def test_each_job_has_a_process_a_session_and_a_log_of_its_own_and_one_has_imported(folder: Path) -> None:
    tell = f"print(os.environ['A_SLOT'], os.environ[{PARENT_VARIABLE!r}])"
    _, watcher, reason = run([job(folder, "a", tell), job(folder, "b", tell)])
    assert watcher.codes == {"a": 0, "b": 0} and reason is None
    assert (folder / "imported").read_text() == "once\nprepared\n"
    said = [(folder / "logs" / f"{name}.log").read_text().splitlines()[-2:] for name in ("a", "b")]
    assert [words[1] for words in said] == [f"yes {os.getpid()}"] * 2
    first, second = ([int(word) for word in words[0].split() if word.isdigit()] for words in said)
    assert first[0] != second[0] and first[1] == second[1] != os.getpid()
    assert all(words[0].endswith("True True") for words in said)


def test_faults_are_in_the_log_and_their_codes_are_told(folder: Path) -> None:
    jobs = [
        job(folder, "refused", "raise SystemExit('It is refused.')"),
        job(folder, "code", "sys.exit(3)"),
        job(folder, "fault", "1 / 0"),
        job(folder, "killed", "os.kill(os.getpid(), signal.SIGKILL)"),
        job(folder, "leaves nothing", "os._exit(0)"),
        job(folder, "fine"),
    ]
    _, watcher, _ = run(jobs)
    assert watcher.codes == {"refused": 1, "code": 3, "fault": 1, "killed": -9, "leaves nothing": 1, "fine": 0}
    assert last_words(jobs[0], 1) == "It is refused." and "ZeroDivisionError" in last_words(jobs[2], 1)


def test_ctrl_c_lets_the_job_save_and_begins_no_other(folder: Path) -> None:
    saves = (
        "signal.signal(signal.SIGTERM, lambda *_: ((here / 'saved').touch(), sys.exit(130)))\n"
        "(here / 'ready').touch(); time.sleep(60)"
    )
    schedule, watcher, reason = run([job(folder, "a", saves), job(folder, "b")], CtrlC(folder / "ready"))
    assert reason == "SIGINT" and watcher.codes == {"a": 130} and (folder / "saved").exists()
    assert schedule.names(State.WAITING) == ["b"]


def test_a_job_fails_when_its_nursery_is_gone(folder: Path) -> None:
    _, watcher, _ = run([job(folder, "a", "os.kill(os.getppid(), signal.SIGKILL); os._exit(0)")])
    assert watcher.codes == {"a": 1}


def test_a_module_that_cannot_be_imported_is_named_in_the_log(folder: Path) -> None:
    missing = Job("a", ("-m", "no_such_module"), folder / "log", (folder / "never").exists)
    with Nursery("no_such_module") as nursery:
        watcher = Record()
        run_local(Schedule([missing]), [{}], watcher, nursery.start)
    assert watcher.codes == {"a": 1} and "no_such_module" in last_words(missing, 1)


def test_other_jobs_are_started_as_ever(folder: Path) -> None:
    mark = folder / "other"
    other = Job("other", ("-c", f"open({str(mark)!r}, 'w')"), folder / "log", mark.exists)
    _, watcher, _ = run([other, job(folder, "a")])
    assert watcher.codes == {"other": 0, "a": 0}


def test_the_nursery_ends_with_the_command_that_started_it(folder: Path) -> None:
    """However that one ends: nobody is left who could ask it."""
    nursery = Nursery("a_job")
    started = nursery.start(job(folder, "a"), {})
    while started.poll() is None:
        time.sleep(0.02)
    process = nursery.process
    assert process is not None and process.stdin is not None and process.poll() is None
    process.stdin.close()
    assert process.wait(timeout=60) == 0
