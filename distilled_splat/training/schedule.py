"""Keep the shape of a training schedule whatever its length, and how far the Gaussians can travel in it."""

from __future__ import annotations

import copy
from typing import Any

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import TrainerConfig

SHORTEST = 0.1
"""Learning rates grow no further in runs that are shorter than this part of the schedule's length."""

EVALUATIONS, STEPS_BETWEEN = 10, 10
"""In a short run a held-out photo is looked at so many times, but not more often than every so many steps: a curve of
fewer points says nothing."""


def reach(cameras: Cameras) -> float:
    """Return the largest coordinate of a camera, seen from the middle of all; 1 if all stand in one place.

    nerfstudio brings captures to the size 1 in this sense, but blender-data and some others leave them as they are.
    """
    centers = cameras.camera_to_worlds[:, :3, 3]
    return float((centers - centers.mean(dim=0)).abs().max()) or 1.0


def multiply_rates(optimizers: dict[str, Any], factors: dict[str, float]) -> None:
    """Multiply learning rates, first and final, in the config of the optimizers, by parameter group."""
    for name, factor in factors.items():
        group = optimizers[name]
        group["optimizer"].lr *= factor
        if getattr(group["scheduler"], "lr_final", None) is not None:
            group["scheduler"].lr_final *= factor


def scaled_to_run(config: TrainerConfig) -> TrainerConfig:
    """Return a copy of a training config whose step numbers fit its `max_num_iterations`.

    The step numbers of our model configs (`model.step_fields`, `model.interval_fields`) and of the learning-rate
    schedulers speak of a run of `model.schedule_length` steps. A run of another length gets them in proportion, so
    that densification, degrees of spherical harmonics, resolution steps and learning-rate decay keep their place in it.
    Two intervals do not: that of densification has a floor (`model.min_refine_every`), because it is the window over
    which gradients are averaged, and a window of fewer views than that chooses Gaussians by chance; that of opacity
    resets stays what it is, because a splat takes as many steps to recover from one in a short run as in a long one.

    With Adam a parameter moves by about its learning rate in every step. Centres, rotations and the harmonics above
    degree 0 have small ones, which in a short run would leave them near to where they began; there theirs are larger,
    by the powers that `model.lr_powers()` gives (see docs/method.md).

    A short run looks at a held-out photo more often than `steps_per_eval_image` says, unless that is 0.
    """
    config = copy.deepcopy(config)
    config.steps_per_eval_image = min(
        config.steps_per_eval_image, max(config.max_num_iterations // EVALUATIONS, STEPS_BETWEEN)
    )
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
