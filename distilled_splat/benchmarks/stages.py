"""The memory and the time of a training, stage by stage, in a process of its own."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

from distilled_splat.benchmarks.training import peak_megabytes, silence, trainer_for
from distilled_splat.splat.gaussians import Gaussians

Learner = Literal["teacher", "student"]
STEPS = 8
"""Steps of which the last is one that cuts or densifies; the memory of the others is used again."""
VIEWS_OF_A_CUT = 8
"""Views that a cut looks at here, as each takes as long as two steps; a training looks at all."""
GROWN = 0.1
"""Part of its Gaussians that a teacher duplicates or splits here, once."""


@dataclass(frozen=True)
class Stage:
    """What a stage of a training took.

    Attributes:
        name: of the stage.
        held: memory that the process holds at its end, in 10^6 bytes.
        peak: the most that it held meanwhile.
        seconds: how long it lasted.
    """

    name: str
    held: float
    peak: float
    seconds: float


class Stages:
    """Stages that follow each other: one begins where the former ends."""

    def __init__(self, name: str) -> None:
        """Begin the first stage."""
        self.done: list[Stage] = []
        self.begin(name)

    def begin(self, name: str) -> None:
        """End the stage in hand, and begin the next."""
        self.name, self.start = name, time.perf_counter()
        forget_peak()

    def end(self) -> None:
        """Write down the stage in hand."""
        seconds = time.perf_counter() - self.start
        self.done.append(Stage(self.name, psutil.Process().memory_info().rss / 1e6, peak_megabytes(), seconds))

    def next(self, name: str) -> None:
        """Write down the stage in hand and begin another."""
        self.end()
        self.begin(name)


def forget_peak() -> None:
    """Let the system count the most memory that this process holds anew, where it can; Linux does."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf8")


def measure_training(
    learner: Learner,
    parser: NerfstudioDataParserConfig,
    gaussians: Gaussians,
    output: Path,
    teachers: tuple[Path, ...] = (),
) -> tuple[list[Stage], Path]:
    """Train for some steps, and return what each stage took, and the checkpoint.

    Args:
        learner: what is trained. A student begins as its first teacher.
        parser: how the data are parsed.
        gaussians: what a teacher begins with.
        output: folder for the run.
        teachers: of a student.
    """
    stages = Stages("nerfstudio is imported")
    with silence():
        stages.next("teachers are read, photos are loaded" if teachers else "photos are loaded")
        trainer = trainer_for("student" if teachers else "ours", parser, 1.0, output, STEPS, teachers)
        model, datamanager = trainer.pipeline.model, trainer.pipeline.datamanager
        assert len(datamanager.cached_train) > 0
        if len(datamanager.eval_dataset) > 0:
            assert len(datamanager.cached_eval) > 0
        if teachers:
            stages.next("a label is rendered")
            labels, views = model.teaching.labels, model.teaching.curriculum.views
            first = labels.of(0, views[0])
            stages.next("labels are kept")
            fill(labels, first, len(views))
            few = model.teaching.curriculum.photographed[:VIEWS_OF_A_CUT]
            model.teaching.curriculum.photographed = few
            pruning = model.teaching.pruning
            model.teaching.pruning = dataclasses.replace(pruning, target=round(0.8 * model.num_points))
        else:
            model.set_gaussians(gaussians.to_splatfacto(model.config.sh_degree))
        last = f"a cut by {VIEWS_OF_A_CUT} views" if teachers else "a step that densifies"

        def before(step: int) -> None:
            stages.next("the first step" if step == 0 else last if step == STEPS - 1 else "a step")
            if step == STEPS - 1 and not teachers:
                let_grow(model.strategy, model.strategy_state)

        def after(step: int) -> None:
            if step == STEPS - 1:
                stages.next("the checkpoint is written")

        trainer.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], before))
        trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after))
        trainer.train()
        stages.end()
    (checkpoint,) = trainer.checkpoint_dir.glob("*.ckpt")
    return together(stages.done), checkpoint


def fill(labels: Any, first: Any, views: int) -> None:
    """Keep a copy of a label for each view, as far as they are kept: to render them all takes minutes."""
    for index in range(1, views):
        if labels.kept_bytes + first.size <= labels.budget:
            labels.kept[index] = type(first)(*(None if part is None else part.clone() for part in first))
            labels.kept_bytes += first.size


def let_grow(strategy: Any, state: dict[str, Any]) -> None:
    """Let the step in hand densify, and duplicate or split a part of the Gaussians."""
    gradients = state["grad2d"] / state["count"].clamp_min(1)
    strategy.grow_grad2d = float(gradients.topk(round(GROWN * len(gradients))).values[-1])
    strategy.refine_start_iter, strategy.refine_every, strategy.reset_every = -1, 1, 10**9
    strategy.pause_refine_after_reset = 0


def together(stages: list[Stage]) -> list[Stage]:
    """Put stages of one name together: the peak is the highest, the time is the shortest, the last counts else."""
    found: dict[str, Stage] = {}
    for stage in stages:
        former = found.get(stage.name, stage)
        peak, seconds = max(stage.peak, former.peak), min(stage.seconds, former.seconds)
        found[stage.name] = dataclasses.replace(stage, peak=peak, seconds=seconds)
    return list(found.values())


def seed() -> None:
    """Let every measurement draw the same random numbers."""
    torch.manual_seed(0)
