"""What decides the outcome of a run: its method, its data, and the settings that differ from their defaults."""

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

if TYPE_CHECKING:  # nerfstudio takes seconds to import, which the command line's help need not pay
    from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
    from nerfstudio.engine.trainer import TrainerConfig

GENERATION = 4
"""Counts the changes of defaults that change what is trained: without it a run of the old default would be taken for
one of the new."""
NOT_SETTINGS = {
    "_target",
    "output_dir", "experiment_name", "project_name", "timestamp", "logging", "viewer", "vis", "prompt",
    "load_dir", "load_step", "load_config", "load_checkpoint", "start_paused", "relative_model_dir",
    "steps_per_save", "seconds_per_save", "steps_per_eval_batch", "steps_per_eval_image", "steps_per_eval_all_images",
    "save_only_latest_checkpoint", "num_devices", "num_machines", "machine_rank", "dist_url", "teacher_slots",
    "device_type", "cache_images", "cache_images_type", "float_cache_megabytes", "label_cache_megabytes",
    "images_on_gpu", "masks_on_gpu", "max_thread_workers",
}  # fmt: skip
"""Names of config fields that say where and how a run is trained, shown and stored, not what is trained.

Which machine it runs on, and how much of the data that machine keeps where, never decides what a run is.
"""


def settings_of(config: TrainerConfig, passed_over: Collection[str] = NOT_SETTINGS) -> dict[str, Any]:
    """Return a config's method and those of its settings that differ from the method's defaults, as JSON's types.

    Neither the place of a class nor a new option that keeps its default changes what is returned.

    Args:
        config: what is to be trained.
        passed_over: names of fields that do not count.
    """
    default = defaults_of(config.method_name)
    default = type(config)() if default is None else default
    return {"method": config.method_name, **changed(config, default, passed_over)}


@cache
def defaults_of(method_name: Optional[str]) -> Optional[TrainerConfig]:
    """Return the config that nerfstudio's registry has of a method, None if it does not know the method."""
    from nerfstudio.plugins.registry import discover_methods

    return discover_methods()[0].get(method_name)  # type: ignore[arg-type]


def changed(value: Any, default: Any, passed_over: Collection[str]) -> dict[str, Any]:
    """Return the fields of a config that differ from those of another, by their names; nested where they are configs.

    A config of another class than the default is compared with its own class's defaults, under the class's name.
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
"""Stands for a setting that keeps its default; None is a value."""


def changed_value(value: Any, default: Any, passed_over: Collection[str]) -> Any:
    """Return a setting as JSON's types, of a config and a mapping only what differs from the default; or `SAME`."""
    if is_config(value) and is_config(default):
        return changed(value, default, passed_over) or SAME
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        names = {**default, **value}
        found = {str(name): changed_value(value.get(name), default.get(name), passed_over) for name in names}
        return {name: difference for name, difference in found.items() if difference is not SAME} or SAME
    shown = plain(value)
    return SAME if shown == plain(default) else shown


def is_config(value: Any) -> bool:
    """Tell whether a setting is a config of its own."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def plain(value: Any) -> Any:
    """Reduce a setting to JSON's types, without the fields that do not bear on what is trained."""
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
    """Hash all that decides what a training config trains, the data's path included."""
    return digest([GENERATION, settings_of(config)])


def outcome_fingerprint(config: TrainerConfig, scene: str) -> str:
    """Hash all that decides what comes of a training config, wherever its data lie.

    Args:
        config: what is to be trained.
        scene: fingerprint of the parsed data.
    """
    return digest([GENERATION, settings_of(config, {*NOT_SETTINGS, "data"}), scene])


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
