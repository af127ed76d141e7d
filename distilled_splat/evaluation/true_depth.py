"""The true depth of a capture's views, where it has depth maps, and views that are further from its cameras."""

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
"""Where transforms.json has views away from all cameras, with their true depth; the demo's scenes do."""


def read_depth(path: Path, unit: float, view: View) -> Optional[Tensor]:
    """Read a depth map as nerfstudio does (an image of integers, or .npy), at a view's size, [H, W, 1].

    Args:
        path: the file.
        unit: world units in one step of the file.
        view: its camera.

    Returns:
        Depth in world units, 0 where it is not known; None if the file cannot be read.
    """
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.asarray(Image.open(path))
        depth = torch.from_numpy(values.astype(np.float32) * unit).reshape(1, 1, *values.shape[:2])
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, Image.DecompressionBombError):
        return None
    depth = torch.nn.functional.interpolate(depth, (view.height, view.width), mode="nearest-exact")
    return depth.nan_to_num(0, 0, 0)[0, 0, :, :, None].to(view.viewmat.device)


class TrueDepths:
    """The depth maps of a capture, as far as it has some."""

    def __init__(self, dataset: Any, scene: Any) -> None:
        """Look for them.

        Args:
            dataset: nerfstudio's, of the held-out photos.
            scene: the dataparser's outputs of the training photos, with the transform and the scale.
        """
        metadata = dataset.metadata or {}
        lens = dataset.cameras.distortion_params
        # the datamanager straightens photos, and not depth maps
        is_pinhole = lens is None or not bool(lens.any())
        self.files: Sequence[Path] = (metadata.get("depth_filenames") or ()) if is_pinhole else ()
        self.transform, self.scale = scene.dataparser_transform, float(scene.dataparser_scale)
        self.unit = float(metadata.get("depth_unit_scale_factor", 1e-3)) * self.scale

    def of_photo(self, place: int, view: View) -> Optional[Tensor]:
        """Return the depth map of a held-out photo, [H, W, 1], or None."""
        return read_depth(Path(self.files[place]), self.unit, view) if place < len(self.files) else None

    def beyond(self, data: Path, camera: Cameras) -> Iterator[tuple[View, Tensor]]:
        """Go through the views beyond the cameras that transforms.json has a depth map of.

        Args:
            data: the capture's folder.
            camera: one of the capture, of shape [1], whose lens they share.
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
    """Return a camera's view from twice as far from the nearest other camera, looking the same way.

    Args:
        camera: of shape [1].
        others: the cameras that the splat was trained on, [V].
    """
    pose = camera.camera_to_worlds[0].clone()
    centres = others.camera_to_worlds[:, :, 3].to(pose)
    nearest = centres[(centres - pose[:, 3]).norm(dim=1).argmin()]
    pose[:, 3] = nearest + 2 * (pose[:, 3] - nearest)
    return view_of(camera, pose)
