"""The time of each stage of rasterization on the CPU, on random scenes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distilled_splat.benchmarks.workload import (
    BACKWARD_OPERATIONS,
    FORWARD_OPERATIONS,
    count_contributions,
    random_scene,
)
from distilled_splat.cpu import buffers
from distilled_splat.cpu.blend_backward import SUMS, blend_backward_kernel, gather_kernel
from distilled_splat.cpu.blend_forward import TABLE, blend_kernel
from distilled_splat.cpu.harmonics import shade
from distilled_splat.cpu.projection import camera_array, project
from distilled_splat.cpu.rasterize import rasterization
from distilled_splat.cpu.threads import num_threads, on_all_threads, parallel_ranges
from distilled_splat.cpu.tiles import list_tiles

SIZES = ((50_000, 480, 270), (200_000, 960, 540))
"""Gaussians, width and height of each scene."""

_DEGREE = 3


@dataclass(frozen=True)
class Measurement:
    """The measurements of one scene."""

    gaussians: int
    width: int
    height: int
    contributions_per_pixel: float
    """Mean number of Gaussians drawn at a pixel."""
    milliseconds: dict[str, float]
    """Median wall time of each stage."""
    peak_shares: dict[str, float]
    """Useful arithmetic of the blending stages, as a fraction of the peak of all threads."""


def measure(count: int, width: int, height: int, repeats: int, peak: float) -> Measurement:
    """Time the stages on a random scene.

    Args:
        count: Number of Gaussians.
        width, height: Image size in pixels.
        repeats: Number of runs of each stage.
        peak: Fused multiply-add peak of one core in GFLOP/s.
    """
    stages, contributions = _stages(count, width, height)
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for repeat in range(repeats + 1):
        for name, stage in stages.items():
            start = time.perf_counter()
            stage()
            if repeat > 0:
                seconds[name].append(time.perf_counter() - start)
    milliseconds = {name: 1e3 * float(np.median(times)) for name, times in seconds.items()}
    operations = {"blend forward": FORWARD_OPERATIONS, "blend backward": BACKWARD_OPERATIONS}
    shares = {
        name: contributions * per_contribution / (milliseconds[name] * 1e6 * peak * num_threads())
        for name, per_contribution in operations.items()
    }
    return Measurement(count, width, height, contributions / (width * height), milliseconds, shares)


def _stages(count: int, width: int, height: int) -> tuple[dict[str, Callable[[], Any]], int]:
    """Make a scene. Return its stages by name, in the order of a step, and the scene's number of contributions."""
    scene = random_scene(count, width, height)
    names = ("means", "quats", "scales", "opacities", "colors")
    leaves = {name: scene[name].clone().requires_grad_() for name in names}
    means, quats, scales, opacities, colors = leaves.values()
    camera = camera_array(scene["viewmats"][0].numpy(), scene["Ks"][0].numpy(), width, height, 0.01, 1e10, 0.3, 0.0)
    centres = torch.zeros(1, 3)

    projected = project(means, quats, scales, scene["viewmats"], camera[None], False)
    shaded = shade(means, centres, colors, None, _DEGREE, projected.radii)
    v_projected = [torch.rand_like(x) for x in projected[:3]]
    v_shaded = torch.rand_like(shaded)

    means2d, depths, conics, _, radii = (x.detach().numpy() for x in projected)
    listed = (means2d[0], conics[0], opacities.detach().numpy(), radii[0], shaded.detach().numpy()[0], depths[0])
    tiles = list_tiles(*listed, with_depth=False, width=width, height=height)
    image, alphas = buffers.empty((height, width, 3)), buffers.empty((height, width, 1))
    transmittances, stops = buffers.empty((height, width)), buffers.empty((height, width), np.int32)
    v_image, v_alphas = np.random.rand(height, width, 3), np.random.rand(height, width, 1)
    v_image, v_alphas = v_image.astype(np.float32), v_alphas.astype(np.float32)
    slots = buffers.empty((len(tiles.pairs), SUMS))
    v_splats = [buffers.empty(x.shape) for x in (means2d[0], conics[0], listed[2], listed[4], depths[0])]
    black, absgrads = np.zeros(3, np.float32), buffers.empty((count, 2))
    tiled = (TABLE, tiles.records, tiles.pairs, tiles.tile_starts, black, 0, 3, width, height)
    entries = (tiles.entries, tiles.entry_pairs)
    whole = {**leaves, "viewmats": scene["viewmats"], "Ks": scene["Ks"], "width": width, "height": height}

    def step() -> None:
        for leaf in leaves.values():
            leaf.grad = None
        rendered = rasterization(**whole, sh_degree=_DEGREE, absgrad=True)[:2]
        torch.autograd.backward(rendered, [torch.from_numpy(v_image)[None], torch.from_numpy(v_alphas)[None]])

    def render() -> None:
        with torch.no_grad():
            rasterization(**whole, sh_degree=_DEGREE)

    stages: dict[str, Callable[[], Any]] = {
        "projection forward": lambda: project(means, quats, scales, scene["viewmats"], camera[None], False),
        "harmonics forward": lambda: shade(means, centres, colors, None, _DEGREE, projected.radii),
        "sort, pack, bin": lambda: list_tiles(*listed, with_depth=False, width=width, height=height),
        "blend forward": lambda: on_all_threads(blend_kernel, *tiled, image, alphas, True, transmittances, stops),
        "blend backward": lambda: on_all_threads(
            blend_backward_kernel, *tiled, transmittances, stops, v_image, v_alphas, True, slots
        ),
        "gather": lambda: parallel_ranges(
            gather_kernel, count, *entries, slots, conics[0], listed[2], 0, *v_splats, False, absgrads
        ),
        "harmonics backward": lambda: torch.autograd.grad(shaded, [means, colors], v_shaded, retain_graph=True),
        "projection backward": lambda: torch.autograd.grad(
            projected[:3], [means, quats, scales], v_projected, retain_graph=True
        ),
        "forward without gradients": render,
        "forward + backward": step,
    }
    return stages, count_contributions(tiles, width, height)
