"""A thread pool for kernels that release the GIL.

Numba's own parallel layers abort when two Python threads call them, or kill a forked child. This pool is made on
first use, is forgotten in a forked child, and any number of Python threads may use it at once: a caller always works on
its own ranges itself, so that it never waits for a worker which has not started. The workers end before the interpreter
does: a thread that frees a tensor, or comes back from a kernel, while Python shuts down aborts the process.
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Optional

import numpy as np

from distilled_splat.cpu.quota import allowed_processors

Kernel = Callable[..., Any]


def _count_processors() -> int:
    """Number of threads to compute with: OMP_NUM_THREADS where it is set, else the processors we may use.

    Threads beyond what a control group allows would be stopped together, for most of every tenth of a second.
    """
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdigit() and int(requested) > 0:
        return int(requested)
    return num_processors()


def num_processors() -> int:
    """Tell how many processors this process may use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, allowed_processors() or there)


_NUM_THREADS = _count_processors()


def num_threads() -> int:
    """Tell how many threads a parallel kernel runs on, the calling thread included."""
    return _NUM_THREADS


class _Job:
    """One parallel call: its ranges are taken by whoever comes next, its caller waits for the last to end."""

    def __init__(self, kernel: Kernel, ranges: list[tuple[int, int]], args: tuple) -> None:
        self.kernel = kernel
        self.args = args
        self.error: Optional[BaseException] = None
        self._ranges = iter(ranges)  # next() on a list iterator is atomic
        self._unfinished = len(ranges)
        self._lock = threading.Lock()
        self._finished = threading.Event()

    def work(self) -> None:
        for start, stop in self._ranges:
            try:
                self.kernel(start, stop, *self.args)
            except BaseException as error:
                self.error = error
            with self._lock:
                self._unfinished -= 1
                if self._unfinished == 0:
                    self._finished.set()

    def wait(self) -> None:
        self._finished.wait()
        self.args = ()  # a worker that comes late finds no range, and keeps nothing alive
        if self.error is not None:
            raise self.error


class _Pool:
    """Daemon threads that serve one queue of jobs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Optional[_Job]] = SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._closed = False

    def submit(self, job: _Job, helpers: int) -> None:
        """Ask for `helpers` workers on a job. A closed pool has none: the caller works alone."""
        with self._lock:
            if self._closed:
                return
            if not self._workers:
                for _ in range(num_threads() - 1):
                    worker = threading.Thread(target=self._serve, daemon=True)
                    worker.start()
                    self._workers.append(worker)
            for _ in range(helpers):
                self._jobs.put(job)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.work()
            del job  # not kept while this worker waits for the next one

    def close(self) -> None:
        """Let the workers finish what they are at, and end them."""
        with self._lock:
            self._closed = True
        for _ in self._workers:
            self._jobs.put(None)
        for worker in self._workers:
            worker.join()


_pool = _Pool()


def _forget_pool() -> None:
    """Start afresh in a forked child, where the parent's threads do not exist and its lock may be held for ever."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
atexit.register(lambda: _pool.close())


def parallel_ranges(kernel: Kernel, count: int, *args: Any, chunks: Optional[int] = None) -> None:
    """Call `kernel(start, stop, *args)` over contiguous ranges that cover `range(count)`, on all threads.

    The ranges depend on `count` and `chunks` alone, never on timing. They are handed out in ascending order to
    whichever thread is free.

    Args:
        kernel: A function that releases the GIL, compiled with `njit(nogil=True)`.
        count: Length of the whole range; nothing is called when it is 0.
        args: Handed on to every call.
        chunks: Number of ranges; without it four per thread, so that a thread that was held up is helped by others.

    Raises:
        BaseException: What the kernel raised, after all ranges have ended.
    """
    chunks = min(count, 4 * num_threads() if chunks is None else chunks)
    if chunks <= 1:
        if count > 0:
            kernel(0, count, *args)
        return
    bounds = [count * i // chunks for i in range(chunks + 1)]
    job = _Job(kernel, list(itertools.pairwise(bounds)), args)
    _pool.submit(job, min(chunks, num_threads()) - 1)
    job.work()
    job.wait()


def on_all_threads(kernel: Kernel, *args: Any) -> None:
    """Call `kernel(start, stop, counter, *args)` once per thread; the calls share out their work by the counter.

    Args:
        kernel: As for `parallel_ranges`; it must take pieces of work from `counter`, an int64 array [1] that starts at
            0, until none is left, and may not count on being called more than once.
        args: Handed on to every call.
    """
    parallel_ranges(kernel, num_threads(), np.zeros(1, np.int64), *args, chunks=num_threads())
