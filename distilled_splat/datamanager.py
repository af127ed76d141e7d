"""nerfstudio's image cache, on machines without an accelerator too."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import (
    FullImageDatamanager,
    FullImageDatamanagerConfig,
)

from distilled_splat.memory import kept_as_floats
from distilled_splat.photos import check_masks, check_photos, first_broken, reading_data

DATA_FRAME = "data_frame"
"""Where a model finds the dataparser's transform [3, 4] and scale among the metadata of the training set."""


@dataclass
class PortableDatamanagerConfig(FullImageDatamanagerConfig):
    """nerfstudio's full-image datamanager."""

    _target: type = field(default_factory=lambda: PortableDatamanager)
    float_cache_megabytes: float = 1024
    """Keep the photos as floats if they fit into this memory, so that none is converted anew in every step."""


class PortableDatamanager(FullImageDatamanager):
    """Keeps photos where nerfstudio keeps them, but never in pinned memory that does not exist.

    Photos keep their transparency, too. A dataparser that composites them over a colour of its own (blender-data:
    white) cannot know the model's background, and a splat trained over random colours against white photos learns a
    white wall.
    """

    config: PortableDatamanagerConfig

    def __init__(self, config: PortableDatamanagerConfig, *arguments: Any, **options: Any) -> None:
        folder = config.data or config.dataparser.data
        with reading_data(folder):
            super().__init__(config, *arguments, **options)
            if self.test_mode != "inference":  # an export needs no photos
                check_photos(self.train_dataparser_outputs)
                check_photos(self.eval_dataset._dataparser_outputs)
        scene = self.train_dataparser_outputs
        self.train_dataset.metadata[DATA_FRAME] = (scene.dataparser_transform[:3], float(scene.dataparser_scale))

    def create_train_dataset(self) -> Any:
        """Build the training set, with transparent photos left as they are."""
        return with_transparency(super().create_train_dataset())

    def create_eval_dataset(self) -> Any:
        """Build the evaluation set, with transparent photos left as they are."""
        return with_transparency(super().create_eval_dataset())

    def _load_images(self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]) -> Any:
        scene = (self.train_dataset if split == "train" else self.eval_dataset)._dataparser_outputs
        # Above 500 photos nerfstudio switches to "cpu", which pins memory and fails without an accelerator;
        # "gpu" means the model's device, which is the CPU's plain memory there.
        place: Any = cache_images_device if torch.cuda.is_available() else "gpu"
        with reading_data(self.config.data):
            try:
                batches = super()._load_images(split, place)
            except OSError as error:
                raise ValueError(f"{first_broken(scene)}: {error}") from error
            check_masks(batches, scene)
        if kept_as_floats(sum(batch["image"].numel() for batch in batches), self.config):
            for batch in batches:
                if batch["image"].dtype == torch.uint8:
                    batch["image"] = batch["image"].float() / 255.0
        return batches

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Return the next training camera, of shape [1], and a copy of its batch."""
        index = self.train_unseen_cameras.pop(0)
        if len(self.train_unseen_cameras) == 0:
            self.train_unseen_cameras = self.sample_train_cameras()
        batch = self.cached_train[index].copy()
        batch["image"] = batch["image"].to(self.device)
        return self.single_cameras[index], batch

    @cached_property
    def single_cameras(self) -> list[Cameras]:
        """The training cameras one by one, each of shape [1], on the device."""
        _ = self.cached_train  # loading the photos settles the undistorted cameras
        cameras = [self.train_cameras[index : index + 1].to(self.device) for index in range(len(self.train_cameras))]
        for index, camera in enumerate(cameras):
            camera.metadata = {**(camera.metadata or {}), "cam_idx": index}
        return cameras


def with_transparency(dataset: Any) -> Any:
    """Let a dataset hand out RGBA photos as RGBA: the model composites them over its own background."""
    dataset._dataparser_outputs.alpha_color = None
    return dataset
