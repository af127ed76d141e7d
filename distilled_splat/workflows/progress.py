"""One progress display for all trainings of a command: the running jobs, their quality, and the time left in total."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Optional

from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from distilled_splat.jobs.forecast import makespan, simulated
from distilled_splat.jobs.graph import Job
from distilled_splat.training.progress import PROGRESS_NAME, read_progress

SECONDS_BETWEEN_READINGS = 0.5
CLOCK_TICK = 0.05
"""Tolerance in seconds: a file's time is the system's last tick, which can be before an earlier reading of the
clock."""
SECONDS_BETWEEN_FORECASTS = 5.0


class Progress:
    """Shows the progress of jobs: as bars on a terminal, otherwise as a line at every tenth of a training.

    The bars are shown within this context, which may be entered again.

    Attributes:
        codes: exit codes of the jobs that have ended, by name.
    """

    def __init__(self, jobs: Sequence[Job], slots: int) -> None:
        """Set up the display for all jobs of a command.

        Args:
            jobs: all jobs, including finished ones.
            slots: number of jobs that run at a time.
        """
        self.jobs, self.slots = jobs, slots
        self.done = {job.name for job in jobs if job.done()}
        self.codes: dict[str, int] = {}
        self.begun_at: dict[str, float] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.paces: dict[str, float] = {}
        self.tenths: dict[str, int] = {}
        self.rows: dict[str, TaskID] = {}
        self.read_at = self.forecast_at = 0.0
        self.left: Optional[float] = None
        self.bars = Bars(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"),
            console=CONSOLE, disable=not CONSOLE.is_terminal, transient=True,
        )  # fmt: skip
        self.whole = self.bars.add_task("all", total=max(sum(job.steps for job in jobs), 1), words="")

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bars."""
        self.bars.stop()

    def begun(self, job: Job) -> None:
        """Show that a job has started."""
        self.begun_at[job.name] = time.time()
        self.tenths[job.name] = 0
        self.rows[job.name] = self.bars.add_task(job.name, total=job.steps or None, words="starting")
        say(f"{job.name}: {job.log.parent}")

    def ended(self, job: Job, code: int) -> None:
        """Show how a job has ended."""
        self.codes[job.name] = code
        self.read(job)
        self.bars.remove_task(self.rows.pop(job.name))
        seconds = time.time() - self.begun_at.pop(job.name)
        if code == 0:
            self.done.add(job.name)
            say(f"{job.name}: done in {clock(seconds)}")
        self.show_whole()

    def look(self) -> None:
        """Read and show the progress of the running jobs, at most twice a second."""
        now = time.monotonic()
        if now - self.read_at < SECONDS_BETWEEN_READINGS:
            return
        self.read_at = now
        for job in self.jobs:
            if job.name in self.begun_at:
                self.read(job)
        self.show_whole()

    def read(self, job: Job) -> None:
        """Read and show the progress of one job."""
        folder = job.log.parent
        report = read_progress(folder) if job.steps else {}
        if not report or (folder / PROGRESS_NAME).stat().st_mtime < self.begun_at[job.name] - CLOCK_TICK:
            return
        self.reports[job.name] = report
        if report["step"] < report["steps"] and report["seconds_left"] is not None:
            self.paces[job.name] = report["seconds_left"] / (report["steps"] - report["step"])
        words = in_words(report)
        self.bars.update(self.rows[job.name], completed=report["step"], words=words)
        tenths = 10 * report["step"] // report["steps"]
        if tenths > self.tenths[job.name] and not CONSOLE.is_terminal:
            self.forecast()
            whole = "" if self.left is None else f"; {clock(self.left)} left in total"
            say(f"{job.name}: {words}{whole}")
        self.tenths[job.name] = tenths

    def show_whole(self) -> None:
        """Show the progress of the whole command."""
        steps = sum(self.steps_done(job) for job in self.jobs)
        if time.monotonic() - self.forecast_at > SECONDS_BETWEEN_FORECASTS:
            self.forecast()
        left = "" if self.left is None else f", {clock(self.left)} left"
        self.bars.update(self.whole, completed=steps, words=f"{len(self.done)} of {len(self.jobs)} done{left}")

    def steps_done(self, job: Job) -> int:
        """Return the number of finished steps of a job."""
        if job.name in self.done:
            return job.steps
        return self.reports[job.name]["step"] if job.name in self.begun_at and job.name in self.reports else 0

    def forecast(self) -> None:
        """Estimate the time left. A job that has not started gets the mean time of a step of the others."""
        self.forecast_at = time.monotonic()
        if self.paces:
            pace = sum(self.paces.values()) / len(self.paces)
            seconds = {job.name: pace * job.steps for job in self.jobs}
            for name in self.begun_at.keys() & self.reports.keys():
                report = self.reports[name]
                left = report["seconds_left"]
                seconds[name] = pace * (report["steps"] - report["step"]) if left is None else left
            self.left = makespan(simulated(self.jobs, seconds, self.slots, self.done))


def in_words(report: dict[str, Any]) -> str:
    """Describe the progress of a training."""
    psnr = report.get("psnr")
    quality = "" if psnr is None else f", PSNR {psnr:.1f}"
    left = "" if report["seconds_left"] is None else f", {clock(report['seconds_left'])} left"
    return f"step {report['step']} of {report['steps']}, {report['gaussians']} Gaussians{quality}{left}"


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds, with hours if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def say(words: str) -> None:
    """Print a line, above the bars if they are shown."""
    CONSOLE.print(words, soft_wrap=True, markup=False, highlight=False)
