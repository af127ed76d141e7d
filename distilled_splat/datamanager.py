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
    """Keeps photos where nerfstudio keeps them, but never in pinned memory that does not exist.

    Photos keep their transparency, too. A dataparser that composites them over a colour of its own (blender-data:
    white) cannot know the model's background, and a splat trained over random colours against white photos learns a
    white wall.
    """

    def create_train_dataset(self) -> Any:
        """Build the training set, with transparent photos left as they are."""
        return with_transparency(super().create_train_dataset())

    def create_eval_dataset(self) -> Any:
        """Build the evaluation set, with transparent photos left as they are."""
        return with_transparency(super().create_eval_dataset())

    def _load_images(self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]) -> Any:
        # Above 500 photos nerfstudio switches to "cpu", which pins memory and fails without an accelerator;
        # "gpu" means the model's device, which is the CPU's plain memory there.
        return super()._load_images(split, cache_images_device if torch.cuda.is_available() else "gpu")


def with_transparency(dataset: Any) -> Any:
    """Let a dataset hand out RGBA photos as RGBA: the model composites them over its own background."""
    dataset._dataparser_outputs.alpha_color = None
    return dataset
