"""Reads COLMAP's sparse models, binary or text, row by row, so that memory is limited by the size of the file."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Optional

import numpy as np

from distilled_splat.runs.words import words_of
from distilled_splat.shrink.recording import Recording, photo_at, shot

PLACES = (".", "0", "sparse/0", "sparse", "colmap/sparse/0")
"""Possible folders of a model, relative to the given folder."""
MODELS = {
    "SIMPLE_PINHOLE": 3, "PINHOLE": 4, "SIMPLE_RADIAL": 4, "RADIAL": 5, "OPENCV": 8, "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12, "FOV": 5, "SIMPLE_RADIAL_FISHEYE": 4, "RADIAL_FISHEYE": 5, "THIN_PRISM_FISHEYE": 12,
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
}  # fmt: skip
"""The number of parameters of each camera model, in the order of COLMAP's numbers from 0."""
ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
"""Models with parameters that begin with f, cx, cy. Those of the others begin with fx, fy, cx, cy."""
LONGEST_NAME = 4096
BYTES_OF_POINT = 24
SAVED = ((1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, 0), (0, 0, 0, 1))
"""The change of axes with which ns-process-data, and nerfstudio's own reader of COLMAP, save a model."""


class Lens(NamedTuple):
    """A row of the cameras' file: model, size in pixels, and parameters."""

    model: str
    width: float
    height: float
    parameters: tuple[float, ...]

    def intrinsics(self) -> tuple[float, float, float, float]:
        """Return fx, fy, cx, cy in pixels."""
        if self.model in ONE_FOCAL:
            f, cx, cy = self.parameters[:3]
            return f, f, cx, cy
        fx, fy, cx, cy = self.parameters[:4]
        return fx, fy, cx, cy


class Posed(NamedTuple):
    """A row of the images' file: quaternion (w, x, y, z) and translation of world-to-camera, camera number, name."""

    quaternion: tuple[float, ...]
    translation: tuple[float, ...]
    camera: int
    name: str


def model_in(folder: Path) -> Optional[Path]:
    """Return the folder of the sparse model in or below a folder; None if there is no model."""
    for place in PLACES:
        for ending in (".bin", ".txt"):
            if all((folder / place / f"{name}{ending}").is_file() for name in ("cameras", "images")):
                return folder / place
    return None


def read_colmap(folder: Path) -> Recording:
    """Read the cameras of a sparse model. Lens distortion and points are ignored.

    Args:
        folder: folder of the model's files (.bin or .txt). The photos may be in `images` beside it or further up.

    Raises:
        ValueError: if a file is damaged, truncated, or has an unknown camera model.
        OSError: if a file cannot be read.
    """
    binary = all((folder / f"{name}.bin").is_file() for name in ("cameras", "images"))
    ending = ".bin" if binary else ".txt"
    cameras, images = folder / f"cameras{ending}", folder / f"images{ending}"
    try:
        with cameras.open("rb") as file:
            lenses = dict(binary_lenses(file) if binary else text_lenses(file))
        with images.open("rb") as file:
            posed = list(binary_images(file) if binary else text_images(file))
    except (ValueError, IndexError, struct.error) as error:
        raise ValueError(
            f"{folder} is not a complete model of COLMAP ({words_of(error)}): its cameras{ending} or "
            f"images{ending} is truncated or damaged. Export the model again."
        ) from error
    if not posed:
        raise ValueError(f"{images} has no images: give a model with at least one.")
    photos = photos_of(folder)
    shots = []
    for image in posed:
        what = f"{image.name!r:.80} in {images}"
        lens = lenses.get(image.camera)
        if lens is None:
            raise ValueError(f"{what} has camera {image.camera}, which is not in {cameras}: export the model again.")
        rotation = rotation_of(np.array(image.quaternion), what).T
        centre = -rotation @ np.array(image.translation)
        photo = None if photos is None else photo_at(photos, image.name)
        shots.append(shot(rotation, centre, lens.intrinsics(), (lens.width, lens.height), what, photo))
    return Recording("sparse model of COLMAP", shots, np.eye(4), np.array(SAVED, float))


def photos_of(folder: Path) -> Optional[Path]:
    """Return the folder `images` beside a model, or beside the folder `sparse` or `colmap` around the model."""
    above = (folder, *folder.absolute().parents[:3])
    return next((each / "images" for each in above if (each / "images").is_dir()), None)


def rotation_of(quaternion: np.ndarray, what: str) -> np.ndarray:
    """Return the rotation [3, 3] of a quaternion (w, x, y, z), which need not be normalised.

    Raises:
        ValueError: if the quaternion is zero, NaN or infinite.
    """
    length = float(np.linalg.norm(quaternion))
    if not 1e-6 < length < 1e6:
        raise ValueError(f"The rotation of {what} is not a unit quaternion: export the model again.")
    w, *vector = quaternion / length
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def unpacked(file: BinaryIO, form: str) -> tuple:
    """Read numbers in a struct's format, little-endian.

    Raises:
        struct.error: if the file ends too early.
    """
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def binary_lenses(file: BinaryIO) -> Iterator[tuple[int, Lens]]:
    """Yield the rows of cameras.bin with the cameras' numbers. A count that is too large fails at the file's end."""
    names = list(MODELS)
    for _ in range(unpacked(file, "Q")[0]):
        number, model, width, height = unpacked(file, "IiQQ")
        if not 0 <= model < len(names):
            raise ValueError(f"camera model number {model} is unknown")
        yield number, Lens(names[model], width, height, unpacked(file, f"{MODELS[names[model]]}d"))


def binary_images(file: BinaryIO) -> Iterator[Posed]:
    """Yield the rows of images.bin; each image's points are skipped."""
    size = os.fstat(file.fileno()).st_size
    for _ in range(unpacked(file, "Q")[0]):
        _, *pose, camera = unpacked(file, "I7dI")
        name = bytearray()
        while (letter := file.read(1)) != b"\0":
            if not letter or len(name) == LONGEST_NAME:
                raise ValueError("the name of an image has no end")
            name += letter
        (points,) = unpacked(file, "Q")
        if points * BYTES_OF_POINT > size - file.tell():
            raise ValueError(f"an image declares {points} points, more than fit into the file")
        file.seek(points * BYTES_OF_POINT, os.SEEK_CUR)
        yield Posed(tuple(pose[:4]), tuple(pose[4:]), camera, name.decode("utf8", "replace"))


def lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a text file, cut to their first characters: lines of points can have megabytes."""
    while line := file.readline(2 * LONGEST_NAME):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(1 << 20)
        yield line.decode("utf8", "replace").strip()


def text_lenses(file: BinaryIO) -> Iterator[tuple[int, Lens]]:
    """Yield the rows of cameras.txt with the cameras' numbers."""
    for line in lines(file):
        if line and not line.startswith("#"):
            number, model, width, height, *parameters = line.split()
            if len(parameters) != MODELS.get(model, -1):
                raise ValueError(f"camera model {model!r:.40} with {len(parameters)} parameters is unknown")
            yield int(number), Lens(model, float(width), float(height), tuple(map(float, parameters)))


def text_images(file: BinaryIO) -> Iterator[Posed]:
    """Yield the rows of images.txt. The line after each row has the image's points, and may be empty."""
    rows = lines(file)
    for line in rows:
        if line and not line.startswith("#"):
            _, *pose, camera, name = line.split(maxsplit=9)
            values = tuple(map(float, pose))
            yield Posed(values[:4], values[4:], int(camera), name)
            next(rows, None)
