"""Read a trained splat from a run folder, its config.yml or a checkpoint: tensors only, nothing is ever run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor

from distilled_splat.checkpoints import latest_checkpoint, load_tensors
from distilled_splat.gaussians import Gaussians
from distilled_splat.runs import read_record

CHECKPOINT_FOLDER = "nerfstudio_models"
PARAMETER_SHAPES = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (1,), "features_dc": (3,)}


@dataclass(frozen=True)
class Teacher:
    """A frozen splat and what its run tells about it.

    Attributes:
        path: the checkpoint it was read from.
        gaussians: its Gaussians, in the frame of the run that trained it.
        antialiased: whether it was trained with the antialiased rasterizer, and is to be rendered so.
        frame: the run's dataparser transform [3, 4] and scale, or None where the run tells nothing.
        record: our record of the run, empty for other trainers.
    """

    path: Path
    gaussians: Gaussians
    antialiased: bool
    frame: Optional[tuple[Tensor, float]]
    record: dict[str, Any]

    @property
    def variant(self) -> str:
        """The kind of teacher: standard, perturbed or dropout; standard where the run does not say."""
        return self.record.get("variant", "standard")


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that a run folder, a config.yml or a .ckpt path stands for.

    Raises:
        ValueError: if there is none.
    """
    path = path.expanduser()
    if not path.exists():
        raise ValueError(f"The teacher {path} does not exist: give a run folder, its config.yml, or a .ckpt file.")
    if path.suffix == ".ckpt" and path.is_file():
        return path
    if path.is_file() and path.name != "config.yml":
        raise ValueError(f"The teacher {path} is neither a run folder, nor a config.yml, nor a .ckpt file.")
    run = path.parent if path.is_file() else path
    checkpoint = latest_checkpoint(run / CHECKPOINT_FOLDER) or latest_checkpoint(run)
    if checkpoint is None:
        raise ValueError(f"The teacher {run} holds no checkpoint (no {CHECKPOINT_FOLDER}/step-*.ckpt): train it first.")
    return checkpoint


def read_teacher(path: Path) -> Teacher:
    """Read a teacher from a run folder, its config.yml or a .ckpt, of `splatfacto` or of this package.

    Raises:
        ValueError: if there is no checkpoint, or if it holds no valid Gaussians.
    """
    checkpoint = find_checkpoint(path)
    run = checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINT_FOLDER else checkpoint.parent
    return Teacher(
        path=checkpoint,
        gaussians=Gaussians.from_splatfacto(splat_parameters(load_tensors(checkpoint), checkpoint)),
        antialiased=read_rasterize_mode(run) == "antialiased",
        frame=read_frame(run),
        record=read_record(run),
    )


def splat_parameters(checkpoint: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Pick splatfacto's six tensors out of a nerfstudio checkpoint and check them.

    Raises:
        ValueError: if a tensor is missing, of a wrong shape, or not finite.
    """
    state = checkpoint.get("pipeline")
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no nerfstudio checkpoint: it has no entry 'pipeline'.")
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = str(key).removeprefix("module.").removeprefix("_model.").removeprefix("gauss_params.")
        if (name in PARAMETER_SHAPES or name == "features_rest") and isinstance(value, Tensor):
            found[name] = value.detach().to(torch.float32).contiguous()
    missing = [name for name in (*PARAMETER_SHAPES, "features_rest") if name not in found]
    if missing:
        raise ValueError(f"{path} holds no splat: {', '.join(missing)} missing. Was it trained with splatfacto?")
    count = found["means"].shape[0]
    if count == 0:
        raise ValueError(f"{path} holds a splat of zero Gaussians: there is nothing to learn from it.")
    for name, shape in PARAMETER_SHAPES.items():
        if tuple(found[name].shape) != (count, *shape):
            raise ValueError(f"{path}: {name} has shape {tuple(found[name].shape)}, expected {(count, *shape)}.")
    rest = found["features_rest"].shape
    if len(rest) != 3 or rest[0] != count or rest[2] != 3 or rest[1] not in (0, 3, 8, 15, 24):
        raise ValueError(f"{path}: features_rest has shape {tuple(rest)}, expected ({count}, 0|3|8|15|24, 3).")
    for name, value in found.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {name} holds NaN or infinite values: the training of this teacher diverged.")
    return found


def read_frame(run: Path) -> Optional[tuple[Tensor, float]]:
    """Return the dataparser transform [3, 4] and scale that a run was trained in, or None if it has not noted them."""
    try:
        content = json.loads((run / "dataparser_transforms.json").read_text(encoding="utf8"))
        transform = torch.tensor(content["transform"], dtype=torch.float32)
        return transform.reshape(3, 4), float(content["scale"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def read_rasterize_mode(run: Path) -> str:
    """Return the rasterize mode that a run's config.yml names, as text; the file is never interpreted."""
    try:
        found = re.search(r"^\s*rasterize_mode:\s*(\w+)\s*$", (run / "config.yml").read_text(encoding="utf8"), re.M)
    except (OSError, ValueError):
        return "classic"
    return found.group(1) if found else "classic"
