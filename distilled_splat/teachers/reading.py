"""Read a trained splat from a run folder, its config.yml, a checkpoint or an export, without executing anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor

from distilled_splat.runs.checkpoints import latest_checkpoint, load_tensors
from distilled_splat.runs.faults import all_finite
from distilled_splat.runs.files import read_text
from distilled_splat.runs.record import read_record
from distilled_splat.runs.words import words_of
from distilled_splat.splat.files import KINDS, read_splat, reader_of
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.sog import META
from distilled_splat.splat.tensors import REST_COUNTS, plain

CHECKPOINT_FOLDER = "nerfstudio_models"
CONFIG = "config.yml"
CHECKPOINT_ENDING = ".ckpt"
PARAMETER_SHAPES = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (1,), "features_dc": (3,)}


@dataclass(frozen=True)
class Teacher:
    """A frozen splat and what is known about its run.

    Attributes:
        path: the checkpoint or the exported file it was read from; the folder of an unbundled SOG.
        gaussians: its Gaussians, in the frame of the run that trained it.
        antialiased: whether to render it antialiased, as it was trained.
        frame: the run's dataparser transform [3, 4] and scale; None if the run does not say.
        record: our record of the run, empty for other trainers.
        other_axes: of an exported file (see `SplatFile`).
    """

    path: Path
    gaussians: Gaussians
    antialiased: bool
    frame: Optional[tuple[Tensor, float]]
    record: dict[str, Any]
    other_axes: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """The kind of teacher: standard, perturbed or dropout; standard if the run does not say."""
        found = self.record.get("variant")
        return found if found in ("perturbed", "dropout") else "standard"

    @property
    def photos(self) -> frozenset[str]:
        """Names of the photos that it was trained on; empty if the run does not say."""
        found = self.record.get("photos")
        return frozenset(name for name in found if isinstance(name, str)) if isinstance(found, list) else frozenset()

    @property
    def scene(self) -> Optional[str]:
        """Fingerprint of the data that it was trained on; None if the run does not say."""
        found = self.record.get("scene")
        return found if isinstance(found, str) else None

    @property
    def seconds(self) -> Optional[float]:
        """Seconds that its training took; None if the run does not say."""
        found = self.record.get("seconds")
        return float(found) if isinstance(found, (int, float)) else None

    @property
    def is_export(self) -> bool:
        """Whether it comes from an exported file, whose frame is unknown."""
        return self.path.suffix != CHECKPOINT_ENDING


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint of a run folder, a config.yml or a .ckpt path.

    Raises:
        ValueError: if there is none.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a run folder, its config.yml, a .ckpt, or {KINDS}.")
    if path.suffix == CHECKPOINT_ENDING and path.is_file():
        return path
    if not path.is_dir() and path.name != CONFIG:
        raise ValueError(f"{path} is not a run or splat file: give a run folder, its config.yml, a .ckpt, or {KINDS}.")
    run = path if path.is_dir() else path.parent
    checkpoint = latest_checkpoint(run / CHECKPOINT_FOLDER) or latest_checkpoint(run)
    if checkpoint is None:
        raise ValueError(f"{run} has no checkpoint ({CHECKPOINT_FOLDER}/step-*.ckpt): train it first.")
    return checkpoint


def read_teacher(path: Path) -> Teacher:
    """Read a teacher: a run folder, its config.yml or a .ckpt of nerfstudio's splatfacto or of this package, or an
    exported file of any trainer.

    Raises:
        ValueError: if there is no such file, or if it does not hold valid Gaussians.
    """
    try:
        path = path.expanduser()
        teacher = read_export(path) if is_exported(path) else read_run(path)
    except (OSError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{path} cannot be read ({words_of(error)}).") from error
    check_values(teacher)
    return teacher


def is_exported(path: Path) -> bool:
    """Return whether a path is an exported file, or the folder of a SOG, rather than a run."""
    if path.is_dir():
        return (path / META).is_file()
    return path.is_file() and path.suffix != CHECKPOINT_ENDING and reader_of(path) is not None


def read_export(path: Path) -> Teacher:
    """Read an exported file."""
    found = read_splat(path)
    return Teacher(
        path,
        found.gaussians,
        antialiased=bool(found.antialiased),
        frame=None,
        record={},
        other_axes=found.other_axes,
    )


def read_run(path: Path) -> Teacher:
    """Read the latest checkpoint of a run and the files beside it."""
    checkpoint = find_checkpoint(path)
    run = checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINT_FOLDER else checkpoint.parent
    return Teacher(
        path=checkpoint,
        gaussians=Gaussians.from_splatfacto(splat_parameters(load_tensors(checkpoint), checkpoint)),
        antialiased=read_rasterize_mode(run) == "antialiased",
        frame=read_frame(run),
        record=read_record(run),
    )


def check_values(teacher: Teacher) -> None:
    """Refuse a splat without Gaussians, or with a number that is NaN or infinite.

    Raises:
        ValueError: with the file and what is wrong.
    """
    if len(teacher.gaussians) == 0:
        raise ValueError(f"{teacher.path} has no Gaussians: give another splat.")
    for tensor in fields(teacher.gaussians):
        if not all_finite(getattr(teacher.gaussians, tensor.name)):
            raise ValueError(
                f"{teacher.path}: {tensor.name} has NaN or infinite values, because its training diverged: give "
                "another splat."
            )


def splat_parameters(checkpoint: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Return splatfacto's six tensors from a nerfstudio checkpoint, with their shapes checked.

    Raises:
        ValueError: if a tensor is missing, of a wrong shape, or larger than the file.
    """
    state = checkpoint.get("pipeline") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a nerfstudio checkpoint: it has no entry 'pipeline'.")
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = str(key).removeprefix("module.").removeprefix("_model.").removeprefix("gauss_params.")
        if (name in PARAMETER_SHAPES or name == "features_rest") and isinstance(value, Tensor):
            found[name] = value.detach()
    missing = [name for name in (*PARAMETER_SHAPES, "features_rest") if name not in found]
    if missing:
        raise ValueError(f"{path} is not a splatfacto checkpoint: {', '.join(missing)} missing.")
    count = found["means"].shape[0] if found["means"].dim() else 0
    for name, shape in PARAMETER_SHAPES.items():
        if tuple(found[name].shape) != (count, *shape):
            raise ValueError(f"{path}: {name} has shape {tuple(found[name].shape)}, expected {(count, *shape)}.")
    rest = found["features_rest"].shape
    if len(rest) != 3 or rest[0] != count or rest[2] != 3 or rest[1] not in REST_COUNTS:
        raise ValueError(f"{path}: features_rest has shape {tuple(rest)}, expected ({count}, 0|3|8|15|24, 3).")
    return {name: plain(value, name, path) for name, value in found.items()}


def read_frame(run: Path) -> Optional[tuple[Tensor, float]]:
    """Return a run's dataparser transform [3, 4] and scale; None if it has no record of them."""
    try:
        content = json.loads(read_text(run / "dataparser_transforms.json"))
        transform = torch.tensor(content["transform"], dtype=torch.float32)
        return transform.reshape(3, 4), float(content["scale"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError):
        return None


def read_rasterize_mode(run: Path) -> str:
    """Return the rasterize mode in a run's config.yml, found as text: the YAML is never parsed."""
    try:
        found = re.search(r"^\s*rasterize_mode:\s*(\w+)\s*$", read_text(run / CONFIG), re.M)
    except (OSError, ValueError):
        return "classic"
    return found.group(1) if found else "classic"
