"""Scale step numbers and learning rates to the length of the run and the size of the capture."""

from __future__ import annotations

import copy
from typing import Any

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import TrainerConfig

SHORTEST = 0.1
"""Learning rates do not grow further in runs shorter than this fraction of the schedule's length."""

EVALUATIONS, STEPS_BETWEEN = 10, 10
"""A short run evaluates a held-out photo this many times, for a curve, but at most once in so many steps."""


def reach(cameras: Cameras) -> float:
    """Return the largest camera coordinate, measured from the cameras' mean; 1 if all cameras are in one place.

    nerfstudio scales captures to size 1 in this sense, but blender-data and some other dataparsers do not.
    """
    centers = cameras.camera_to_worlds[:, :3, 3]
    return float((centers - centers.mean(dim=0)).abs().max()) or 1.0


def multiply_rates(optimizers: dict[str, Any], factors: dict[str, float]) -> None:
    """Multiply initial and final learning rates in the optimizers' config, by parameter group."""
    for name, factor in factors.items():
        group = optimizers[name]
        group["optimizer"].lr *= factor
        if getattr(group["scheduler"], "lr_final", None) is not None:
            group["scheduler"].lr_final *= factor


def scaled_to_run(config: TrainerConfig) -> TrainerConfig:
    """Return a copy of a training config whose step numbers fit its `max_num_iterations`.

    The step numbers of our model configs (`model.step_fields`) and of the learning-rate schedulers refer to a run of
    `model.schedule_length` steps. In a run of another length they are scaled in proportion, so that densification,
    degrees of spherical harmonics, resolution steps and learning-rate decay keep their place in the run. Two
    intervals are exceptions. That of densification has a minimum (`model.min_refine_every`): gradients are averaged
    over it, and an average over fewer views selects Gaussians at random. That of opacity resets is not scaled: a splat
    needs equally many steps to recover in short and long runs.

    With Adam a parameter moves by about its learning rate in every step. Centres, rotations and the harmonics above
    degree 0 have small learning rates; in a short run they would hardly leave their start. There their learning rates
    are multiplied, by the powers that `model.lr_powers()` returns (see docs/method.md).

    A short run evaluates a held-out photo more often than `steps_per_eval_image` says, unless that is 0.
    """
    config = copy.deepcopy(config)
    often_enough = max(config.max_num_iterations // EVALUATIONS, STEPS_BETWEEN)
    config.steps_per_eval_image = min(config.steps_per_eval_image, often_enough)
    model: Any = config.pipeline.model
    factor = config.max_num_iterations / model.schedule_length
    if factor == 1:
        return config

    def scaled(steps: int) -> int:
        return max(round(steps * factor), 1) if steps > 0 else steps

    reset_interval = model.reset_alpha_every * model.refine_every
    for name in model.step_fields:
        setattr(model, name, scaled(getattr(model, name)))
    model.refine_every = max(scaled(model.refine_every), min(model.refine_every, model.min_refine_every))
    model.reset_alpha_every = max(round(reset_interval / model.refine_every), 1)
    for group in config.optimizers.values():
        scheduler = group["scheduler"]
        for name in ("max_steps", "warmup_steps"):
            if scheduler is not None and hasattr(scheduler, name):
                setattr(scheduler, name, scaled(getattr(scheduler, name)))
    shorter = 1 / min(max(factor, SHORTEST), 1.0)
    multiply_rates(config.optimizers, {name: shorter**power for name, power in model.lr_powers().items()})
    model.schedule_length = config.max_num_iterations
    return config
