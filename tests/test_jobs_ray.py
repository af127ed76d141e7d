"""The Ray engine on a real cluster of two nodes on this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jobs import CtrlC, Record, begun, saves_when_stopped, script_job, waits_for

from distilled_splat.jobs.command import last_words
from distilled_splat.jobs.graph import Job, Schedule, State

pytest.importorskip("ray", reason='Ray is not installed: pip install "distilled-splat[ray]"')
pytestmark = pytest.mark.slow

from distilled_splat.jobs.on_ray import Cluster, Resources, run_job  # noqa: E402


@pytest.fixture(scope="module")
def cluster(two_nodes: str) -> Iterator[Cluster]:
    """A connection to two nodes of one processor each."""
    with Cluster(two_nodes) as connection:
        yield connection


ONE_CPU = Resources(gpus=0, cpus=1)


def run(cluster: Cluster, jobs: list[Job], retries: int = 2) -> tuple[Schedule, Record]:
    """Run jobs as a command that is given (again) does."""
    schedule, record = Schedule(jobs, [job.name for job in jobs if job.done()]), Record()
    assert cluster.run(schedule, ONE_CPU, retries, record) is None
    return schedule, record


def test_jobs_run_at_the_same_time_on_both_nodes_with_their_share_of_threads(cluster: Cluster, tmp_path: Path) -> None:
    tell = waits_for(2) + "\nassert os.environ['OMP_NUM_THREADS'] == '1'"
    assert cluster.room(ONE_CPU) == 2
    _, record = run(cluster, [script_job(tmp_path, name, tell) for name in ("a", "b")])
    assert record.codes == {"a": 0, "b": 0}


def test_a_failure_is_not_tried_again_and_stops_what_depends_on_it(cluster: Cluster, tmp_path: Path) -> None:
    jobs = [
        script_job(tmp_path, "a"),
        script_job(tmp_path, "b", "sys.exit('no luck')"),
        script_job(tmp_path, "c", needs=("a",)),
        script_job(tmp_path, "d", needs=("a", "b")),
    ]
    schedule, record = run(cluster, jobs)
    assert schedule.names(State.FAILED) == ["b"] and schedule.names(State.BLOCKED) == ["d"]
    assert sorted(begun(tmp_path)) == ["a", "b", "c"]
    assert record.codes == {"a": 0, "b": 1, "c": 0} and last_words(jobs[1]) == "no luck"
    assert run(cluster, jobs[:1])[1].events == []


KILLS_ITS_WORKER = (
    "import signal\n"
    "if len((here / 'begun').read_text().splitlines()) <= {times}:\n"
    "    os.kill(os.getppid(), signal.SIGKILL); sys.exit(130)"
)


def test_a_job_whose_worker_is_killed_is_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    jobs = [script_job(tmp_path, "a", KILLS_ITS_WORKER.format(times=1)), script_job(tmp_path, "b", needs=("a",))]
    schedule, _ = run(cluster, jobs)
    assert begun(tmp_path) == ["a", "a", "b"]
    assert set(schedule.states.values()) == {State.DONE}


def test_a_job_that_is_lost_too_often_has_failed(cluster: Cluster, tmp_path: Path) -> None:
    jobs = [script_job(tmp_path, "a", KILLS_ITS_WORKER.format(times=9)), script_job(tmp_path, "b", needs=("a",))]
    schedule, record = run(cluster, jobs, retries=1)
    assert begun(tmp_path) == ["a", "a"] and record.codes == {"a": 1}
    assert schedule.names(State.BLOCKED) == ["b"] and "Lost: " in last_words(jobs[0], 100)


def test_a_job_killed_by_a_signal_is_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    kill = "if not (here / 'once').exists():\n    (here / 'once').touch(); os.kill(os.getpid(), 9)"
    assert run(cluster, [script_job(tmp_path, "a", kill)])[1].codes == {"a": 0}
    assert begun(tmp_path) == ["a", "a"]


def test_ctrl_c_lets_the_jobs_save_and_begins_no_other(cluster: Cluster, tmp_path: Path) -> None:
    jobs = [script_job(tmp_path, "a", saves_when_stopped()), script_job(tmp_path, "b", needs=("a",))]
    watcher = CtrlC(tmp_path / "ready")
    assert cluster.run(Schedule(jobs), ONE_CPU, 2, watcher) == "SIGINT"
    assert (tmp_path / "saved").exists() and watcher.codes == {"a": 130}
    assert set(run(cluster, jobs)[0].states.values()) == {State.DONE}
    assert begun(tmp_path) == ["a", "a", "b"]


def test_a_job_that_is_cancelled_twice_is_still_waited_for(tmp_path: Path) -> None:
    def cancel_twice() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.4)

    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        cancelling = pool.submit(cancel_twice)
        run_job(script_job(tmp_path, "a", saves_when_stopped(1)), {})
    cancelling.result()
    assert (tmp_path / "saved").exists() and not (tmp_path / "a.done").exists()


def test_room_is_counted_node_by_node() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 7.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 4.0}},
        {"Alive": False, "Resources": {"CPU": 9.0, "GPU": 9.0}},
        {"Alive": True, "Resources": {"memory": 1.0}},
    ]
    assert Resources(gpus=1, cpus=1).fit(nodes) == 5
    assert Resources(gpus=1, cpus=4).fit(nodes) == 1
    assert Resources(gpus=0.1, cpus=1).fit(nodes) == 10
    assert Resources(gpus=0, cpus=2).fit(nodes) == 4


def test_an_address_where_nobody_answers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"No Ray cluster answers at 127\.0\.0\.1:9: "), Cluster("127.0.0.1:9"):
        pass


def test_a_job_that_fits_nowhere_is_refused(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="No node of the Ray cluster has 2 processors and 0 GPUs"):
        cluster.room(Resources(gpus=0, cpus=2))
