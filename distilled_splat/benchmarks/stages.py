"""The memory and the time of a training, stage by stage, in a process of its own."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

from distilled_splat.benchmarks.training import peak_megabytes, silence, trainer_for
from distilled_splat.training.memory import Place

STEPS = 6
"""Number of training steps. The last one prunes or densifies; the others use the same memory again."""
VIEWS_OF_A_CUT = 4
"""Number of views in a pruning here. Each takes as long as two steps; a real training uses all views."""
GROWN = 0.1
"""Fraction of its Gaussians that a teacher duplicates or splits here, once."""


@dataclass(frozen=True)
class Stage:
    """The cost of one stage of a training.

    Attributes:
        name: name of the stage.
        held: memory of the process at the end of the stage, in 10^6 bytes.
        peak: largest memory during the stage, in 10^6 bytes.
        seconds: duration of the stage.
        processor_seconds: time that all threads together computed.
    """

    name: str
    held: float
    peak: float
    seconds: float
    processor_seconds: float


class StageRecorder:
    """A sequence of stages. Each stage begins where the previous one ends."""

    def __init__(self, name: str) -> None:
        """Begin the first stage."""
        self.done: list[Stage] = []
        self.begin(name)

    def begin(self, name: str) -> None:
        """Begin a stage."""
        self.name, self.start, self.start_of_work = name, time.perf_counter(), time.process_time()
        forget_peak()

    def end(self) -> None:
        """End and record the current stage."""
        seconds, work = time.perf_counter() - self.start, time.process_time() - self.start_of_work
        held = psutil.Process().memory_info().rss / 1e6
        self.done.append(Stage(self.name, held, max(peak_megabytes(), held), seconds, work))

    def next(self, name: str) -> None:
        """End and record the current stage, and begin another."""
        self.end()
        self.begin(name)


def forget_peak() -> None:
    """Reset the system's record of this process's largest memory, if the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf8")


def measure_training(
    parser: NerfstudioDataParserConfig,
    start: Path,
    output: Path,
    place: Place = "gpu",
    teachers: tuple[Path, ...] = (),
    label_megabytes: float = 4096,
) -> tuple[list[Stage], Path]:
    """Train a teacher, or a student if there are teachers, for some steps.

    Args:
        parser: the dataparser.
        start: checkpoint of a teacher's first Gaussians. A student starts from its first teacher.
        output: folder for the run.
        place: where to keep the photos.
        teachers: the student's teachers; empty for a teacher.
        label_megabytes: largest cache of pseudo labels, in megabytes.

    Returns:
        The cost of each stage, and the run's checkpoint.
    """
    stages = StageRecorder("import nerfstudio")
    stages.next("read teachers and photos" if teachers else "read photos")
    with silence():
        trainer = trainer_for("student" if teachers else "ours", parser, 1.0, output, STEPS, teachers, place=place)
        model, datamanager = trainer.pipeline.model, trainer.pipeline.datamanager
        assert len(datamanager.cached_train) > 0 and len(datamanager.cached_eval) > 0
        if teachers:
            model.teaching.labels.budget = min(model.teaching.labels.budget, int(label_megabytes * 1e6))
            get_ready_to_cut(model, stages)
        else:
            kept = torch.load(start, weights_only=True, mmap=True)["pipeline"]
            model.set_gaussians({name.removeprefix("_model.gauss_params."): value for name, value in kept.items()})
            del kept
        step_by_step(
            trainer,
            stages,
            f"a step and a pruning by {VIEWS_OF_A_CUT} views" if teachers else "a step that densifies",
        )
    (checkpoint,) = trainer.checkpoint_dir.glob("*.ckpt")
    return together(stages.done), checkpoint


def get_ready_to_cut(student: Any, stages: StageRecorder) -> None:
    """Fill a student's cache of pseudo labels, and let its last step prune a fifth of the Gaussians, by few views."""
    stages.next("render a label")
    teaching = student.teaching
    label = teaching.labels.of(0, teaching.curriculum.views[0])
    stages.next("cache labels")
    fill(teaching.labels, label, len(teaching.curriculum.views))
    teaching.curriculum.photographed = teaching.curriculum.photographed[:VIEWS_OF_A_CUT]
    teaching.pruning = dataclasses.replace(teaching.pruning, target=round(0.8 * student.num_points))


def step_by_step(trainer: Any, stages: StageRecorder, last: str) -> None:
    """Train to the end. Each step is a stage; so are the last step and the work after it."""
    grows = not hasattr(trainer.pipeline.model, "teaching")

    def before(step: int) -> None:
        stages.next("the first step" if step == 0 else last if step == STEPS - 1 else "a step")
        if grows and step == STEPS - 1:
            let_grow(trainer.pipeline.model.strategy, trainer.pipeline.model.strategy_state)

    def after(step: int) -> None:
        if step == STEPS - 1:
            stages.next("write checkpoint and report" if not grows else "write checkpoint")

    trainer.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], before))
    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after))
    trainer.train()
    stages.end()


def fill(labels: Any, first: Any, views: int) -> None:
    """Store a copy of one pseudo label for each view until the cache is full; rendering all of them takes minutes."""
    for index in range(1, views):
        if labels.kept_bytes + first.size <= labels.budget:
            labels.kept[index] = type(first)(*(None if part is None else part.clone() for part in first))
            labels.kept_bytes += first.size


def let_grow(strategy: Any, state: dict[str, Any]) -> None:
    """Make the current step densify, and duplicate or split a fraction of the Gaussians."""
    gradients = state["grad2d"] / state["count"].clamp_min(1)
    strategy.grow_grad2d = float(gradients.topk(round(GROWN * len(gradients))).values[-1])
    strategy.refine_start_iter, strategy.refine_every, strategy.reset_every = -1, 1, 10**9
    strategy.pause_refine_after_reset = 0


def together(stages: list[Stage]) -> list[Stage]:
    """Merge stages of the same name: the highest peak, the median times, and the memory at the end of the last one."""
    found: dict[str, list[Stage]] = {}
    for stage in stages:
        found.setdefault(stage.name, []).append(stage)
    return [
        Stage(
            name,
            held=same[-1].held,
            peak=max(stage.peak for stage in same),
            seconds=median(stage.seconds for stage in same),
            processor_seconds=median(stage.processor_seconds for stage in same),
        )
        for name, same in found.items()
    ]
