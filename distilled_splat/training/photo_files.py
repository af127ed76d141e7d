"""The photos of a dataset as files: each is read when it is wanted, those that are wanted next ahead, in threads."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Optional

import torch
from nerfstudio.data.datamanagers import full_images_datamanager as nerfstudios

from distilled_splat.training.photos import check_mask, fault_of, reading_data

AHEAD = 4
"""Photos that are read ahead, each in a thread of its own: on a GPU a step takes less time than to decode a photo."""

Photo = dict[str, Any]
"""What nerfstudio calls a batch: `image` [H, W, 3 or 4] and, where there is one, `mask` [H, W, 1]."""


class PhotoFiles(Sequence[Photo]):
    """Reads photos from their files as nerfstudio does, undistorted and with their masks; keeps none.

    What is read ahead is the same to the last bit as what is read when it is wanted.
    """

    def __init__(
        self, dataset: Any, image_type: Literal["uint8", "float32"], folder: Optional[Path], pinned: bool = False
    ) -> None:
        """Read nothing yet.

        Args:
            dataset: nerfstudio's. Its cameras become those of the undistorted photos, each when its photo is read.
            image_type: of the photos.
            folder: of the data, to be named where a photo cannot be read.
            pinned: bring them into memory that a GPU reads without waiting.
        """
        self.dataset, self.image_type, self.folder, self.pinned = dataset, image_type, folder, pinned
        self.cameras = copy.deepcopy(dataset.cameras)  # as the files are
        self.threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="photo")
        self.coming: dict[int, Future[Photo]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        """Return a photo, read now if it was not read ahead.

        Raises:
            SystemExit: naming the file that cannot be read, or the mask that leaves nothing.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        coming = self.coming.pop(index, None)
        with reading_data(self.folder):
            return self.read(index) if coming is None else coming.result()

    def read_ahead(self, wanted: Iterable[int]) -> None:
        """Begin to read the photos that are wanted next, the first few of them, and forget all others."""
        next_ones = list(dict.fromkeys(wanted))[:AHEAD]
        self.coming = {i: self.coming.get(i) or self.threads.submit(self.read, i) for i in next_ones}

    def in_order(self) -> Iterator[Photo]:
        """Go through all photos once."""
        for index in range(len(self)):
            self.read_ahead(range(index, len(self)))
            yield self[index]

    def read(self, index: int) -> Photo:
        """Read a photo and its mask, and settle its camera.

        Raises:
            ValueError: naming the file that cannot be read, or the mask that leaves nothing.
        """
        scene = self.dataset._dataparser_outputs
        try:
            photo = self.undistorted(index)
        except (AssertionError, OSError, SyntaxError) as error:
            raise ValueError(fault_of(scene, index, error)) from error
        check_mask(photo, index, scene)
        if self.pinned:
            photo = {name: value.pin_memory() if torch.is_tensor(value) else value for name, value in photo.items()}
        return photo

    def undistorted(self, index: int) -> Photo:
        """Let nerfstudio decode a photo and undistort it, and let its dataset know the undistorted camera."""
        photo = self.dataset.get_data(index, image_type=self.image_type)
        camera = self.cameras[index].reshape(())
        size, wanted = photo["image"].shape[1::-1], (camera.width.item(), camera.height.item())
        assert size == wanted, f"it has {size[0]} x {size[1]} pixels, but its camera says {wanted[0]} x {wanted[1]}"
        distortion = camera.distortion_params
        if distortion is None or not distortion.any():
            return photo
        lens, pixels = camera.get_intrinsics_matrices().numpy(), photo["image"].numpy()
        K, pixels, mask = nerfstudios._undistort_image(camera, distortion.numpy(), photo, pixels, lens)
        photo["image"] = torch.from_numpy(pixels).contiguous()  # not a part of the larger one
        if mask is not None:
            photo["mask"] = mask.contiguous()
        cameras = self.dataset.cameras
        cameras.fx[index], cameras.fy[index] = float(K[0, 0]), float(K[1, 1])
        cameras.cx[index], cameras.cy[index] = float(K[0, 2]), float(K[1, 2])
        cameras.height[index], cameras.width[index] = pixels.shape[:2]
        return photo
