"""The thread pool of the CPU kernels, and the memory that they use again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
import torch

from distilled_splat.cpu import buffers, threads
from distilled_splat.cpu.quota import allowed_processors
from distilled_splat.cpu.threads import num_threads, parallel_ranges


def collect(count: int, chunks: int | None = None) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    parallel_ranges(lambda start, stop: ranges.append((start, stop)), count, chunks=chunks)
    return sorted(ranges)


@pytest.mark.parametrize("chunks", [None, 1, 2, 7, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 64, 1000])
def test_ranges_cover_everything_once(count: int, chunks: int | None) -> None:
    ranges = collect(count, chunks)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(count))
    if chunks is not None:
        assert len(ranges) == min(chunks, count)


def test_nothing_to_do_calls_nothing() -> None:
    assert collect(0) == []


def test_what_a_kernel_raises_reaches_the_caller_after_all_ranges() -> None:
    done = []

    def kernel(start: int, stop: int) -> None:
        if start == 3:
            raise RuntimeError("range 3")
        done.append(start)

    with pytest.raises(RuntimeError, match="range 3"):
        parallel_ranges(kernel, 10, chunks=10)
    assert sorted(done) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


@pytest.mark.skipif(num_threads() < 2, reason="one processor only")
def test_ranges_run_on_several_threads() -> None:
    meeting = threading.Barrier(2, timeout=30)
    parallel_ranges(lambda start, stop: meeting.wait() and None, 2, chunks=2)
    assert not meeting.broken


def test_a_kernel_may_start_ranges_of_its_own() -> None:
    seen: list[int] = []

    def outer(start: int, stop: int) -> None:
        parallel_ranges(lambda a, b: seen.append(b - a), 8, chunks=4)

    parallel_ranges(outer, 6, chunks=6)
    assert sum(seen) == 48


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_starts_a_pool_of_its_own() -> None:
    collect(8)
    child = os.fork()
    if child == 0:
        os._exit(0 if collect(100, 10) == [(i, i + 10) for i in range(0, 100, 10)] else 1)
    assert os.waitpid(child, 0)[1] == 0


CONTROL_GROUPS: dict[str, tuple[str, dict[str, str], Optional[int]]] = {
    "a container of version 2": ("0::/", {"cpu.max": "150000 100000"}, 2),
    "no limit in version 2": ("0::/", {"cpu.max": "max 100000"}, None),
    "a job of a queue": ("0::/slurm/job", {"slurm/cpu.max": "400000 100000", "slurm/job/cpu.max": "800000 100000"}, 4),
    "a sliver": ("0::/", {"cpu.max": "1000 100000"}, 1),
    "a container of version 1": (
        "4:memory:/\n2:cpu,cpuacct:/docker/5e\n0::/",
        {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        3,
    ),
    "no limit in version 1": ("2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    "another group's limit": (
        "2:cpuset:/\n1:cpuacct:/",
        {"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "2"},
        None,
    ),
    "nothing mounted": ("0::/", {}, None),
}


@pytest.mark.parametrize("case", CONTROL_GROUPS)
def test_quotas_of_containers_are_read(case: str, tmp_path: Path) -> None:
    membership, files, processors = CONTROL_GROUPS[case]
    for name, text in {"proc/self/cgroup": membership, **{f"sys/fs/cgroup/{n}": t for n, t in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert allowed_processors(tmp_path) == processors


def test_a_system_without_control_groups_limits_nothing(tmp_path: Path) -> None:
    assert allowed_processors(tmp_path) is None


def test_threads_keep_to_the_quota() -> None:
    """In a process that reads another control group than it is in: the reading itself is tested above."""
    code = (
        "import pathlib; read = pathlib.Path.read_text\n"
        "given = {'/proc/self/cgroup': '0::/', '/sys/fs/cgroup/cpu.max': '100000 100000'}\n"
        "pathlib.Path.read_text = lambda self, *a, **k: given.get(str(self)) or read(self, *a, **k)\n"
        "import os; os.sched_getaffinity = lambda process: set(range(8))\n"
        "from distilled_splat.cpu.threads import num_threads; print(num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    for variables, count in (({}, "1"), ({"OMP_NUM_THREADS": "5"}, "5")):
        done = subprocess.run([sys.executable, "-c", code], env={**environment, **variables}, capture_output=True)
        assert done.stdout.decode().split() == [count], done.stderr


def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    size = (3_000_017,)
    first = buffers.empty(size)
    address = first.ctypes.data
    assert address % 64 == 0
    second = buffers.empty(size)
    assert not np.shares_memory(first, second)
    view = torch.from_numpy(first[5:]).view(-1)[3:]
    del first
    assert not np.shares_memory(buffers.empty(size), view.numpy())
    del view
    again = [buffers.empty(size) for _ in range(3)]
    assert address in [array.ctypes.data for array in again]


def test_threads_never_share_memory() -> None:
    def use(name: int) -> bool:
        kept = []
        for step in range(200):
            array = buffers.empty((70_000 + 1000 * (step % 5),), np.uint8)
            array[:] = name
            kept = [*kept[-3:], array]
            time.sleep(0)
            if any((array != name).any() for array in kept):
                return False
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(use, range(6)))
    finally:
        sys.setswitchinterval(interval)


def test_memory_that_nobody_asks_for_is_let_go() -> None:
    large = buffers.empty((50_000_000,), np.uint8)
    del large
    assert max(block.size for block in buffers._blocks.values()) >= 50_000_000
    for i in range(600):
        buffers.empty((100_000 * (1 + i % 7),), np.uint8)
        buffers.empty((1_000_000 + 4_000 * i,), np.uint8)
    assert max(block.size for block in buffers._blocks.values()) < 50_000_000


def test_workers_end_before_the_interpreter() -> None:
    words = """
import time
from distilled_splat.cpu import threads

def kernel(start, stop):
    time.sleep(0.5)
    print("finished", flush=True)

threads._NUM_THREADS = 2
threads._pool.submit(threads._Job(kernel, [(0, 1)], ()), 1)
"""
    ended = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "finished\n", "")


def test_a_finished_job_keeps_nothing_alive() -> None:
    jobs: list[threads._Job] = []
    submit, threads._pool.submit = threads._pool.submit, lambda job, helpers: jobs.append(job)  # type: ignore[method-assign]
    try:
        parallel_ranges(lambda start, stop, array: None, 8, np.zeros(3), chunks=4)
    finally:
        threads._pool.submit = submit  # type: ignore[method-assign]
    (job,) = jobs
    assert job.args == ()
