"""The data of timed trainings: a capture resampled to any number of Gaussians, or a random scene written as a
capture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from distilled_splat.benchmarks.workload import random_scene
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians


def capture_parser(data: Path) -> NerfstudioDataParserConfig:
    """Return the dataparser for a capture in nerfstudio's format, with every 8th photo held out."""
    return NerfstudioDataParserConfig(data=data, load_3D_points=True, eval_mode="interval", eval_interval=8)


def untouched_parser(data: Path) -> NerfstudioDataParserConfig:
    """Return a dataparser that leaves the scene's coordinate frame unchanged."""
    return NerfstudioDataParserConfig(
        data=data, orientation_method="none", center_method="none", auto_scale_poses=False, eval_mode="all"
    )


def resampled(model: Any, count: int) -> Gaussians:
    """Return `count` Gaussians for a capture: its point cloud, repeated and scattered.

    Sizes, shapes and opacities are as varied as a trained splat's.
    """
    start = model.gaussians()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(start), (count,), generator=generator)
    ratio = (len(start) / count) ** (1 / 3)
    sizes = torch.exp(start.log_scales.detach()[chosen])
    spread = torch.exp(0.5 * torch.randn(count, 3, generator=generator))
    return Gaussians(
        means=start.means.detach()[chosen] + sizes * torch.randn(count, 3, generator=generator),
        quats=torch.randn(count, 4, generator=generator),
        log_scales=torch.log(0.7 * ratio * sizes * spread),
        logit_opacities=1.5 * torch.randn(count, generator=generator) - 1,
        sh_dc=start.sh_dc.detach()[chosen],
        sh_rest=0.05 * torch.randn(count, 15, 3, generator=generator),
    )


RENDERED = 6
"""Number of photos of a random scene that are rendered. All further photos are copies of them."""


def write_capture(
    scene: dict[str, torch.Tensor], width: int, height: int, folder: Path, views: int = RENDERED, suffix: str = ".png"
) -> Gaussians:
    """Write a random scene of `workload.random_scene` as a capture in nerfstudio's format; return its Gaussians.

    Args:
        scene: arguments of `rasterization`.
        width, height: size of the photos in pixels.
        folder: where to write.
        views: number of photos, from cameras side by side. The seventh photo is a copy of the first, and so on.
        suffix: suffix of the photo files.
    """
    gaussians = Gaussians(
        means=scene["means"],
        quats=scene["quats"],
        log_scales=torch.log(scene["scales"]),
        logit_opacities=torch.logit(scene["opacities"]),
        sh_dc=scene["colors"][:, 0],
        sh_rest=scene["colors"][:, 1:],
    )
    (folder / "images").mkdir(parents=True)
    focal = float(scene["Ks"][0, 0, 0])
    frames = []
    for number in range(views):
        viewmat = torch.eye(4)
        viewmat[0, 3] = 0.05 * (number - views / 2) * RENDERED / views
        photo = folder / "images" / f"{number}{suffix}"
        if number < RENDERED:
            with torch.no_grad():
                image = render(gaussians, View(viewmat, scene["Ks"][0], width, height)).color.clamp(0, 1)
            Image.fromarray((255 * image).byte().numpy()).save(photo)
        else:
            shutil.copyfile(folder / "images" / f"{number % RENDERED}{suffix}", photo)
        pose = torch.linalg.inv(viewmat) @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        frames.append({"file_path": f"images/{photo.name}", "transform_matrix": pose.tolist()})
    intrinsics = {"fl_x": focal, "fl_y": focal, "cx": width / 2, "cy": height / 2, "w": width, "h": height}
    content = {"camera_model": "OPENCV", **intrinsics, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content), encoding="utf8")
    return gaussians


def write_start(count: int, width: int, height: int, folder: Path, views: int) -> Path:
    """Write a random scene as a capture of JPEGs, and its Gaussians as a checkpoint beside it.

    Args:
        count: number of Gaussians.
        width, height: size of the photos in pixels.
        folder: folder of the capture.
        views: number of photos.

    Returns:
        The path of the checkpoint.
    """
    gaussians = write_capture(random_scene(count, width, height), width, height, folder, views, ".jpg")
    state = {f"_model.gauss_params.{name}": value for name, value in gaussians.to_splatfacto(3).items()}
    path = folder.parent / "step-000000000.ckpt"
    torch.save({"pipeline": state}, path)
    return path
