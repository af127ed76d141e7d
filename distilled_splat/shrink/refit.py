"""The refit: trains students of the splat on the capture of its own renders.

With several sizes, the largest student starts from the splat, and each other one from the next larger student, which
is closer to it and takes less time to prune. All students learn from the renders of the splat.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distilled_splat.jobs.command import last_words
from distilled_splat.jobs.graph import Job, Schedule, State
from distilled_splat.jobs.local import machine_slots, run_local
from distilled_splat.ops.processor import num_threads
from distilled_splat.runs.processes import EXIT_INTERRUPTED
from distilled_splat.shrink.capture import DATAPARSER
from distilled_splat.workflows.progress import Progress
from distilled_splat.workflows.training_jobs import LOG_NAME, is_finished

METHOD = "distilled-splatfacto"


@dataclass(frozen=True)
class Plan:
    """The settings that all sizes share.

    Attributes:
        capture: the capture's folder.
        splats: the splats as files, in the capture's frame.
        counts: the sizes, the largest first.
        output: folder of the runs.
        iterations: steps of each refit.
        sh_degree: degree of the spherical harmonics.
        antialiased: whether the splats are rendered antialiased.
        device_type: cuda or cpu.
        seed: seed of the trainings.
    """

    capture: Path
    splats: tuple[Path, ...]
    counts: tuple[int, ...]
    output: Path
    iterations: int
    sh_degree: int
    antialiased: bool
    device_type: str
    seed: int

    def run_of(self, count: int) -> Path:
        """Return the run folder of a student of this size."""
        return self.output / self.capture.name / METHOD / self.name_of(count)

    def name_of(self, count: int) -> str:
        """Return the name of the run of a size; it differs for other lengths and other starts on the same capture."""
        sizes = "-of-".join(map(str, [count, *self.larger(count)]))
        return f"{sizes}-gaussians-{self.iterations}-steps"

    def larger(self, count: int) -> tuple[int, ...]:
        """Return the larger sizes, the next larger one first."""
        return self.counts[: self.counts.index(count)][::-1]

    def job(self, count: int) -> Job:
        """Return the job that trains the student of this size."""
        larger = self.larger(count)[:1]
        start = ("--pipeline.model.start-with", str(self.run_of(larger[0]))) if larger else ()
        command = (
            "-m", "nerfstudio.scripts.train", METHOD,
            "--data", str(self.capture), "--output-dir", str(self.output), "--timestamp", self.name_of(count),
            "--max-num-iterations", str(self.iterations), "--machine.seed", str(self.seed),
            "--machine.device-type", self.device_type, "--vis", "tensorboard",
            "--steps-per-eval-image", "1000000", "--steps-per-eval-all-images", "1000000",
            "--pipeline.model.num-gaussians", str(count), "--pipeline.model.sh-degree", str(self.sh_degree),
            "--pipeline.model.rasterize-mode", "antialiased" if self.antialiased else "classic",
            "--pipeline.model.teacher-frame", "nerfstudio", "--pipeline.model.prune-unseen", "False",
            "--pipeline.model.max-teacher-disagreement", "0",  # the photos are the splats' own renders
            "--write-report", "False",  # `shrinking` writes the one that is asked for
            *start, "--pipeline.model.teachers", *map(str, self.splats), *DATAPARSER,
        )  # fmt: skip
        run = self.run_of(count)
        needs = tuple(self.title(number) for number in larger)
        done = partial(is_finished, run)
        return Job(self.title(count), command, run / LOG_NAME, done, needs, self.iterations)

    def title(self, count: int) -> str:
        """Return the training's name for people."""
        return f"Student of {count} Gaussians"


def refit(plan: Plan) -> None:
    """Train the missing students, and show the progress.

    Raises:
        SystemExit: if a training fails or is interrupted; the same command resumes it.
    """
    jobs = [plan.job(count) for count in plan.counts]
    slots = machine_slots(plan.device_type, num_threads())
    progress = Progress(jobs, len(slots))
    schedule = Schedule(jobs, [job.name for job in jobs if job.done()], keep_going=False)
    with progress:
        reason = run_local(schedule, slots, progress)
    if reason:
        print(f"Stopped by {reason}. The same command resumes from the last checkpoint.")
        raise SystemExit(EXIT_INTERRUPTED)
    for job in jobs:
        if schedule.states[job.name] is State.FAILED:
            raise SystemExit(f"Training failed: {job.name}: {last_words(job, 1)} Its log is {job.log}.")
