"""Carry Gaussians from one world frame into another: centres, sizes, rotations and spherical harmonics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.harmonics import harmonics_rotation

RIGHT_UP_BACK = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0]])
"""Turns axes right, up and back to right, down and front, and the other way round, [3, 4]."""
LEFT_UP_FRONT = torch.tensor([[-1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0]])
"""Turns axes left, up and front to right, down and front, and the other way round, [3, 4]; see `half_turned`."""
UPRIGHT = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0]])
"""Turns nerfstudio's axes, of which z points up, to those of 3DGS, of which y points down, [3, 4]."""
Move = tuple[Tensor, float]
"""A transform [3, 4] and a scale, as `moved` takes them."""


@dataclass(frozen=True)
class DataFrame:
    """Where the world that data are parsed into lies.

    Attributes:
        capture: the move to it from the world of the poses as they were recorded (COLMAP's).
        file: the move to it from the world of the matrices in transforms.json. It is another where the file notes an
            `applied_transform`, which somebody turned the recorded poses by.
    """

    capture: Move
    file: Move

    @property
    def worlds(self) -> tuple[str, ...]:
        """The names of the worlds that differ."""
        same = torch.equal(self.capture[0], self.file[0]) and self.capture[1] == self.file[1]
        return ("nerfstudio", "capture") if same else ("nerfstudio", "capture", "file")


def moved(gaussians: Gaussians, transform: Tensor, scale: float) -> Gaussians:
    """Move Gaussians by x -> scale (A x + t), so that a camera moved likewise sees the same picture.

    Args:
        gaussians: what to move.
        transform: [A | t], a similarity (a reflection may be part of it), [3, 4].
        scale: positive factor.

    Raises:
        ValueError: if the transform is not a similarity.
    """
    device = gaussians.means.device
    transform = transform.detach().to("cpu", torch.float64)
    stretch = float(torch.linalg.det(transform[:, :3]).abs()) ** (1 / 3)
    orthogonal = transform[:, :3] / max(stretch, 1e-12)
    if not torch.allclose(orthogonal @ orthogonal.T, torch.eye(3, dtype=torch.float64), atol=1e-3) or not scale > 0:
        raise ValueError(f"{transform.tolist()} with scale {scale} is not a change of frame: it distorts shapes.")
    # a Gaussian is its own mirror image through its centre, so a reflection turns it as its negative does
    rotation = orthogonal * torch.sign(torch.linalg.det(orthogonal))
    means = gaussians.means.double() @ transform[:, :3].T.to(device) + transform[:, 3].to(device)
    turned = torch.einsum("ij,njc->nic", harmonics_rotation(orthogonal, gaussians.sh_degree).to(device), gaussians.sh)
    return replace(
        gaussians,
        means=(scale * means).float(),
        quats=gaussians.quats @ quaternion_matrix(rotation).T.to(device),
        log_scales=gaussians.log_scales + torch.log(torch.tensor(scale * stretch, dtype=torch.float64)).float().item(),
        sh_rest=turned[:, 1:],
    )


def half_turned(gaussians: Gaussians) -> Gaussians:
    """Turn Gaussians half about z without rounding: only signs change, and twice is not at all.

    A harmonic of order m has m waves around z, so half a turn is its negative where m is odd.
    """
    orders = [order for band in range(1, gaussians.sh_degree + 1) for order in range(-band, band + 1)]
    signs = torch.tensor([(-1.0) ** order for order in orders], device=gaussians.means.device)
    w, x, y, z = gaussians.quats.unbind(-1)
    return replace(
        gaussians,
        means=gaussians.means * gaussians.means.new_tensor([-1, -1, 1]),
        quats=torch.stack((-z, -y, x, w), dim=-1),
        sh_rest=gaussians.sh_rest * signs[:, None],
    )


def quaternion_matrix(rotation: Tensor) -> Tensor:
    """Return the matrix [4, 4] that turns a quaternion (w, x, y, z) by a rotation [3, 3], from the left."""
    # nerfstudio takes seconds to import, which who only looks into a file need not pay
    from nerfstudio.cameras.camera_utils import quaternion_from_matrix

    w, x, y, z = quaternion_from_matrix(rotation.numpy())
    return torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=torch.float32)


def inverse(transform: Tensor, scale: float) -> tuple[Tensor, float]:
    """Return the transform [3, 4] and the scale with which `moved` undoes a move."""
    back = torch.linalg.inv(transform[:, :3].double())
    return torch.cat((back, -scale * back @ transform[:, 3:].double()), dim=1).to(transform), 1 / scale
