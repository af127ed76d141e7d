"""Move Gaussians from one world frame to another: means, scales, rotations and spherical harmonics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.harmonics import harmonics_rotation

RIGHT_UP_BACK = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0]])
"""Converts the axes right, up, back to right, down, front, and the other way round, [3, 4]."""
LEFT_UP_FRONT = torch.tensor([[-1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0]])
"""Converts the axes left, up, front to right, down, front, and the other way round, [3, 4]; see `half_turned`."""
UPRIGHT = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0]])
"""Converts nerfstudio's axes (z up) to those of 3DGS (y down), [3, 4]."""
Move = tuple[Tensor, float]
"""A transform [3, 4] and a scale, as `moved` takes them."""


@dataclass(frozen=True)
class DataFrame:
    """The frame of parsed data, relative to the other frames of a capture.

    Attributes:
        capture: the move to it from the frame of the original poses (COLMAP's).
        file: the move to it from the frame of the matrices in transforms.json. It differs from `capture` if the file
            has an `applied_transform`, which was applied to the original poses.
    """

    capture: Move
    file: Move

    @property
    def worlds(self) -> tuple[str, ...]:
        """The names of the frames that differ."""
        same = torch.equal(self.capture[0], self.file[0]) and self.capture[1] == self.file[1]
        return ("nerfstudio", "capture") if same else ("nerfstudio", "capture", "file")


def moved(gaussians: Gaussians, transform: Tensor, scale: float) -> Gaussians:
    """Move Gaussians by x -> scale (A x + t). A camera that is moved likewise sees the same picture.

    Args:
        gaussians: the Gaussians to move.
        transform: [A | t], a similarity, possibly with a reflection, [3, 4].
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
    # a Gaussian is symmetric about its centre, so a reflection rotates it as the negative of the reflection does
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
    """Rotate Gaussians by half a turn about z, without rounding: only signs change. Twice has no effect.

    A harmonic of order m has m waves around z, so half a turn negates it if m is odd.
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
    """Return the matrix [4, 4] that multiplies a quaternion (w, x, y, z) by a rotation [3, 3] from the left."""
    # nerfstudio takes seconds to import, and reading a file does without it
    from nerfstudio.cameras.camera_utils import quaternion_from_matrix

    w, x, y, z = quaternion_from_matrix(rotation.numpy())
    return torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=torch.float32)


def inverse(transform: Tensor, scale: float) -> tuple[Tensor, float]:
    """Return the inverse move: a transform [3, 4] and a scale for `moved`."""
    back = torch.linalg.inv(transform[:, :3].double())
    return torch.cat((back, -scale * back @ transform[:, 3:].double()), dim=1).to(transform), 1 / scale
