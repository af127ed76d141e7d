"""What determines the result of a run: its method, its data, and the settings that differ from their defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import torch
from nerfstudio.cameras.cameras import CameraType

if TYPE_CHECKING:  # nerfstudio takes seconds to import; the command line's help does without it
    from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
    from nerfstudio.engine.trainer import TrainerConfig

GENERATION = 6
"""Raised with every changed default that changes the result of a training. Otherwise a run with the old default would
pass for one with the new default."""
NOT_SETTINGS = {
    "_target",
    "output_dir", "experiment_name", "project_name", "timestamp", "logging", "viewer", "vis", "prompt",
    "load_dir", "load_step", "load_config", "load_checkpoint", "start_paused", "relative_model_dir",
    "steps_per_save", "seconds_per_save", "steps_per_eval_batch", "steps_per_eval_image", "steps_per_eval_all_images",
    "save_only_latest_checkpoint", "num_devices", "num_machines", "machine_rank", "dist_url", "teacher_slots",
    "write_report", "device_type", "cache_images", "cache_images_type", "float_cache_megabytes",
    "label_cache_megabytes", "images_on_gpu", "masks_on_gpu", "max_thread_workers",
}  # fmt: skip
"""Config fields about where and how a run is trained, shown and stored. They do not change the result.

For example, neither the machine nor the place of the data in its memory changes the result.
"""


def settings_of(config: TrainerConfig, passed_over: Collection[str] = NOT_SETTINGS) -> dict[str, Any]:
    """Return a config's method, and its settings that differ from the method's defaults, as JSON's types.

    A moved class, or a new option with its default, does not change the result of this function.

    Args:
        config: the config of the training.
        passed_over: names of fields that do not count.
    """
    default = defaults_of(config.method_name)
    default = type(config)() if default is None else default
    return {"method": config.method_name, **changed(config, default, passed_over)}


@cache
def defaults_of(method_name: Optional[str]) -> Optional[TrainerConfig]:
    """Return a method's config from nerfstudio's registry; None if the registry does not know the method."""
    from nerfstudio.plugins.registry import discover_methods

    return discover_methods()[0].get(method_name)  # type: ignore[arg-type]


def changed(value: Any, default: Any, passed_over: Collection[str]) -> dict[str, Any]:
    """Return the fields of a config that differ from a default config, by name; nested configs are nested mappings.

    If the classes differ, the config is compared with the defaults of its own class, under the name of this class.
    """
    found: dict[str, Any] = {}
    if type(value) is not type(default):
        found["class"], default = type(value).__qualname__, type(value)()
    for field in dataclasses.fields(value):
        if field.name in passed_over:
            continue
        difference = changed_value(getattr(value, field.name), getattr(default, field.name), passed_over)
        if difference is not SAME:
            found[field.name] = difference
    return found


SAME = object()
"""Marks a setting that keeps its default; None is a possible value."""


def changed_value(value: Any, default: Any, passed_over: Collection[str]) -> Any:
    """Return a setting as JSON's types, or `SAME`. A config or a mapping has only the entries that differ."""
    if is_config(value) and is_config(default):
        return changed(value, default, passed_over) or SAME
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        names = {**default, **value}
        found = {str(name): changed_value(value.get(name), default.get(name), passed_over) for name in names}
        return {name: difference for name, difference in found.items() if difference is not SAME} or SAME
    shown = plain(value)
    return SAME if shown == plain(default) else shown


def is_config(value: Any) -> bool:
    """Return whether a setting is a nested config."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def plain(value: Any) -> Any:
    """Reduce a setting to JSON's types, without the fields that do not change the result."""
    if is_config(value):
        names = [field.name for field in dataclasses.fields(value) if field.name not in NOT_SETTINGS]
        return {"class": type(value).__qualname__, **{name: plain(getattr(value, name)) for name in names}}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value.expanduser().resolve())
    if isinstance(value, type):
        return value.__qualname__
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def digest(content: Any) -> str:
    """Hash JSON content to 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def settings_fingerprint(config: TrainerConfig) -> str:
    """Hash everything that determines what a config trains, including the path of the data."""
    return digest([GENERATION, settings_of(config)])


def outcome_fingerprint(config: TrainerConfig, scene: str) -> str:
    """Hash everything that determines the result of a config's training, wherever the data are stored.

    Args:
        config: the config of the training.
        scene: fingerprint of the parsed data.
    """
    return digest([GENERATION, settings_of(config, {*NOT_SETTINGS, "data"}), scene])


def scene_fingerprint(scene: DataparserOutputs) -> str:
    """Hash a parsed training split: the photos' bytes, poses, intrinsics, point cloud, and coordinate frame.

    Of a large photo, only the size and both ends are read. A thousand photos take about a second.
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
    lenses, kinds = cameras.distortion_params, cameras.camera_type
    if (lenses is not None and bool(lenses.any())) or bool((kinds != CameraType.PERSPECTIVE.value).any()):
        hasher.update(repr((None if lenses is None else lenses.tolist(), kinds.tolist())).encode())
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
