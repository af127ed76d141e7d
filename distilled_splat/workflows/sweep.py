"""`distilled-splat sweep`: teachers and students of many scenes and sizes, compared in one table."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import tyro

from distilled_splat.workflows.scene_names import check_names

if TYPE_CHECKING:  # nerfstudio takes seconds to import; other subcommands do without it
    from distilled_splat.jobs.graph import Schedule
    from distilled_splat.workflows.distill import DistilledTrainerConfig
    from distilled_splat.workflows.sweep_plan import Plan

WIDTH_OF_TABLE = 120
"""Width of the table in columns, if it is not printed on a terminal."""


@dataclass
class Sweep:
    """Train teachers for many scenes and students of several sizes, and compare all of them in one table.

    The jobs run on the GPUs of this machine, on its CPU, or on a Ray cluster. Finished jobs are not repeated: after an
    interruption or a failure, the same command resumes.
    """

    data: tuple[Path, ...]
    """Folders of the scenes, in nerfstudio's format or in blender's (with a transforms_train.json)."""
    options: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Options of ns-train, after a separate --, such as "-- --teacher-iterations 7000 --pipeline.model.lambda-kd 1". A
    dataparser may follow the options. By default the format of each scene is detected, and every 8th view of a scene in
    nerfstudio's format is held out."""
    fractions: tuple[float, ...] = (0.05, 0.12, 0.25)
    """Sizes of the students, as fractions of the standard teacher's Gaussians."""
    output: Path = Path("sweep")
    """Folder for the runs and the results. With Ray on several machines, all of them must see it at the same path."""
    method: Literal["distilled-splatfacto", "distilled-splatfacto-paper"] = "distilled-splatfacto"
    """Method of the students: our schedule (distilled-splatfacto), or the paper's (distilled-splatfacto-paper)."""
    iterations: int = 30000
    """Training steps of every teacher and every student."""
    device: Optional[Literal["cuda", "cpu"]] = None
    """Kind of device to train on. By default cuda if this machine has a GPU, otherwise cpu."""
    engine: Literal["local", "ray"] = "local"
    """Run the jobs on this machine (local) or on a Ray cluster (ray)."""
    slots: Optional[int] = None
    """local: number of jobs at a time. By default one on each GPU, or one on a CPU. Several jobs on a CPU share its
    threads."""
    address: Optional[str] = None
    """ray: address of a running cluster, such as "auto" or "10.0.0.1:6379". By default $RAY_ADDRESS, or else Ray starts
    on this machine."""
    gpus: float = 1
    """ray: GPUs of each job, if it trains on GPUs; 0.5 puts two jobs on each GPU."""
    cpus: int = 1
    """ray: processors, and computing threads, of each job."""
    retries: int = 3
    """ray: how many times to retry a job whose process or machine was lost."""
    dry_run: bool = False
    """Only print the jobs: what each job needs, and whether it is done."""

    def run(self) -> None:
        """Run the missing jobs, then print and write the results.

        Raises:
            ValueError: if the options contradict each other.
            SystemExit: if the sweep is interrupted, a job has failed, or the output folder cannot be written to.
        """
        from rich.console import Console

        from distilled_splat.jobs.graph import Schedule, State
        from distilled_splat.runs.faults import writing_to
        from distilled_splat.runs.files import write_json
        from distilled_splat.runs.processes import EXIT_INTERRUPTED
        from distilled_splat.workflows.sweep_results import results_of, results_table
        from distilled_splat.workflows.training_jobs import prepare

        self.check()
        plan = self.plan()
        schedule = Schedule(plan.jobs, [job.name for job in plan.jobs if job.done()])
        if self.dry_run:
            print("\n".join(listing(schedule)))
            return
        for name in schedule.names(State.WAITING):
            if name in plan.configs:
                prepare(plan.configs[name])
        reason = self.run_engine(schedule)
        results = results_of(plan.students, self.output.resolve())
        with writing_to(self.output):
            write_json(self.output / "results.json", {"setting": self.setting(), "results": results})
        Console(width=None if sys.stdout.isatty() else WIDTH_OF_TABLE).print(results_table(results))
        if reason:
            print(f"Stopped by {reason}. The same command resumes each training from its last checkpoint.")
            raise SystemExit(EXIT_INTERRUPTED)
        if schedule.names(State.FAILED):
            raise SystemExit(failures(schedule))

    def check(self) -> None:
        """Refuse options that cannot work, before any time is spent.

        Raises:
            ValueError: with one sentence on the first fault found.
        """
        check_names(self.data)
        if len(set(self.fractions)) < len(self.fractions):
            raise ValueError(f"--fractions {' '.join(map(str, self.fractions))} repeats a size: give each once.")
        if self.iterations < 1 or self.cpus < 1 or self.gpus <= 0 or self.retries < 0:
            raise ValueError("--iterations, --cpus and --gpus must be positive, and --retries must not be negative.")
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"--slots {self.slots} must be positive.")
        if self.engine == "ray":
            import distilled_splat.jobs.on_ray  # noqa: F401  # raises if Ray is not installed

    def plan(self) -> Plan:
        """Return the graph of jobs of all scenes.

        Raises:
            SystemExit: if a scene cannot be read, or ns-train refuses an option.
        """
        from distilled_splat.workflows.sweep_plan import joined, scene_plan

        return joined([scene_plan(self.student(scene.resolve()), self.fractions) for scene in self.data])

    def student(self, scene: Path) -> DistilledTrainerConfig:
        """Return the config that `ns-train` would train on a scene with our options."""
        from nerfstudio.configs.dataparser_configs import all_dataparsers
        from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

        from distilled_splat.training.photos import dataparser_words

        never = "1000000000"
        words = [
            self.method, "--data", str(scene), "--output-dir", str(self.output.resolve() / "runs"),
            "--experiment-name", scene.name, "--vis", "tensorboard",
            "--max-num-iterations", str(self.iterations),
            "--machine.device-type", self.device_type(),
            "--steps-per-eval-image", never, "--steps-per-eval-all-images", never,
            *self.options, *(() if set(self.options) & set(all_dataparsers) else dataparser_words(scene)),
        ]  # fmt: skip
        config: Any = tyro.cli(AnnotatedBaseConfigUnion, args=words, prog="ns-train")  # type: ignore[arg-type]
        config.pipeline.datamanager.data = scene
        return config

    def device_type(self) -> str:
        """Return the kind of device to train on."""
        import torch

        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def run_engine(self, schedule: Schedule) -> Optional[str]:
        """Run the schedule on the chosen engine. Return the name of the signal that stopped the engine, or None."""
        from distilled_splat.jobs.local import machine_slots, run_local
        from distilled_splat.ops.processor import num_threads
        from distilled_splat.workflows.progress import Progress

        device = self.device_type()
        jobs = list(schedule.jobs.values())
        if self.engine == "local":
            slots = machine_slots(device, num_threads(), self.slots)
            with Progress(jobs, len(slots)) as progress:
                return run_local(schedule, slots, progress)
        from distilled_splat.jobs.on_ray import Cluster, Resources

        resources = Resources(self.gpus if device == "cuda" else 0, self.cpus)
        with Cluster(self.address) as cluster, Progress(jobs, cluster.room(resources)) as progress:
            return cluster.run(schedule, resources, self.retries, progress)

    def setting(self) -> dict[str, Any]:
        """Return everything besides the code that the results depend on: method, options, versions."""
        packages = ("distilled-splat", "nerfstudio", "gsplat", "torch", "numba")
        return {
            "method": self.method,
            "iterations": self.iterations,
            "options": list(self.options),
            "versions": {name: metadata.version(name) for name in packages},
        }


