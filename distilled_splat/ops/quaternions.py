"""Rotations as quaternions (w, x, y, z)."""

from __future__ import annotations

import torch
from gsplat.utils import normalized_quat_to_rotmat
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["normalized_quat_to_rotmat", "quaternion_product", "small_random_rotation"]


def small_random_rotation(count: int, noise: float, like: Tensor) -> Tensor:
    """Return random rotations, by noise on the 6D form of the identity, as quaternions (w, x, y, z), [count, 4].

    Orthonormalising the two noisy columns commutes with a rotation, and the noise is isotropic. So a Gaussian's
    rotation times one of these has the same distribution as its own 6D form with this noise.
    """
    first = normalize(torch.eye(3, device=like.device)[0] + noise * torch.randn(count, 3, device=like.device), dim=-1)
    second = torch.eye(3, device=like.device)[1] + noise * torch.randn(count, 3, device=like.device)
    second = normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    third = torch.cross(first, second, dim=-1)
    # near the identity the scalar part is far from zero
    w = torch.sqrt((1 + first[:, 0] + second[:, 1] + third[:, 2]).clamp_min(1e-12)) / 2
    xyz = torch.stack((second[:, 2] - third[:, 1], third[:, 0] - first[:, 2], first[:, 1] - second[:, 0]), dim=-1) / (
        4 * w[:, None]
    )
    return torch.cat((w[:, None], xyz), dim=-1)


def quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the quaternions (w, x, y, z) of the rotation by `b` and then by `a`, [N, 4]."""
    scalar = a[:, :1] * b[:, :1] - (a[:, 1:] * b[:, 1:]).sum(-1, keepdim=True)
    vector = a[:, :1] * b[:, 1:] + b[:, :1] * a[:, 1:] + torch.cross(a[:, 1:], b[:, 1:], dim=-1)
    return torch.cat((scalar, vector), dim=-1)
