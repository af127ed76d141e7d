"""nerfstudio's cache of photos, which also works without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import (
    FullImageDatamanager,
    FullImageDatamanagerConfig,
)
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track

from distilled_splat.training.data_frame import DATA_FRAME, data_frame
from distilled_splat.training.memory import (
    ELSEWHERE,
    Place,
    available_bytes,
    kept_as_floats,
    photo_bytes,
    place_for,
)
from distilled_splat.training.photo_files import PhotoFiles
from distilled_splat.training.photos import check_photos, held_out_scene, reading_data
from distilled_splat.training.points import check_coordinates, clean_points


@dataclass
class PortableDatamanagerConfig(FullImageDatamanagerConfig):
    """nerfstudio's full-image datamanager, which also works without a GPU."""

    _target: type = field(default_factory=lambda: PortableDatamanager)
    cache_images: Place = "gpu"  # type: ignore[assignment]  # nerfstudio's main branch knows disk, too
    """Where to keep the photos. gpu: in the GPU's memory (in the computer's, without a GPU). cpu: in the computer's
    memory. disk: only in their files; each photo is read just before its step. Photos that need more than half of the
    free memory move on to the next of these places."""
    float_cache_megabytes: float = 1024
    """Keep the photos as floats if they are on the model's device and need less memory than this, in megabytes.
    Otherwise every step converts its photo."""


class PortableDatamanager(FullImageDatamanager):
    """Keeps photos where nerfstudio does, but uses pinned memory only if there is a GPU.

    Photos keep their alpha channel, because the model composites them over its own background. A dataparser that
    composites them over white (blender-data does) would make a splat with a random background learn a white wall.
    """

    config: PortableDatamanagerConfig

    def __init__(self, config: PortableDatamanagerConfig, *arguments: Any, **options: Any) -> None:
        folder = config.data or config.dataparser.data
        as_files = config.cache_images == "disk"
        if as_files:
            config.cache_images = "cpu"  # nerfstudio's main branch reads files in other processes, in another order
        with reading_data(folder):
            super().__init__(config, *arguments, **options)
            if self.test_mode != "inference":  # an export needs no photos
                check_photos(self.train_dataparser_outputs)
                check_photos(self.eval_dataset._dataparser_outputs)
                check_coordinates(self.train_dataparser_outputs)
        self.on_gpu = torch.device(self.device).type != "cpu"
        self.place: Place = "disk" if as_files else config.cache_images if self.on_gpu else "gpu"
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

    def photo_bytes(self, place: Optional[Place] = None) -> int:
        """Return the bytes that all photos need in a memory. On the model's device training photos may be floats.

        Args:
            place: the memory; None: the one where they are kept.
        """
        place = place or self.place
        as_floats, pinned = place == "gpu", self.on_gpu and place == "cpu"
        return photo_bytes(self.train_dataset, self.config, as_floats, pinned) + photo_bytes(
            self.eval_dataset, self.config, pinned=pinned
        )

    def make_room(self, needs: int) -> int:
        """Choose another place for the photos if their memory is too small, and print this. No photo is loaded yet.

        Args:
            needs: bytes that everything except the photos needs on the device.

        Returns:
            The bytes that photos will take in memory.
        """
        room: dict[Place, int] = {"gpu": available_bytes(self.device) - needs}
        if self.on_gpu:
            room["cpu"] = available_bytes("cpu")
        photos: dict[Place, int] = {place: self.photo_bytes(place) for place in room}
        asked = self.place
        self.place = place_for(photos, asked, room)
        if self.place != asked:
            CONSOLE.print(
                f"The photos would take {photos[asked] / 1e9:.2f} GB, more than half of the free memory: "
                f"{ELSEWHERE[self.place]}.",
                soft_wrap=True,
            )
        return 0 if self.place == "disk" else self.photo_bytes()

    def _load_images(self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]) -> Any:
        dataset = self.train_dataset if split == "train" else self.eval_dataset
        memory = self.device if self.place == "gpu" else "cpu"
        # a finished run that is only opened has not called make_room
        pinned = self.on_gpu and self.place == "cpu"
        as_files = self.place == "disk" or (
            2 * photo_bytes(dataset, self.config, pinned=pinned) > available_bytes(memory)
        )
        pinned = self.on_gpu and (as_files or self.place == "cpu")
        files = PhotoFiles(dataset, self.config.cache_images_type, self.config.data, pinned)
        photos = track(files.in_order(), f"Reading the photos ({split})", len(files), transient=True)
        if as_files:
            for _ in photos:  # reading each photo once settles its camera
                pass
            kept = files
        else:
            kept = [on_device(photo, memory) for photo in photos]
        self.train_cameras = self.train_dataset.cameras
        if isinstance(kept, list) and self.place == "gpu" and split == "train":
            self.convert(kept)
        return kept

    def convert(self, photos: list[dict[str, Any]]) -> None:
        """Convert photos to floats if they fit into memory, so that no step has to convert its photo."""
        if kept_as_floats(sum(photo["image"].numel() for photo in photos), self.config):
            for photo in photos:
                if photo["image"].dtype == torch.uint8:
                    photo["image"] = photo["image"].float().div_(255.0)  # in place, without another copy

    def get_train_rays_per_batch(self) -> int:
        """Return the number of pixels of the first photo, from which nerfstudio reckons rays a second in each step."""
        return int(self.train_dataset.cameras.width[0]) * int(self.train_dataset.cameras.height[0])

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Return the next training camera, of shape [1], and a copy of its batch, on the device."""
        index = self.train_unseen_cameras.pop(0)
        if len(self.train_unseen_cameras) == 0:
            self.train_unseen_cameras = self.sample_train_cameras()
        camera, photos = self.single_cameras[index], self.cached_train
        photo = on_device(photos[index], self.device)
        if isinstance(photos, PhotoFiles):
            photos.read_ahead(self.train_unseen_cameras)
        return camera, photo

    def next_eval(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Return a held-out camera, of shape [1], and a copy of its batch, on the device with its mask."""
        camera, batch = super().next_eval(step)
        return camera, on_device(batch, self.device)

    @property
    def fixed_indices_eval_dataloader(self) -> Any:
        """The held-out cameras, of shape [1], and their batches. Each is moved to the device on access."""
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
    """Cameras and batches, moved to the device one at a time; nerfstudio would move all photos there at once."""

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
