"""What is known about a training run: its settings' fingerprint, and whether it was finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import torch

from distilled_splat.checkpoints import write_json

if TYPE_CHECKING:  # nerfstudio takes seconds to import, which the command line's help need not pay
    from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
    from nerfstudio.engine.trainer import TrainerConfig

RECORD_NAME = "distilled_splat.json"
LONGEST_TEXT = 1 << 24
"""Characters; a config.yml has about 10 thousand, a record 30 per photo."""

NOT_SETTINGS = {
    "output_dir", "experiment_name", "project_name", "timestamp", "logging", "viewer", "vis", "prompt",
    "load_dir", "load_step", "load_config", "load_checkpoint", "start_paused", "relative_model_dir",
    "steps_per_save", "steps_per_eval_batch", "steps_per_eval_image", "steps_per_eval_all_images",
    "save_only_latest_checkpoint", "num_devices", "num_machines", "machine_rank", "dist_url", "teacher_slots",
}  # fmt: skip
"""Names of config fields that say where or how a run is shown and stored, not what is trained."""


def plain(value: Any) -> Any:
    """Reduce a config to JSON's types, without the fields that do not bear on what is trained."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.name not in NOT_SETTINGS]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value.expanduser().resolve())
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def digest(content: Any) -> str:
    """Hash JSON content to 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def settings_fingerprint(config: TrainerConfig) -> str:
    """Hash all that decides what a training config trains, the data's path included."""
    return digest(plain(config))


def scene_fingerprint(scene: DataparserOutputs) -> str:
    """Hash a parsed training split: the photos' bytes, poses, intrinsics, points, and the frame they are in.

    Of a large photo only the size and both ends are read, so that a thousand photos take about a second.
    """
    hasher = hashlib.sha256()
    cameras = scene.cameras
    points = [value for key, value in sorted(scene.metadata.items()) if isinstance(value, torch.Tensor)]
    for tensor in (
        cameras.camera_to_worlds,
        cameras.fx,
        cameras.fy,
        cameras.cx,
        cameras.cy,
        scene.dataparser_transform,
        *points,
    ):
        hasher.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    hasher.update(repr(float(scene.dataparser_scale)).encode())
    end = 1 << 16
    for path in (*scene.image_filenames, *(scene.mask_filenames or ())):
        size = path.stat().st_size
        hasher.update(f"{path.name} {size}".encode())
        with path.open("rb") as photo:
            hasher.update(photo.read(end))
            if size > 2 * end:
                photo.seek(-end, 2)
            hasher.update(photo.read(end))
    return hasher.hexdigest()[:16]


def read_text(path: Path) -> str:
    """Read a small text file of somebody else's.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no text, or not small.
    """
    if not path.is_file():  # a pipe would never end
        raise FileNotFoundError(path)
    with path.open(encoding="utf8") as file:
        text = file.read(LONGEST_TEXT)
    if len(text) == LONGEST_TEXT:
        raise ValueError(f"{path} is too long.")
    return text


def read_record(run: Path) -> dict[str, Any]:
    """Return a run folder's record, empty if the run is not one of ours or the record cannot be read."""
    try:
        content = json.loads(read_text(run / RECORD_NAME))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def update_record(run: Path, **entries: Any) -> None:
    """Add entries to a run folder's record."""
    write_json(run / RECORD_NAME, {**read_record(run), **entries})


def unfinished_run(folder: Path, fingerprint: str) -> Optional[Path]:
    """Return the newest run in a method's folder that was begun with these settings and not finished, or None."""
    if not folder.is_dir():
        return None
    for run in sorted((path for path in folder.iterdir() if path.is_dir()), reverse=True):
        record = read_record(run)
        if record.get("settings") == fingerprint:
            return None if record.get("finished") else run
    return None
