"""The scene of the step benchmark, its amount of arithmetic, and the peak arithmetic of the processor."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import LANES, splat
from distilled_splat.cpu.simd import multiply_add as fma
from distilled_splat.cpu.simd_memory import load, store
from distilled_splat.cpu.tiles import CUTOFF, ROW_BITS, TILE, TileLists

FORWARD_OPERATIONS = 29
"""Floating-point operations of one Gaussian at one pixel: exponent 4, exp2 13, alpha and light 4, four channels 8."""
BACKWARD_OPERATIONS = 53
"""The same backward: exponent and alpha 18, light 3, three channels 11, dL/d(ln alpha) 7, moments 6, absgrad 8."""
_CHAINS = 10
"""Number of independent multiply-adds: enough to hide their latency on any known processor."""


def random_scene(count: int, width: int, height: int, seed: int = 0) -> dict[str, Tensor]:
    """Return a random scene as heavy as a real one: 35 to 44 Gaussians contribute to a pixel.

    Half of the Gaussians are spread over the whole screen, half are concentrated around its centre. They are
    anisotropic, have all opacities, and are in four layers of depth.

    Args:
        count: Number of Gaussians.
        width, height: Image size in pixels; the Gaussians' sizes are fitted to it.
        seed: Seed of the random numbers.

    Returns:
        The arguments of `rasterization` except size and settings, by name.
    """
    generator = torch.Generator().manual_seed(seed)
    focal = 0.9 * width
    on_screen = torch.rand(count, 2, generator=generator)
    heaped = count // 2
    on_screen[:heaped] = 0.5 + 0.15 * torch.randn(heaped, 2, generator=generator)
    layer = torch.randint(0, 4, (count,), generator=generator)
    depth = 2 + 1.5 * layer + 0.3 * torch.randn(count, generator=generator).clamp(-2, 2)
    offset = (on_screen - 0.5) * torch.tensor([width, height]) / focal
    spread = 1.02 * math.sqrt(width * height / count) * torch.exp(0.5 * torch.randn(count, 3, generator=generator))
    return {
        "means": torch.cat([offset * depth[:, None], depth[:, None]], dim=-1),
        "quats": torch.randn(count, 4, generator=generator),
        "scales": spread * depth[:, None] / focal,
        "opacities": torch.sigmoid(1.5 * torch.randn(count, generator=generator) - 1),
        "colors": 0.15 * torch.randn(count, 16, 3, generator=generator),
        "viewmats": torch.eye(4)[None],
        "Ks": torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]]),
    }


@kernel
def _count_contributions(records: Any, pairs: Any, tile_starts: Any, width: int, height: int) -> int:
    count, tiles_x = 0, (width + TILE - 1) // TILE
    for tile in range(len(tile_starts) - 1):
        for row in range(tile // tiles_x * TILE, min(tile // tiles_x * TILE + TILE, height)):
            for column in range(tile % tiles_x * TILE, min(tile % tiles_x * TILE + TILE, width)):
                light = 1.0
                for pair in range(tile_starts[tile], tile_starts[tile + 1]):
                    rows = pairs[pair, 1] >> (2 * ROW_BITS * (column % TILE // LANES))
                    first, stop = rows & (1 << ROW_BITS) - 1, (rows >> ROW_BITS) & (1 << ROW_BITS) - 1
                    if not first <= row % TILE < stop:
                        continue
                    r = records[pairs[pair, 0]]
                    dx, dy = column + 0.5 - r[0], row + 0.5 - r[1]
                    exponent = r[5] + r[2] * dx * dx + r[3] * dx * dy + r[4] * dy * dy
                    if exponent >= CUTOFF:
                        light *= 1 - min(2.0**exponent, 0.999)
                        if light <= 1e-4:
                            break
                        count += 1
    return count


def count_contributions(tiles: TileLists, width: int, height: int) -> int:
    """Return the number of pairs of a pixel and a Gaussian that is drawn there."""
    return _count_contributions(tiles.records, tiles.pairs, tiles.tile_starts, width, height)


@kernel
def _multiply_add(repeats: int, numbers: Any) -> None:
    a, b, c, d, e = load(numbers, 0), load(numbers, 1), load(numbers, 2), load(numbers, 3), load(numbers, 4)
    f, g, h, i, j = load(numbers, 5), load(numbers, 6), load(numbers, 7), load(numbers, 8), load(numbers, 9)
    x, y = splat(np.float32(0.999)), splat(np.float32(0.001))
    for _ in range(repeats):
        a, b, c, d, e = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y), fma(e, x, y)
        f, g, h, i, j = fma(f, x, y), fma(g, x, y), fma(h, x, y), fma(i, x, y), fma(j, x, y)
    store(numbers, 0, a + b + c + d + e + f + g + h + i + j)


def measure_peak() -> float:
    """Measure the fused multiply-add peak of one core, in GFLOP/s: the best of 20 runs of some milliseconds."""
    numbers = np.linspace(0, 1, _CHAINS + 2 * LANES, dtype=np.float32)
    repeats, best = 300_000, math.inf
    _multiply_add(1, numbers)
    for _ in range(20):
        start = time.perf_counter()
        _multiply_add(repeats, numbers)
        best = min(best, time.perf_counter() - start)
    return 2 * _CHAINS * LANES * repeats / best / 1e9
