"""nerfstudio's cache of photos, also on machines without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import (
    FullImageDatamanager,
    FullImageDatamanagerConfig,
)
from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.runs.words import words_of
from distilled_splat.training.data_frame import DATA_FRAME, data_frame
from distilled_splat.training.memory import cached_on_device, kept_as_floats
from distilled_splat.training.photos import check_masks, check_photos, first_broken, held_out_scene, reading_data
from distilled_splat.training.points import check_coordinates, clean_points


@dataclass
class PortableDatamanagerConfig(FullImageDatamanagerConfig):
    """nerfstudio's full-image datamanager."""

    _target: type = field(default_factory=lambda: PortableDatamanager)
    float_cache_megabytes: float = 1024
    """Cache the photos as floats if they are on the model's device and need less memory than this; otherwise each step
    converts its photo."""


class PortableDatamanager(FullImageDatamanager):
    """Caches photos where nerfstudio does, but uses pinned memory only if there is a GPU.

    Photos keep their alpha channel. A dataparser that composites them over a colour of its own (blender-data: white)
    does not know the model's background, and a splat trained over random colours against white photos learns a white
    wall.
    """

    config: PortableDatamanagerConfig

    def __init__(self, config: PortableDatamanagerConfig, *arguments: Any, **options: Any) -> None:
        folder = config.data or config.dataparser.data
        with reading_data(folder):
            super().__init__(config, *arguments, **options)
            if self.test_mode != "inference":  # an export needs no photos
                check_photos(self.train_dataparser_outputs)
                check_photos(self.eval_dataset._dataparser_outputs)
                check_coordinates(self.train_dataparser_outputs)
        scene = self.train_dataparser_outputs
        for sentence in clean_points(scene):
            if self.test_mode == "val":  # points matter only in training
                CONSOLE.print(sentence, soft_wrap=True)
        self.train_dataset.metadata[DATA_FRAME] = data_frame(scene, config.dataparser, folder)

    def create_train_dataset(self) -> Any:
        """Build the training set, with the photos' alpha channels."""
        return with_transparency(super().create_train_dataset())

    def create_eval_dataset(self) -> Any:
        """Build the evaluation set, with the photos' alpha channels."""
        scene = held_out_scene(self.dataparser, self.test_split)
        scale = self.config.camera_res_scale_factor
        return with_transparency(self.dataset_type(dataparser_outputs=scene, scale_factor=scale))

    def _load_images(self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]) -> Any:
        scene = (self.train_dataset if split == "train" else self.eval_dataset)._dataparser_outputs
        with_model = cached_on_device(self.config, self.device)
        # nerfstudio's "cpu" pins memory, which fails without an accelerator; its "gpu" means the model's device
        place: Any = "gpu" if with_model else "cpu"
        with reading_data(self.config.data):
            try:
                batches = super()._load_images(split, place)
            except OSError as error:
                raise ValueError(f"{first_broken(scene)}: {words_of(error)}") from error
            check_masks(batches, scene)
        if with_model and kept_as_floats(sum(batch["image"].numel() for batch in batches), self.config):
            for batch in batches:
                if batch["image"].dtype == torch.uint8:
                    batch["image"] = batch["image"].float() / 255.0
        return batches

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Return the next training camera, of shape [1], and a copy of its batch, on the device."""
        index = self.train_unseen_cameras.pop(0)
        if len(self.train_unseen_cameras) == 0:
            self.train_unseen_cameras = self.sample_train_cameras()
        return self.single_cameras[index], on_device(self.cached_train[index], self.device)

    def next_eval(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Return a held-out camera, of shape [1], and a copy of its batch, on the device with its mask."""
        camera, batch = super().next_eval(step)
        return camera, on_device(batch, self.device)

    @property
    def fixed_indices_eval_dataloader(self) -> Any:
        """The held-out cameras, of shape [1], and their batches, each moved to the device on access."""
        return HeldOutBatches(self.eval_dataset.cameras, self.cached_eval, self.device)

    @cached_property
    def single_cameras(self) -> list[Cameras]:
        """The training cameras as a list, each of shape [1], on the device."""
        _ = self.cached_train  # loading the photos undistorts the cameras
        cameras = [self.train_cameras[index : index + 1].to(self.device) for index in range(len(self.train_cameras))]
        for index, camera in enumerate(cameras):
            camera.metadata = {**(camera.metadata or {}), "cam_idx": index}
        return cameras


class HeldOutBatches(Sequence[tuple[Cameras, dict[str, Any]]]):
    """Cameras and batches, one on the device at a time; nerfstudio would move all photos there at once."""

    def __init__(self, cameras: Cameras, batches: Sequence[dict[str, Any]], device: torch.device | str) -> None:
        self.cameras, self.batches, self.device = cameras, batches, device

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.cameras[index : index + 1].to(self.device), on_device(self.batches[index], self.device)


def on_device(batch: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Return a copy of a batch with its photo and its mask on the device, copied asynchronously from pinned memory."""
    moved = {name: batch[name].to(device, non_blocking=True) for name in ("image", "mask") if name in batch}
    return {**batch, **moved}


def with_transparency(dataset: Any) -> Any:
    """Make a dataset return RGBA photos as RGBA: the model composites them over its own background."""
    dataset._dataparser_outputs.alpha_color = None
    return dataset
