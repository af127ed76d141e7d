"""Pictures of one splat, or of two side by side, from a browser's camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from distilled_splat.ops.quaternions import normalized_quat_to_rotmat
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.viewing.splats import Shown

LINE = 2
"""Width of the line between two splats, in pixels."""


@dataclass(frozen=True)
class Camera:
    """A browser's camera.

    Attributes:
        wxyz: rotation from camera to world in OpenCV axes (x right, y down, z forward), as a unit quaternion.
        position: in the unit frame.
        fov: vertical field of view, in radians.
        aspect: width divided by height.
    """

    wxyz: tuple[float, float, float, float]
    position: tuple[float, float, float]
    fov: float
    aspect: float

    def view(self, height: int, device: torch.device) -> View:
        """Return the view of this camera, for pictures of this height in pixels."""
        width = max(round(height * self.aspect), 1)
        turn = normalized_quat_to_rotmat(normalize(torch.tensor(self.wxyz, dtype=torch.float64), dim=0)).T
        viewmat = torch.eye(4, dtype=torch.float64)
        viewmat[:3, :3] = turn
        viewmat[:3, 3] = -turn @ torch.tensor(self.position, dtype=torch.float64)
        focal = height / 2 / math.tan(self.fov / 2)
        K = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        return View(viewmat.float().to(device), K.to(device), width, height)


@dataclass(frozen=True)
class Choice:
    """What to render.

    Attributes:
        left: the only splat, or the left one of two.
        right: the right one of two; None if one splat fills the picture.
        cut: share of the width that shows the left splat, from 0 to 1.
        background: background colour, each channel in 0 to 255.
    """

    left: Shown
    right: Optional[Shown]
    cut: float
    background: tuple[int, int, int]


@torch.no_grad()
def picture(choice: Choice, camera: Camera, height: int) -> np.ndarray:
    """Render a choice, uint8 [height, W, 3]."""
    device = choice.left.gaussians.means.device
    view = camera.view(height, device)
    background = torch.tensor(choice.background, dtype=torch.float32, device=device) / 255

    def drawn(splat: Shown) -> Tensor:
        return render(splat.gaussians, view, antialiased=splat.antialiased).over(background)

    edge = round(choice.cut * view.width)
    if choice.right is None or edge >= view.width:
        pixels = drawn(choice.left)
    elif edge <= 0:
        pixels = drawn(choice.right)
    else:
        pixels = torch.cat((drawn(choice.left)[:, :edge], drawn(choice.right)[:, edge:]), dim=1)
        pixels[:, max(edge - LINE // 2, 0) : edge + LINE // 2] = 1.0
    return (255 * pixels).round().to("cpu", torch.uint8).numpy()
