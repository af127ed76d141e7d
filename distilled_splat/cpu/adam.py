"""One step of Adam in one pass over the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import LANES, square_root
from distilled_splat.cpu.simd_memory import gather, load, scatter, store
from distilled_splat.cpu.threads import parallel_ranges

_ONE = np.float32(1)


@kernel
def _adam_kernel(
    start: int,
    stop: int,
    parameter: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    beta1: Any,
    beta2: Any,
    step_size: Any,
    unbiased: Any,
    epsilon: Any,
) -> None:
    """Update blocks of LANES numbers."""
    for block in range(start, stop):
        at = block * LANES
        count = min(LANES, len(parameter) - at)
        if count == LANES:
            g, m, v, p = load(gradient, at), load(mean, at), load(square, at), load(parameter, at)
        else:
            g, m = gather(gradient, at, 1, count), gather(mean, at, 1, count)
            v, p = gather(square, at, 1, count), gather(parameter, at, 1, count)
        m = m + (_ONE - beta1) * (g - m)
        v = beta2 * v + (_ONE - beta2) * (g * g)
        p = p - step_size * m / (square_root(v) * unbiased + epsilon)
        if count == LANES:
            store(mean, at, m)
            store(square, at, v)
            store(parameter, at, p)
        else:
            scatter(mean, at, 1, count, m)
            scatter(square, at, 1, count, v)
            scatter(parameter, at, 1, count, p)


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """Make one step of Adam (Kingma and Ba 2015) in place, as `torch.optim.Adam` does.

    Args:
        parameter: what is optimised, contiguous float32 on the CPU, of any shape.
        gradient: its gradient, of the same shape.
        mean, square: running means of the gradient and of its square, contiguous, of the same shape.
        step: number of this step, from 1.
        lr: learning rate.
        betas: decay of the running means.
        epsilon: added to the root of the unbiased mean square.
    """
    beta1, beta2 = betas
    step_size = np.float32(lr / (1 - beta1**step))
    unbiased = np.float32((1 - beta2**step) ** -0.5)
    arrays = [x.detach().view(-1).numpy() for x in (parameter, gradient.contiguous(), mean, square)]
    blocks = (parameter.numel() + LANES - 1) // LANES
    settings = (np.float32(beta1), np.float32(beta2), step_size, unbiased, np.float32(epsilon))
    parallel_ranges(_adam_kernel, blocks, *arrays, *settings)
