"""Photos that stay files: each is read when it is needed, and the next ones are read ahead in threads."""

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
"""Number of photos to read ahead, each in its own thread. On a GPU a step is faster than the decoding of a photo."""

Photo = dict[str, Any]
"""nerfstudio's batch: `image` [H, W, 3 or 4], and `mask` [H, W, 1] if there is one."""


class PhotoFiles(Sequence[Photo]):
    """Reads photos from their files as nerfstudio does, undistorted and with their masks. No photo stays in memory.

    A photo is the same to the last bit whether it is read ahead or when it is needed.
    """

    def __init__(
        self, dataset: Any, image_type: Literal["uint8", "float32"], folder: Optional[Path], pinned: bool = False
    ) -> None:
        """Prepare to read photos.

        Args:
            dataset: nerfstudio's dataset. Reading a photo replaces its camera by that of the undistorted photo.
            image_type: type of the pixels.
            folder: folder of the data, for messages.
            pinned: whether to put photos into pinned memory, from which a GPU copies without waiting.
        """
        self.dataset, self.image_type, self.folder, self.pinned = dataset, image_type, folder, pinned
        self.cameras = copy.deepcopy(dataset.cameras)  # the cameras of the files, still distorted
        self.threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="photo")
        self.coming: dict[int, Future[Photo]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        """Return a photo. Read it now if it was not read ahead.

        Raises:
            SystemExit: if a file cannot be read, or a mask hides its whole photo; the message has the file.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        coming = self.coming.pop(index, None)
        with reading_data(self.folder):
            return self.read(index) if coming is None else coming.result()

    def read_ahead(self, wanted: Iterable[int]) -> None:
        """Start to read the first few photos of `wanted`, and drop all other photos that were read ahead."""
        next_ones = list(dict.fromkeys(wanted))[:AHEAD]
        self.coming = {i: self.coming.get(i) or self.threads.submit(self.read, i) for i in next_ones}

    def in_order(self) -> Iterator[Photo]:
        """Yield all photos in order."""
        for index in range(len(self)):
            self.read_ahead(range(index, len(self)))
            yield self[index]

    def read(self, index: int) -> Photo:
        """Read a photo and its mask, and update its camera.

        Raises:
            ValueError: if a file cannot be read, or the mask hides the whole photo; the message has the file.
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
        """Decode and undistort a photo with nerfstudio, and put the undistorted camera into the dataset."""
        photo = self.dataset.get_data(index, image_type=self.image_type)
        camera = self.cameras[index].reshape(())
        size, wanted = photo["image"].shape[1::-1], (camera.width.item(), camera.height.item())
        assert size == wanted, f"it has {size[0]} x {size[1]} pixels, but its camera says {wanted[0]} x {wanted[1]}"
        distortion = camera.distortion_params
        if distortion is None or not distortion.any():
            return photo
        lens, pixels = camera.get_intrinsics_matrices().numpy(), photo["image"].numpy()
        K, pixels, mask = nerfstudios._undistort_image(camera, distortion.numpy(), photo, pixels, lens)
        photo["image"] = torch.from_numpy(pixels).contiguous()  # a copy, not a view of the larger picture
        if mask is not None:
            photo["mask"] = mask.contiguous()
        cameras = self.dataset.cameras
        cameras.fx[index], cameras.fy[index] = float(K[0, 0]), float(K[1, 1])
        cameras.cx[index], cameras.cy[index] = float(K[0, 2]), float(K[1, 2])
        cameras.height[index], cameras.width[index] = pixels.shape[:2]
        return photo
