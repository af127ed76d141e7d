"""Real spherical harmonics in the basis of 3DGS, and the rotation of their coefficients.

Every splat trainer stores coefficients of this basis, independently of the version of nerfstudio.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLES_PER_COEFFICIENT = 8


def harmonics(degree: int, directions: Tensor) -> Tensor:
    """Evaluate the basis: orthonormal, with the Condon-Shortley phase, with orders from -band to band.

    An order m > 0 has the real part of (x + i y)^m as a factor, an order m < 0 the imaginary part of (x + i y)^|m|.

    Args:
        degree: highest band, at least 0.
        directions: unit vectors, [N, 3].

    Returns:
        [N, (degree + 1)^2], float64.
    """
    x, y, z = directions.double().unbind(-1)
    around, columns = torch.complex(x, y), [torch.empty(0)] * (degree + 1) ** 2
    for order in range(degree + 1):
        wave = around**order
        for band, legendre in enumerate(legendre_functions(order, degree, z), start=order):
            ratio = math.factorial(band - order) / math.factorial(band + order)
            scaled = math.sqrt((2 * band + 1) / (4 * math.pi) * ratio) * legendre
            if order > 0:
                scaled = (-1) ** order * math.sqrt(2) * scaled
                columns[band * (band + 1) - order] = scaled * wave.imag
            columns[band * (band + 1) + order] = scaled * wave.real
    return torch.stack(columns, dim=-1)


def legendre_functions(order: int, degree: int, z: Tensor) -> list[Tensor]:
    """Return the associated Legendre functions of one order, for all bands from this order to `degree`, by recurrence.

    They are divided by (1 - z^2)^(order / 2), so they are polynomials, and they have no phase.

    Args:
        order: at least 0.
        degree: highest band, at least the order.
        z: cosines, [N].
    """
    found = [torch.full_like(z, math.prod(range(1, 2 * order, 2)))]
    for band in range(order + 1, degree + 1):
        before = (band + order - 1) * found[-2] if len(found) > 1 else 0
        found.append(((2 * band - 1) * z * found[-1] - before) / (band - order))
    return found


def harmonics_rotation(orthogonal: Tensor, degree: int) -> Tensor:
    """Return the matrix that rotates coefficients of real spherical harmonics with the scene.

    A colour c(d) = Y(d) s becomes c(Q^-1 d) when Q rotates the scene. So the new coefficients s' solve
    Y(d) s' = Y(Q^-1 d) s for all d. Bands are invariant under rotation, so a few directions determine s' exactly.

    Args:
        orthogonal: Q, a rotation or a reflection, [3, 3].
        degree: highest degree.

    Returns:
        [(degree + 1)^2, (degree + 1)^2], float32.
    """
    count = SAMPLES_PER_COEFFICIENT * (degree + 1) ** 2
    directions = torch.randn(count, 3, generator=torch.Generator().manual_seed(0)).double()
    directions = torch.nn.functional.normalize(directions, dim=-1)
    there, here = harmonics(degree, directions), harmonics(degree, directions @ orthogonal.double())
    return torch.linalg.lstsq(there, here).solution.float()
