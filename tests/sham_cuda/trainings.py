"""Whole trainings of thirty steps on the sham device, or for comparison on the CPU in the same process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.plugins.types import MethodSpecification
from tiny import prepared, tiny_config

from distilled_splat.methods import distilled_splatfacto, distilled_splatfacto_paper, splatfacto_teacher
from sham_cuda.device import ShamTensor

STEPS = 30
TEACHER = {
    "schedule_length": STEPS,
    "warmup_length": 4,
    "refine_every": 4,
    "min_refine_every": 4,
    "stop_split_at": STEPS - 4,
    "stop_screen_size_at": 0,  # in small photos it would split all, again and again
    "densify_grad_thresh": 0.008,
    "densify_size_thresh": 0.03,
    "cull_alpha_thresh": 0.09,  # a Gaussian begins with 0.1
}
"""A teacher that is densified at steps 16, 20 and 24: before, gsplat waits for one pass over the photos."""
FIRST_DENSIFIED = 16
VARIANTS: dict[str, dict[str, Any]] = {
    "standard": {},
    "perturbed": {"perturb_start": 5, "perturb_stop": 25, "perturb_every": 6},
    "dropout": {"dropout_start": 2, "dropout_stop": 25},
}
STUDENT = {
    "schedule_length": STEPS,
    "min_teacher_psnr": 1.0,
    "keep_fraction": 0.3,
    "virtual_views": 18,
    "min_teacher_advantage": 0.0,  # these teachers know hardly better
    "full_overfit_gap": 0.0,
    "max_teacher_disagreement": 0.0,
    "prune_times": 3,
    "prune_stop": 10,
}
PAPER_STUDENT = {
    "schedule_length": STEPS,
    "min_teacher_psnr": 1.0,
    "keep_fraction": 0.3,
    "warmup_length": 4,
    "refine_every": 2,
    "min_refine_every": 2,
    "stop_screen_size_at": 0,
    "densify_grad_thresh": 0.002,
    "densify_size_thresh": 0.03,
    "prune_start": 15,
    "prune_stop": 15,
    "stop_split_at": 15,
    "structure_every": 5,
}


@dataclass
class Run:
    """One training, and what was seen of it.

    Attributes:
        trainer: at its end.
        losses: of each step, by name.
        counts: Gaussians after each step.
        grown: by densification, each time it was due: how many were duplicated and split.
        pruned: the same, how many were removed.
    """

    trainer: Any
    losses: list[dict[str, float]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    grown: list[tuple[int, int]] = field(default_factory=list)
    pruned: list[int] = field(default_factory=list)

    @property
    def model(self) -> Any:
        return self.trainer.pipeline.model

    @property
    def folder(self) -> Path:
        return self.trainer.base_dir

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yml"

    @property
    def is_on_device(self) -> bool:
        """Whether all parameters are on the sham device."""
        return all(isinstance(parameter, ShamTensor) for parameter in self.model.gauss_params.values())


def config_on(
    device: str,
    method: MethodSpecification,
    scene: Path,
    output: Path,
    steps: int = STEPS,
    cache_images: str = "gpu",
    evaluated: bool = True,
    **options: Any,
) -> Any:
    """Return a config for a device ("cuda" or "cpu").

    Args:
        device: what to train on.
        method: of which the config is.
        scene: the capture.
        output: where runs go.
        steps: length of the run.
        cache_images: "cpu" or "gpu", where photos are kept.
        evaluated: whether the run is evaluated while it trains, in every way there is.
        options: of the model.
    """
    config = tiny_config(method, scene, output, steps, **options)
    config.machine.device_type = device
    config.pipeline.datamanager.cache_images = cache_images
    every = (4, 4, 16) if evaluated else (0, 0, 0)
    config.steps_per_eval_image, config.steps_per_eval_batch, config.steps_per_eval_all_images = every
    return config


def teacher_on(device: str, scene: Path, output: Path, variant: str = "standard", **options: Any) -> Any:
    """Return a teacher's config."""
    options = {"variant": variant, **TEACHER, **VARIANTS[variant], **options}
    return config_on(device, splatfacto_teacher, scene, output, **options)


def student_on(device: str, scene: Path, output: Path, teachers: tuple[Path, ...], **options: Any) -> Any:
    """Return a student's config."""
    return config_on(device, distilled_splatfacto, scene, output, **{"teachers": teachers, **STUDENT, **options})


def paper_student_on(device: str, scene: Path, output: Path, teachers: tuple[Path, ...], **options: Any) -> Any:
    """Return the config of a student by the paper's schedule."""
    options = {"teachers": teachers, **PAPER_STUDENT, **options}
    return config_on(device, distilled_splatfacto_paper, scene, output, **options)


def watched(trainer: Any) -> Run:
    """Return a run whose steps will be written down."""
    run = Run(trainer)
    strategy = run.model.strategy
    grow, prune, iterate = strategy._grow_gs, strategy._prune_gs, trainer.train_iteration

    def noted(into: list[Any], function: Any) -> Any:
        def call(*args: Any) -> Any:
            into.append(function(*args))
            return into[-1]

        return call

    def iterated(step: int) -> Any:
        result = iterate(step)
        run.losses.append({name: float(value) for name, value in result[1].items()})
        run.counts.append(run.model.num_points)
        return result

    strategy._grow_gs, strategy._prune_gs = noted(run.grown, grow), noted(run.pruned, prune)
    trainer.train_iteration = iterated
    return run


def train(config: Any) -> Run:
    """Train a config to its end."""
    run = watched(prepared(config))
    run.trainer.train()
    return run


def train_until(config: Any, last: int) -> Run:
    """Train a config until it is stopped after a step, as by Ctrl-C; it saves and leaves."""
    trainer = prepared(config)

    def stop(step: int) -> None:
        if step == last:
            trainer.stop("the test")

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], stop))
    run = watched(trainer)
    try:
        trainer.train()
    except SystemExit:
        return run
    raise AssertionError("The training was not stopped.")
