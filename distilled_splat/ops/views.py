"""Pinhole cameras in the form that the rasterizers need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One pinhole camera at one resolution.

    Attributes:
        viewmat: world-to-camera matrix, OpenCV axes (x right, y down, z forward), [4, 4].
        K: intrinsics in pixels, [3, 3].
        width: image width in pixels.
        height: image height in pixels.
    """

    viewmat: Tensor
    K: Tensor
    width: int
    height: int


def world_to_camera(camera_to_world: Tensor) -> Tensor:
    """Invert nerfstudio's camera-to-world (OpenGL axes, [3, 4] or [4, 4]); return an OpenCV world-to-camera [4, 4]."""
    flip_y_and_z = camera_to_world.new_tensor([1.0, -1.0, -1.0])
    world_to_camera_rotation = (camera_to_world[:3, :3] * flip_y_and_z).T
    translation = -world_to_camera_rotation @ camera_to_world[:3, 3:4]
    last_row = camera_to_world.new_tensor([[0.0, 0.0, 0.0, 1.0]])
    return torch.cat((torch.cat((world_to_camera_rotation, translation), dim=1), last_row))


def downscaled(view: View, factor: int) -> View:
    """Return the view at a resolution `factor` times smaller, as nerfstudio downscales photos."""
    if factor == 1:
        return view
    K = torch.cat((view.K[:2] / factor, view.K[2:]))
    return View(view.viewmat, K, view.width // factor, view.height // factor)


def resized(view: View, width: int, height: int) -> View:
    """Return the view at another resolution, with the same field of view."""
    stretch = view.K.new_tensor([width / view.width, height / view.height, 1.0])
    return View(view.viewmat, view.K * stretch[:, None], width, height)


def view_of(camera: Cameras, camera_to_world: Optional[Tensor] = None, downscale: int = 1) -> View:
    """Convert one nerfstudio camera to a View.

    Args:
        camera: nerfstudio cameras of shape [1].
        camera_to_world: a pose to use instead of the camera's own (an optimised one), [3, 4].
        downscale: integer factor by which the image is smaller than the photo.

    Raises:
        ValueError: if the camera is neither a perspective camera nor a fisheye that nerfstudio undistorts.
    """
    kind = int(camera.camera_type.flatten()[0])
    if kind != CameraType.PERSPECTIVE.value and not is_undistorted_fisheye(camera):
        raise ValueError(
            f"Cameras of type {CameraType(kind).name} cannot be rendered: use perspective photos, or fisheye photos "
            "with distortion parameters, and give ns-render perspective cameras."
        )
    pose = camera.camera_to_worlds[0] if camera_to_world is None else camera_to_world
    K = camera.get_intrinsics_matrices()[0].to(pose.device)
    return downscaled(View(world_to_camera(pose), K, int(camera.width), int(camera.height)), downscale)


def is_undistorted_fisheye(camera: Cameras) -> bool:
    """Return whether nerfstudio has undistorted a fisheye into a pinhole; its camera type stays fisheye."""
    kinds = (CameraType.FISHEYE.value, CameraType.FISHEYE624.value)
    distortion = camera.distortion_params
    return int(camera.camera_type.flatten()[0]) in kinds and distortion is not None and bool(distortion.any())
