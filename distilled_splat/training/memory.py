"""Estimate the memory of a training before it starts, and check that it is free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import psutil
import torch
from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.training.photos import header_of

COPIES_IN_TRAINING = 4
"""Copies of each parameter of a Gaussian: itself, its gradient, and Adam's two moments."""
COPIES_IN_CHECKPOINT = 3
"""The same without the gradient."""
LABEL_BYTES_PER_PIXEL = 8
"""A pseudo label has three colours and the transmittance in 16 bits each."""
DEPTH_BYTES_PER_PIXEL = 4
"""With the depth loss a pseudo label also has depth and belief in 16 bits each."""
REMEDIES = {
    "photos": "photos read from disk (--pipeline.datamanager.cache-images disk)",
    "Gaussians": "fewer points in the capture",
    "teachers": "smaller or fewer teachers (--pipeline.model.teachers)",
}
"""Ways to save memory, by what takes it."""


def kept_as_floats(values: int, config: Any) -> bool:
    """Return whether a PortableDatamanagerConfig keeps photos of so many values as floats on the device."""
    return 4 * values <= config.float_cache_megabytes * 1e6


def channels(dataset: Any) -> int:
    """Return the values per pixel of a dataset's first photo: four with an alpha channel, otherwise three."""
    photos = dataset._dataparser_outputs.image_filenames
    return 4 if photos and header_of(photos[0])[1] == "RGBA" else 3


def photo_bytes(dataset: Any, config: Any, as_floats: bool = False, pinned: bool = False) -> int:
    """Return the bytes of a dataset's photos in the cache of a PortableDatamanagerConfig.

    Args:
        dataset: nerfstudio's dataset.
        config: config of the datamanager.
        as_floats: whether they are kept as floats if they fit (see `kept_as_floats`).
        pinned: whether they are in pinned memory, where torch rounds the bytes of each photo up to a power of two.
    """
    per_pixel = channels(dataset)
    values = per_pixel * pixels(dataset)
    floats = config.cache_images_type == "float32" or (as_floats and kept_as_floats(values, config))
    bytes_per_value = 4 if floats else 1
    if pinned:
        cameras = dataset.cameras
        sizes = per_pixel * bytes_per_value * cameras.width.long() * cameras.height.long()
        return sum(1 << (size - 1).bit_length() for size in sizes.flatten().tolist())
    return values * bytes_per_value


Place = Literal["gpu", "cpu", "disk"]
"""Where photos are kept: in the memory of the model's device, in the computer's memory, or only in their files."""
ELSEWHERE = {
    "cpu": "they stay in the computer's memory",
    "disk": "each photo is read from disk just before its step",
}
"""The sentence about photos that are kept in another place than asked for."""


def place_for(photos: Mapping[Place, int], asked: Place, room: Mapping[Place, int]) -> Place:
    """Return where to keep photos: in the place asked for, or in the next place of which they take at most half.

    Args:
        photos: their bytes in each memory.
        asked: the place asked for.
        room: free bytes of each memory after all other needs.
    """
    places = list(room)
    for place in places[places.index(asked) :] if asked in room else ():
        if 2 * photos[place] <= room[place]:
            return place
    return "disk"


def pixels(dataset: Any) -> int:
    """Return the number of pixels of all photos of a dataset."""
    return int((dataset.cameras.width.long() * dataset.cameras.height.long()).sum())


def gaussian_bytes(count: int, sh_degree: int, copies: int = 1) -> int:
    """Return the bytes of Gaussians: 59 floats each with harmonics of degree 3, 14 with degree 0."""
    return copies * count * 4 * (11 + 3 * (sh_degree + 1) ** 2)


def available_bytes(device: torch.device | str) -> int:
    """Return the free memory of a device in bytes; on the CPU, what is available without swapping."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def check_memory(
    needs: Mapping[str, int], available: int, on_gpu: bool = False, remedies: Mapping[str, str] = REMEDIES
) -> int:
    """Print the least memory of a training, and refuse the training if less is free.

    Args:
        needs: bytes by their use: photos, Gaussians, teachers.
        available: free bytes.
        on_gpu: whether this is a GPU's memory, or the computer's.
        remedies: how to save memory, by the same uses.

    Returns:
        The bytes that are left.

    Raises:
        ValueError: if the memory is too small; the message has the estimate and the options that save most.
    """
    total = sum(needs.values())
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in needs.items())
    kind = "GPU memory" if on_gpu else "memory"
    estimate = f"at least {total / 1e9:.2f} GB of {kind} ({parts}), and {available / 1e9:.2f} GB are free"
    if total > available:
        largest_first = sorted(filter(needs.get, needs), key=lambda name: -needs[name])
        words = "; ".join(remedies[name] for name in largest_first)
        raise ValueError(f"This run needs {estimate}. To save memory, the most effective first: {words}.")
    CONSOLE.print(f"This run needs {estimate}.")
    return available - total
