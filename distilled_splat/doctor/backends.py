"""Check every backend with the same small splat: render it, differentiate it, and train for ten steps."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distilled_splat.doctor.findings import Finding, looked_at
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians

STEPS = 10
MOST_APART = 1e-3
"""Relative difference of two backends above which one of them is wrong; they agree to about 1e-6."""
MOST_OFF = 1e-3
"""Relative difference of a derivative from finite differences above which it is wrong; single precision is 1e-5 off."""
PART = 1e-2
"""Step of the finite differences, as a fraction of a random direction of length 1 in each number."""


def devices() -> list[str]:
    """Return the available devices."""
    return ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]


def look_at_backends() -> Iterator[Finding]:
    """Render, differentiate and train on every device, and compare them."""
    pictures: dict[str, dict[str, Tensor]] = {}
    for device in devices():

        def look(device: str = device) -> Finding:
            begun = time.monotonic()
            pictures[device] = picture_and_gradients(device)
            seconds = time.monotonic() - begun
            off = off_from_finite_differences(device)
            words = f"first render with gradients in {seconds:.1f} s, {off:.1e} from finite differences"
            return Finding(f"rendering, {device}", words, "ok" if off <= MOST_OFF else "fault")

        yield looked_at(f"rendering, {device}", look)
    if len(pictures) > 1:
        yield looked_at("agreement", lambda: agreement(*pictures.values()))
    with tempfile.TemporaryDirectory() as folder:
        for device in devices():
            yield looked_at(f"training, {device}", lambda device=device: ten_steps(device, Path(folder)))


def smooth_splat(count: int = 16, width: int = 48, height: int = 32) -> tuple[Gaussians, View]:
    """Make a splat for finite differences: large, faint Gaussians well apart in depth, far from every cutoff."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    depth = 3 + 0.25 * torch.arange(float(count))[:, None]
    gaussians = Gaussians(
        means=torch.cat((0.4 * normal(count, 2), depth), dim=1),
        quats=normal(count, 4),
        log_scales=1.5 + 0.1 * normal(count, 3),
        logit_opacities=-3 + 0.3 * normal(count),
        sh_dc=0.5 * normal(count, 3),
        sh_rest=0.1 * normal(count, 15, 3),
    )
    K = torch.tensor([[40.0, 0, width / 2], [0, 40.0, height / 2], [0, 0, 1]])
    return gaussians, View(torch.eye(4), K, width, height)


def on_device(device: str) -> tuple[Gaussians, View, Tensor]:
    """Return the splat with tensors that require gradients, the view, and random weights of the picture [H, W, 3]."""
    splat, view = smooth_splat()
    tensors = {field.name: getattr(splat, field.name).to(device).requires_grad_() for field in fields(splat)}
    weights = torch.randn(view.height, view.width, 3, generator=torch.Generator().manual_seed(1))
    view = replace(view, viewmat=view.viewmat.to(device), K=view.K.to(device))
    return Gaussians(**tensors), view, weights.to(device)


def picture_and_gradients(device: str) -> dict[str, Tensor]:
    """Render on a device. Return picture, alpha, depth and the gradients of the six tensors, all on the CPU."""
    splat, view, weights = on_device(device)
    rendered = render(splat, view, background=torch.ones(3, device=device), depth=True)
    assert rendered.depth is not None
    ((rendered.color * weights).sum() + 0.1 * rendered.depth.sum()).backward()
    found = {"picture": rendered.color, "alpha": rendered.alpha, "depth": rendered.depth}
    found |= {f"gradient of {field.name}": getattr(splat, field.name).grad for field in fields(splat)}
    return {name: value.detach().cpu() for name, value in found.items()}


def agreement(one: dict[str, Tensor], other: dict[str, Tensor]) -> Finding:
    """Compare the results of two devices for the same splat."""
    apart = {name: float((one[name] - other[name]).norm() / other[name].norm()) for name in other}
    apart = {name: math.inf if math.isnan(value) else value for name, value in apart.items()}
    worst = max(apart, key=lambda name: apart[name])
    words = f"the renders differ by {apart['picture']:.1e}, the largest difference is {apart[worst]:.1e} ({worst})"
    if apart[worst] > MOST_APART:
        return Finding("agreement", f"{words}: CUDA and CPU disagree, please report this", "fault")
    return Finding("agreement", words)


def off_from_finite_differences(device: str) -> float:
    """Return the relative error of a render's derivative in a random direction against finite differences."""
    splat, view, weights = on_device(device)
    generator = torch.Generator().manual_seed(2)
    directions = {
        field.name: torch.randn(getattr(splat, field.name).shape, generator=generator).to(device)
        for field in fields(splat)
    }

    def value(splat: Gaussians) -> Tensor:
        return (render(splat, view).color * weights).sum()

    value(splat).backward()
    derivative = sum(float((getattr(splat, name).grad * towards).sum()) for name, towards in directions.items())
    with torch.no_grad():
        ends = [
            float(value(Gaussians(**{name: getattr(splat, name) + part * d for name, d in directions.items()})))
            for part in (PART, -PART)
        ]
    return abs((ends[0] - ends[1]) / (2 * PART) - derivative) / abs(derivative)


def ten_steps(device: str, folder: Path) -> Finding:
    """Train a teacher for ten steps as ns-train does, and report the median time of a step."""
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    from distilled_splat.benchmarks.training import silence, trainer_for
    from distilled_splat.demo.scene import make_scene

    scene = make_scene(folder / "scene", views=12, width=128, height=96, points=1000)
    parser = NerfstudioDataParserConfig(data=scene, load_3D_points=True, eval_mode="interval", eval_interval=4)
    with silence():
        trainer = trainer_for("ours", parser, 1.0, folder / device, STEPS, (), device)
        times = step_times(trainer, device)
        trainer.train()
    losses = [float(value) for value in trainer.losses.values()]
    if not np.isfinite(losses).all():
        return Finding(f"training, {device}", f"the loss is {losses} after {STEPS} steps", "fault")
    milliseconds = 1e3 * float(np.median(np.diff(times)))
    words = f"{STEPS} steps of {trainer.pipeline.model.num_points} Gaussians, {milliseconds:.1f} ms a step"
    return Finding(f"training, {device}", words)


def step_times(trainer: Any, device: str) -> list[float]:
    """Return a list to which a trainer will append the time after each step."""
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

    times: list[float] = []

    def note(step: int) -> None:
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], note))
    return times
