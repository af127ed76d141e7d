"""The command `distilled-splat sweep`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import tyro

if TYPE_CHECKING:  # nerfstudio takes seconds to import, which other subcommands need not pay
    from distilled_splat.jobs.graph import Schedule
    from distilled_splat.workflows.distill import DistilledTrainerConfig
    from distilled_splat.workflows.sweep_plan import Plan

WIDTH_OF_TABLE = 120
"""Columns of the table where it is not printed on a terminal."""


@dataclass
class Sweep:
    """Train teachers for many scenes, students of several sizes from them, and put all into one table.

    The jobs run on the GPUs of this machine (or on its CPU), or on a Ray cluster. What is finished is not done again:
    a command that was stopped, or in which something failed, resumes when it is given again.
    """

    data: tuple[Path, ...]
    """Scenes: nerfstudio's format, or blender's (known by its transforms_train.json)."""
    options: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """After a lone --, options of ns-train, such as "-- --teacher-iterations 7000 --pipeline.model.lambda-kd 1". They
    may end with a dataparser; by default the scenes are in nerfstudio's format or in blender's, and of the former every
    8th view is held out."""
    fractions: tuple[float, ...] = (0.05, 0.12, 0.25)
    """Sizes of the students, as fractions of the standard teacher's Gaussians."""
    output: Path = Path("sweep")
    """Folder for the runs and the results; with Ray on several machines, one that all of them see under this path."""
    method: Literal["distilled-splatfacto", "distilled-splatfacto-paper"] = "distilled-splatfacto"
    """Our schedule, or the paper's."""
    iterations: int = 30000
    """Steps of every teacher and every student."""
    device: Optional[Literal["cuda", "cpu"]] = None
    """Where to train; if not given, on GPUs where this machine has one."""
    engine: Literal["local", "ray"] = "local"
    """Run the jobs on this machine, or on a Ray cluster."""
    slots: Optional[int] = None
    """local: jobs at a time; one on each GPU if not given, or one on a CPU, whose threads several share."""
    address: Optional[str] = None
    """ray: address of a running cluster, such as "auto" or "10.0.0.1:6379"; without, Ray is started on this machine."""
    gpus: float = 1
    """ray: GPUs of each job, when it trains on GPUs; 0.5 puts two on each."""
    cpus: int = 1
    """ray: processors of each job, and threads that it computes with."""
    retries: int = 3
    """ray: how often a job is tried again when its process or its machine was lost."""
    dry_run: bool = False
    """Print the jobs, what each needs and whether it is done, and do nothing."""

    def run(self) -> None:
        """Do what is missing, and print and write the results.

        Raises:
            ValueError: if the options make no sense together.
            SystemExit: if the sweep is interrupted, something in it has failed, or the output folder cannot be written
                to.
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
            print(f"Stopped by {reason}; the same command resumes where each training was saved.")
            raise SystemExit(EXIT_INTERRUPTED)
        if schedule.names(State.FAILED):
            raise SystemExit(failures(schedule))

    def check(self) -> None:
        """Refuse what cannot work, before any time is spent.

        Raises:
            ValueError: with one sentence on the first fault found.
        """
        names = [scene.resolve().name for scene in self.data]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"Two scenes are called {name!r}: give each once, and folders of different names.")
        if len(set(self.fractions)) < len(self.fractions):
            raise ValueError(f"--fractions {' '.join(map(str, self.fractions))} names a size twice: give each once.")
        if self.iterations < 1 or self.cpus < 1 or self.gpus <= 0 or self.retries < 0:
            raise ValueError("--iterations, --cpus and --gpus must be positive, and --retries not negative.")
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"--slots {self.slots} must be positive.")
        if self.engine == "ray":
            import distilled_splat.jobs.on_ray  # noqa: F401  # refuses where Ray is not installed

    def plan(self) -> Plan:
        """Return the graph of all scenes.

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
        """Run the schedule on the engine that was asked for, and return the signal that stopped it, if one did."""
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
        """Return what the results depend on beside the code: method, options, versions."""
        packages = ("distilled-splat", "nerfstudio", "gsplat", "torch", "numba")
        return {
            "method": self.method,
            "iterations": self.iterations,
            "options": list(self.options),
            "versions": {name: metadata.version(name) for name in packages},
        }


def listing(schedule: Schedule) -> list[str]:
    """Return a graph as lines: each job, whether it is to run, what it needs, and its command."""
    from distilled_splat.jobs.graph import State

    lines = []
    for job in schedule.jobs.values():
        state = "to run" if schedule.states[job.name] is State.WAITING else "done"
        needs = f"   (needs {'; '.join(job.needs)})" if job.needs else ""
        lines += [f"{state:8}{job.name}{needs}", f"        python {shlex.join(job.argv)}"]
    waiting = len(schedule.names(State.WAITING))
    return [*lines, f"{len(schedule.jobs)} jobs, {waiting} to run"]


def failures(schedule: Schedule) -> str:
    """Say what failed, why by the last words of its log, and what was not begun for that."""
    from distilled_splat.jobs.command import last_words
    from distilled_splat.jobs.graph import State

    failed = [schedule.jobs[name] for name in schedule.names(State.FAILED)]
    blocked = schedule.names(State.BLOCKED)
    lines = [f"{job.name} failed; its log is {job.log}\n{indented(last_words(job, 4))}" for job in failed]
    left = f" {len(blocked)} jobs that need them were not begun." if blocked else ""
    return "\n".join([*lines, f"{len(failed)} jobs failed.{left} The same command tries them again."])


def indented(words: str) -> str:
    """Move lines to the right."""
    return "\n".join(f"    {line}" for line in words.splitlines())
