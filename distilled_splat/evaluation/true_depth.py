"""The true depth of a capture's views, if it has depth maps, and views further away than its cameras."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image
from torch import Tensor

from distilled_splat.ops.views import View, view_of

BEYOND_KEY = "views_beyond"
"""Entry of transforms.json for views away from all cameras, with true depth. The demo's scenes have such views."""


def read_depth(path: Path, unit: float, view: View) -> Optional[Tensor]:
    """Read a depth map (an image of integers, or .npy) as nerfstudio does, at a view's size, [H, W, 1].

    Args:
        path: the file.
        unit: world units in one step of the file.
        view: the view's camera.

    Returns:
        Depth in world units, 0 where it is unknown; None if the file cannot be read.
    """
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.asarray(Image.open(path))
        depth = torch.from_numpy(values.astype(np.float32) * unit).reshape(1, 1, *values.shape[:2])
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, Image.DecompressionBombError):
        return None
    depth = torch.nn.functional.interpolate(depth, (view.height, view.width), mode="nearest-exact")
    return depth.nan_to_num(0, 0, 0)[0, 0, :, :, None].to(view.viewmat.device)


class TrueDepths:
    """The depth maps of a capture."""

    def __init__(self, dataset: Any, scene: Any) -> None:
        """Find the depth maps.

        Args:
            dataset: nerfstudio's dataset of the held-out photos.
            scene: the dataparser's outputs of the training photos, with the transform and the scale.
        """
        metadata = dataset.metadata or {}
        lens = dataset.cameras.distortion_params
        # the datamanager undistorts photos, but not depth maps
        is_pinhole = lens is None or not bool(lens.any())
        self.files: Sequence[Path] = (metadata.get("depth_filenames") or ()) if is_pinhole else ()
        self.transform, self.scale = scene.dataparser_transform, float(scene.dataparser_scale)
        self.unit = float(metadata.get("depth_unit_scale_factor", 1e-3)) * self.scale

    def of_photo(self, place: int, view: View) -> Optional[Tensor]:
        """Return the depth map of a held-out photo, [H, W, 1], or None."""
        return read_depth(Path(self.files[place]), self.unit, view) if place < len(self.files) else None

    def beyond(self, data: Path, camera: Cameras) -> Iterator[tuple[View, Tensor]]:
        """Yield the views beyond the cameras for which transforms.json has a depth map.

        Args:
            data: the capture's folder.
            camera: a camera of the capture, of shape [1]; the views share its lens.
        """
        try:
            content = json.loads((data / "transforms.json").read_text(encoding="utf8"))
            frames = [
                (torch.tensor(frame["transform_matrix"], dtype=torch.float64)[:3], data / frame["depth_file_path"])
                for frame in content.get(BEYOND_KEY, ())
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return
        transform = torch.eye(4, dtype=torch.float64)
        transform[:3] = self.transform[:3].double().cpu()
        for pose, path in frames:
            moved = transform[:3, :3] @ pose
            moved[:, 3] = self.scale * (moved[:, 3] + transform[:3, 3])
            view = view_of(camera, moved.to(camera.camera_to_worlds))
            depth = read_depth(path, self.unit, view)
            if depth is not None:
                yield view, depth


def twice_as_far(camera: Cameras, others: Cameras) -> View:
    """Return a view in a camera's direction from twice the distance to the nearest other camera.

    Args:
        camera: of shape [1].
        others: the cameras that the splat was trained on, [V].
    """
    pose = camera.camera_to_worlds[0].clone()
    centres = others.camera_to_worlds[:, :, 3].to(pose)
    nearest = centres[(centres - pose[:, 3]).norm(dim=1).argmin()]
    pose[:, 3] = nearest + 2 * (pose[:, 3] - nearest)
    return view_of(camera, pose)
