"""nerfstudio's image cache, on machines without an accelerator too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from nerfstudio.data.datamanagers.full_images_datamanager import (
    FullImageDatamanager,
    FullImageDatamanagerConfig,
)


@dataclass
class PortableDatamanagerConfig(FullImageDatamanagerConfig):
    """nerfstudio's full-image datamanager."""

    _target: type = field(default_factory=lambda: PortableDatamanager)


class PortableDatamanager(FullImageDatamanager):
    """Keeps photos where nerfstudio keeps them, but never in pinned memory that does not exist."""

    def _load_images(self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]) -> Any:
        # Above 500 photos nerfstudio switches to "cpu", which pins memory and fails without an accelerator;
        # "gpu" means the model's device, which is the CPU's plain memory there.
        return super()._load_images(split, cache_images_device if torch.cuda.is_available() else "gpu")
