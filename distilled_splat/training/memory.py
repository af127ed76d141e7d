"""How much memory a training needs, and whether it is there, before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import psutil
import torch
from nerfstudio.utils.rich_utils import CONSOLE

COPIES_IN_TRAINING = 4
"""Of each parameter of a Gaussian: itself, its gradient, and Adam's two moments."""
LABEL_BYTES_PER_PIXEL = 8
"""A pseudo label keeps colour and the light that passes in 16 bits each."""
DEPTH_BYTES_PER_PIXEL = 4
"""Where depths are taught, too, it keeps depth and belief in 16 bits each."""
REMEDIES = {
    "photos": "photos read from disk (--pipeline.datamanager.cache-images disk)",
    "Gaussians": "fewer Gaussians (--pipeline.model.max-gaussians)",
    "teachers": "smaller or fewer teachers (--pipeline.model.teachers)",
}
"""What makes a need smaller, with the options that do it."""


def kept_as_floats(values: int, config: Any) -> bool:
    """Tell whether a PortableDatamanagerConfig keeps photos of so many values in all as floats, on the device."""
    return 4 * values <= config.float_cache_megabytes * 1e6


def photo_bytes(dataset: Any, config: Any, as_floats: bool = False) -> int:
    """Return what a dataset's photos take in the cache of a PortableDatamanagerConfig, three values a pixel.

    Args:
        dataset: nerfstudio's.
        config: of the datamanager.
        as_floats: whether they are kept as floats if they fit (see `kept_as_floats`).
    """
    values = 3 * pixels(dataset)
    floats = config.cache_images_type == "float32" or (as_floats and kept_as_floats(values, config))
    return values * (4 if floats else 1)


Place = Literal["gpu", "cpu", "disk"]
"""Where photos are: in the memory of the model's device, in the computer's beside a GPU, or in their files only."""
ELSEWHERE = {
    "cpu": "they stay in the computer's memory",
    "disk": "each photo is read from disk just before its step",
}
"""What is said of photos that are kept in another place than they were to be."""


def place_for(photos: int, asked: Place, room: Mapping[Place, int]) -> Place:
    """Return where photos are kept: where it is asked for, or in the next place that they leave half of.

    Args:
        photos: bytes that they take in memory.
        asked: the place that they are to be kept in.
        room: bytes that are left in each memory, beside all other needs.
    """
    places = list(room)
    for place in places[places.index(asked) :] if asked in room else ():
        if 2 * photos <= room[place]:
            return place
    return "disk"


def pixels(dataset: Any) -> int:
    """Return the number of pixels of all photos of a dataset."""
    return int((dataset.cameras.width.long() * dataset.cameras.height.long()).sum())


def gaussian_bytes(count: int, sh_degree: int, copies: int = 1) -> int:
    """Return what Gaussians take: 59 floats each with degree 3 of harmonics, 14 without any."""
    return copies * count * 4 * (11 + 3 * (sh_degree + 1) ** 2)


def available_bytes(device: torch.device | str) -> int:
    """Return the memory that is free on a device; on the CPU, what the system could hand out without swapping."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def check_memory(needs: Mapping[str, int], available: int, on_gpu: bool = False) -> int:
    """Print what a training needs at least, and refuse it if that is not there.

    Args:
        needs: bytes by what they are needed for: photos, Gaussians, teachers.
        available: bytes there are.
        on_gpu: whether it is a GPU's memory, or the computer's.

    Returns:
        The bytes that are left.

    Raises:
        ValueError: with the estimate, and the options that help most.
    """
    total = sum(needs.values())
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in needs.items())
    kind = "GPU memory" if on_gpu else "memory"
    estimate = f"at least {total / 1e9:.2f} GB of {kind} ({parts}), and {available / 1e9:.2f} GB are free"
    if total > available:
        largest_first = sorted(filter(needs.get, needs), key=lambda name: -needs[name])
        remedies = "; ".join(REMEDIES[name] for name in largest_first)
        raise ValueError(f"This run needs {estimate}. To save memory, the most effective first: {remedies}.")
    CONSOLE.print(f"This run needs {estimate}.")
    return available - total
