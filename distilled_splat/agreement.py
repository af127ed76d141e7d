"""Find out whether a teacher belongs to the data before a student spends hours on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from distilled_splat.frames import moved
from distilled_splat.readers import Teacher
from distilled_splat.render import render, view_of

TeacherFrame = Literal["auto", "capture", "nerfstudio"]
PHOTOS_TO_TRY = 8
FRAME_TOLERANCE = 1e-3
"""Two dataparser transforms or scales closer than this, relative to 1, are the same frame."""


def psnr(image: Tensor, reference: Tensor) -> float:
    """Return the peak signal-to-noise ratio of two images in [0, 1], in dB."""
    return float(-10 * torch.log10(torch.mean((image - reference) ** 2).clamp_min(1e-12)))


def check_frame(teacher: Teacher, transform: Tensor, scale: float) -> None:
    """Refuse a teacher that was trained in another coordinate frame than the data is parsed into.

    Raises:
        ValueError: if the teacher's run notes another dataparser transform or scale.
    """
    if teacher.frame is None:
        return
    other_transform, other_scale = teacher.frame
    off = float((other_transform - transform.cpu()[:3]).abs().max())
    if not (off <= FRAME_TOLERANCE and abs(other_scale - scale) <= FRAME_TOLERANCE * scale):  # not: NaN never fits
        raise ValueError(
            f"The teacher {teacher.path} was trained in another frame than this data: its dataparser transform differs "
            f"by up to {off:.4g} and its scale is {other_scale:.6g} instead of {scale:.6g}. It belongs to another "
            "scene, or was trained with other --orientation-method, --center-method or --auto-scale-poses options: "
            "use the same ones."
        )


def in_frame(
    teacher: Teacher, datamanager: Any, frame: TeacherFrame, least_psnr: float, device: torch.device
) -> Teacher:
    """Bring a teacher that is an exported file into the frame that the data is parsed into; others are in it already.

    Args:
        teacher: what was read.
        datamanager: nerfstudio's datamanager with the data's frame, photos and cameras.
        frame: the exported file's frame: `nerfstudio` is the data's (ns-export writes it), `capture` that of the poses
            as they were recorded; `auto` takes whichever renders more like the photos.
        least_psnr: a file that agrees less with the photos in both frames, in dB, is refused by `auto`.
        device: where to render.

    Raises:
        ValueError: if it fits in no frame.
    """
    if not teacher.is_export or frame == "nerfstudio":
        return teacher
    scene = datamanager.train_dataparser_outputs
    from_capture = replace(
        teacher, gaussians=moved(teacher.gaussians, scene.dataparser_transform[:3], float(scene.dataparser_scale))
    )
    if frame == "capture":
        return from_capture
    readings = {"nerfstudio": teacher, "capture": from_capture}
    measured = {name: mean_psnr(reading, datamanager, device) for name, reading in readings.items()}
    best = max(measured, key=lambda name: -math.inf if math.isnan(measured[name]) else measured[name])
    figures = " and ".join(f"{value:.1f} dB in the {name} frame" for name, value in measured.items())
    if not measured[best] >= least_psnr:
        raise ValueError(
            f"The teacher {teacher.path} does not fit this data: its renders agree with the photos to {figures} only. "
            "Give a teacher of this scene in one of these frames, name its frame with --pipeline.model.teacher-frame, "
            f"or lower --pipeline.model.least-teacher-psnr ({least_psnr:g})."
        )
    CONSOLE.print(f"The teacher {teacher.path} is taken to be in the {best} frame: {figures}.")
    return readings[best]


def mean_psnr(teacher: Teacher, datamanager: Any, device: torch.device) -> float:
    """Return the mean PSNR, in dB, of a teacher's renders against a few training photos spread over the capture."""
    photos, cameras = datamanager.cached_train, datamanager.train_cameras
    member = teacher.gaussians.to(device)
    background = torch.full((3,), 0.5, device=device)
    values = []
    for index in range(0, len(photos), max(len(photos) // PHOTOS_TO_TRY, 1)):
        photo = photos[index]["image"].to(device)
        photo = photo.float() / 255 if photo.dtype == torch.uint8 else photo
        if photo.shape[-1] == 4:
            photo = photo[..., :3] * photo[..., 3:] + (1 - photo[..., 3:]) * background
        with torch.no_grad():
            rendered = render(member, view_of(cameras[index : index + 1].to(device)), antialiased=teacher.antialiased)
        image = rendered.over(background)
        if "mask" in photos[index]:
            mask = photos[index]["mask"].to(device)
            image, photo = image * mask, photo * mask
        values.append(psnr(image, photo))
    return sum(values) / len(values)


def check_teachers(teachers: Sequence[Teacher], datamanager: Any, least_psnr: float, device: torch.device) -> None:
    """Refuse teachers of another frame or another scene, and warn of one that has seen the held-out photos.

    Args:
        teachers: what was read.
        datamanager: nerfstudio's datamanager with the data's frame, photos and cameras.
        least_psnr: a teacher that agrees less with the photos, in dB, is refused.
        device: where to render.

    Raises:
        ValueError: naming the teacher and what does not fit.
    """
    scene = datamanager.train_dataparser_outputs
    held_out = {path.name for path in datamanager.eval_dataset.image_filenames}
    held_out -= {path.name for path in scene.image_filenames}
    for teacher in teachers:
        check_frame(teacher, scene.dataparser_transform, scene.dataparser_scale)
        measured = mean_psnr(teacher, datamanager, device)
        if not measured >= least_psnr:  # not: NaN never fits
            raise ValueError(
                f"The teacher {teacher.path} does not fit this data: its renders agree with the photos to "
                f"{measured:.1f} dB only. Give a teacher of this scene, or lower "
                f"--pipeline.model.least-teacher-psnr ({least_psnr:g})."
            )
        seen = held_out & teacher.photos
        if seen:
            CONSOLE.print(
                f"[yellow]The teacher {teacher.path} was trained on {len(seen)} of the {len(held_out)} held-out "
                "photos: the student's evaluation will be better than it should be."
            )
