"""Check that a teacher belongs to the data, before a student spends hours on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from distilled_splat.ops.losses import psnr
from distilled_splat.ops.render import render
from distilled_splat.ops.views import view_of
from distilled_splat.runs.fingerprints import scene_fingerprint
from distilled_splat.splat.frames import RIGHT_UP_BACK, UPRIGHT, DataFrame, inverse, moved
from distilled_splat.teachers.reading import Teacher
from distilled_splat.training.data_frame import DATA_FRAME

TeacherFrame = Literal[
    "auto", "nerfstudio", "capture", "file", "upright", "nerfstudio-rub", "capture-rub", "file-rub", "upright-rub",
    "nerfstudio-rdf", "capture-rdf", "file-rdf", "upright-rdf",
]  # fmt: skip
NAMED_AXES = {"rub": RIGHT_UP_BACK, "rdf": torch.eye(4)[:3]}
"""What turns axes to right, down and front."""
PHOTOS_TO_TRY = 8
FRAME_TOLERANCE = 1e-3
"""Two dataparser transforms or scales closer than this, relative to 1, are the same frame."""


def check_frame(teacher: Teacher, transform: Tensor, scale: float) -> None:
    """Refuse a teacher whose coordinate frame differs from the frame of the parsed data.

    Raises:
        ValueError: if the teacher's run has another dataparser transform or scale.
    """
    if teacher.frame is None:
        return
    other_transform, other_scale = teacher.frame
    off = float((other_transform - transform.cpu()[:3]).abs().max())
    if not (off <= FRAME_TOLERANCE and abs(other_scale - scale) <= FRAME_TOLERANCE * scale):  # not: NaN never fits
        raise ValueError(
            f"The teacher {teacher.path} was trained in another frame than this data: its dataparser transform differs "
            f"by up to {off:.4g} and its scale is {other_scale:.6g} instead of {scale:.6g}. Give a teacher of this "
            "scene that was trained with the same --orientation-method, --center-method and --auto-scale-poses."
        )


def in_frame(teacher: Teacher, frame: TeacherFrame, data: DataFrame) -> Teacher:
    """Transform an exported teacher of a known frame into the frame of the parsed data.

    Args:
        teacher: what was read; a run is in the data's frame already.
        frame: the exported file's frame: `nerfstudio` is the data's (ns-export writes it), `capture` that of the
            original poses, `file` that of the matrices in transforms.json, `upright` the data's turned so that y points
            down (`distilled-splat export` writes it). With `-rub` the file's axes are right, up, back, as in the
            specification of .spz; with `-rdf` right, down, front, as those of a .ply, which those of a .glb are not.
        data: how the data's frame relates to the others.
    """
    assert frame != "auto" or not teacher.is_export
    if not teacher.is_export or frame == "nerfstudio":
        return teacher
    world, _, axes = frame.partition("-")
    worlds = {"capture": data.capture, "file": data.file, "upright": inverse(UPRIGHT, 1.0)}
    gaussians = teacher.gaussians
    if axes:
        gaussians = moved(gaussians, teacher.other_axes.get(axes, NAMED_AXES[axes]), 1.0)
    if world in worlds:
        gaussians = moved(gaussians, *worlds[world])
    return replace(teacher, gaussians=gaussians)


def readings_of(teacher: Teacher, data: DataFrame) -> tuple[TeacherFrame, ...]:
    """Return the frames that an exported file may be in."""
    marks = ("", *(f"-{axes}" for axes in teacher.other_axes))
    return tuple(cast(TeacherFrame, world + mark) for mark in marks for world in (*data.worlds, "upright"))


def frame_of(teacher: Teacher, datamanager: Any, least_psnr: float, device: torch.device) -> tuple[TeacherFrame, float]:
    """Return the frame in which an exported file renders most like the photos, and its PSNR in dB.

    Args:
        teacher: what was read.
        datamanager: nerfstudio's datamanager with the data's frame, photos and cameras.
        least_psnr: a file with a lower PSNR in every frame, in dB, is refused.
        device: where to render.

    Raises:
        ValueError: if it does not fit in any frame.
    """
    data = datamanager.train_dataset.metadata[DATA_FRAME]
    frames = readings_of(teacher, data)
    measured = {frame: mean_psnr(in_frame(teacher, frame, data), datamanager, device) for frame in frames}
    best = max(frames, key=lambda frame: -math.inf if math.isnan(measured[frame]) else measured[frame])
    *others, last = (f"{value:.1f} dB in the {frame} frame" for frame, value in measured.items())
    figures = f"{', '.join(others)} and {last}"
    if not measured[best] >= least_psnr:
        raise ValueError(
            f"The teacher {teacher.path} does not fit this data: the PSNR of its renders is only {figures}. "
            "Give a teacher of this scene in one of these frames, set its frame with --pipeline.model.teacher-frame, "
            f"or lower --pipeline.model.min-teacher-psnr ({least_psnr:g})."
        )
    CONSOLE.print(f"The teacher {teacher.path} fits best in the {best} frame: {figures}.")
    return best, measured[best]


def brought_in(
    teachers: Sequence[Teacher], datamanager: Any, frame: TeacherFrame, least_psnr: float, device: torch.device
) -> tuple[list[Teacher], TeacherFrame, dict[Path, float]]:
    """Transform all teachers into the data's frame, and return the frame of the exported files among them.

    Args:
        teachers: what was read.
        datamanager: nerfstudio's datamanager with the data's frame, photos and cameras.
        frame: the frame of exported files, or `auto` to find it for each.
        least_psnr: see `frame_of`.
        device: where to render.

    Returns:
        The teachers; the frame of all exported files, `auto` if they have different frames; and the PSNRs, in dB, that
        were measured to find it, by the teachers' paths.

    Raises:
        ValueError: if one does not fit in any frame.
    """
    data = datamanager.train_dataset.metadata[DATA_FRAME]
    found: dict[Path, TeacherFrame] = {teacher.path: frame for teacher in teachers if teacher.is_export}
    measured: dict[Path, float] = {}
    if frame == "auto":
        for teacher in (teacher for teacher in teachers if teacher.is_export):
            found[teacher.path], measured[teacher.path] = frame_of(teacher, datamanager, least_psnr, device)
    moved_in = [in_frame(teacher, found.get(teacher.path, frame), data) for teacher in teachers]
    frames = set(found.values())
    return moved_in, frames.pop() if len(frames) == 1 else frame, measured


def mean_psnr(teacher: Teacher, datamanager: Any, device: torch.device) -> float:
    """Return the mean PSNR, in dB, of a teacher's renders against a few training photos spread over the capture."""
    photos, cameras = datamanager.cached_train, datamanager.train_cameras
    member = teacher.gaussians.to(device)
    background = torch.full((3,), 0.5, device=device)
    values = []
    for index in range(0, len(photos), max(len(photos) // PHOTOS_TO_TRY, 1)):
        batch = photos[index]
        photo = batch["image"].to(device)
        photo = photo.float() / 255 if photo.dtype == torch.uint8 else photo
        if photo.shape[-1] == 4:
            photo = photo[..., :3] * photo[..., 3:] + (1 - photo[..., 3:]) * background
        with torch.no_grad():
            rendered = render(member, view_of(cameras[index : index + 1].to(device)), antialiased=teacher.antialiased)
        image = rendered.over(background)
        if "mask" in batch:
            mask = batch["mask"].to(device)
            image, photo = image * mask, photo * mask
        values.append(psnr(image, photo))
    return sum(values) / len(values)


def check_teachers(
    teachers: Sequence[Teacher],
    datamanager: Any,
    least_psnr: float,
    device: torch.device,
    measured: Mapping[Path, float],
) -> None:
    """Refuse teachers of another frame or another scene, and warn of one that was trained on held-out photos.

    A teacher that was trained on this same data belongs to the scene, however low its PSNR: it only causes a warning.

    Args:
        teachers: what was read.
        datamanager: nerfstudio's datamanager with the data's frame, photos and cameras.
        least_psnr: any other teacher with a lower PSNR against the photos, in dB, is refused.
        device: where to render.
        measured: PSNRs that are already known, by the teachers' paths.

    Raises:
        ValueError: with the teacher and what does not fit.
    """
    scene = datamanager.train_dataparser_outputs
    held_out = {path.name for path in datamanager.eval_dataset.image_filenames}
    held_out -= {path.name for path in scene.image_filenames}
    for teacher in teachers:
        check_frame(teacher, scene.dataparser_transform, scene.dataparser_scale)
        found = measured[teacher.path] if teacher.path in measured else mean_psnr(teacher, datamanager, device)
        if not found >= least_psnr:  # not: NaN never fits
            if math.isnan(found) or teacher.scene != scene_fingerprint(scene):
                raise ValueError(
                    f"The teacher {teacher.path} does not fit this data: the PSNR of its renders is only "
                    f"{found:.1f} dB. Give a teacher of this scene, or lower "
                    f"--pipeline.model.min-teacher-psnr ({least_psnr:g})."
                )
            CONSOLE.print(
                f"[yellow]The teacher {teacher.path} was trained on this data, but the PSNR of its renders is only "
                f"{found:.1f} dB: more --teacher-iterations may help."
            )
        seen = held_out & teacher.photos
        if seen:
            CONSOLE.print(
                f"[yellow]The teacher {teacher.path} was trained on {len(seen)} of the {len(held_out)} held-out "
                "photos: the evaluation of the student will be too good."
            )
