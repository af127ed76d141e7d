"""A capture made of a splat's own renders, in nerfstudio's format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distilled_splat.ops.views import View
from distilled_splat.runs.files import folder_beside
from distilled_splat.teachers.ensemble import TeacherEnsemble, mean_image

DATAPARSER = (
    "nerfstudio-data", "--eval-mode", "filename", "--orientation-method", "none", "--center-method", "none",
    "--auto-scale-poses", "False", "--load-3D-points", "False",
)  # fmt: skip
"""Options with which nerfstudio reads such a capture without moving its frame."""


def write_capture(
    folder: Path,
    ensemble: TeacherEnsemble,
    train: Sequence[View],
    test: Sequence[View],
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Render all views, and write them as RGBA photos with their transforms.json.

    The capture is written whole or not at all. Each photo is the mean of the teachers' renders.

    Args:
        folder: folder of the capture; earlier content is replaced.
        ensemble: the teachers.
        train: training views.
        test: views to hold out.
        tell: called after each photo with the number of finished photos and the number of all photos.
    """
    with folder_beside(folder) as part:
        (part / "images").mkdir()
        frames = []
        for number, view in enumerate((*train, *test)):
            name = f"images/{number:04d}.png"
            color, alpha = mean_image(ensemble.renders(view))
            Image.fromarray(as_rgba(color, alpha)).save(part / name, compress_level=1)
            frames.append(frame_of(view, name))
            tell(number + 1, len(train) + len(test))
        names = [frame["file_path"] for frame in frames]
        meta = {
            "camera_model": "OPENCV",
            "frames": frames,
            "train_filenames": names[: len(train)],
            "val_filenames": names[len(train) :],
            "test_filenames": names[len(train) :],
        }
        (part / "transforms.json").write_text(json.dumps(meta, indent=1), encoding="utf8")
        shutil.rmtree(folder, ignore_errors=True)


def as_rgba(color: Tensor, alpha: Tensor) -> np.ndarray:
    """Return a premultiplied colour [H, W, 3] and its alpha [H, W, 1] as a straight picture, uint8 [H, W, 4]."""
    straight = (color / alpha.clamp_min(1e-6)).clamp(0, 1)
    picture = torch.cat((straight, alpha.clamp(0, 1)), dim=-1)
    return (255 * picture).round().to("cpu", torch.uint8).numpy()


def frame_of(view: View, name: str) -> dict[str, Any]:
    """Return a view's entry for transforms.json: intrinsics, and camera-to-world in OpenGL axes."""
    viewmat = view.viewmat.detach().cpu().double()
    pose = torch.linalg.inv(viewmat)
    pose[:, 1:3] *= -1
    K = view.K.detach().cpu().double()
    return {
        "file_path": name,
        "w": view.width,
        "h": view.height,
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
        "transform_matrix": pose.tolist(),
    }