def listing(schedule: Schedule) -> list[str]:
    """Return a graph as lines: each job, whether it will run, which jobs it needs, and its command."""
    from distilled_splat.jobs.graph import State

    lines = []
    for job in schedule.jobs.values():
        state = "to run" if schedule.states[job.name] is State.WAITING else "done"
        needs = f"   (needs {'; '.join(job.needs)})" if job.needs else ""
        lines += [f"{state:8}{job.name}{needs}", f"        python {shlex.join(job.argv)}"]
    waiting = len(schedule.names(State.WAITING))
    return [*lines, f"{len(schedule.jobs)} jobs, {waiting} to run"]


def failures(schedule: Schedule) -> str:
    """Describe each failed job by the end of its log, and count the jobs that were not started because of it."""
    from distilled_splat.jobs.command import last_words
    from distilled_splat.jobs.graph import State

    failed = [schedule.jobs[name] for name in schedule.names(State.FAILED)]
    blocked = schedule.names(State.BLOCKED)
    lines = [f"{job.name} failed; its log is {job.log}\n{indented(last_words(job, 4))}" for job in failed]
    left = f" {len(blocked)} jobs that need them were not started." if blocked else ""
    return "\n".join([*lines, f"{len(failed)} jobs failed.{left} The same command tries them again."])


def indented(words: str) -> str:
    """Indent lines by four spaces."""
    return "\n".join(f"    {line}" for line in words.splitlines())
