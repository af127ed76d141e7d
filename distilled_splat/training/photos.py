"""Check photos and masks before training: report a fault in one sentence that names the file."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from PIL import Image

from distilled_splat.runs.words import type_and_words, words_of

DATA_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What nerfstudio's dataparsers raise for a broken capture. A TypeError counts only if a dataparser raises it:
elsewhere it means that the versions of two packages do not fit."""
DATAPARSERS = "nerfstudio.data.dataparsers."
MODES = ("L", "RGB", "RGBA")
"""Pixel formats that nerfstudio reads correctly; it would read the indices of a palette as colours."""
MASK_MODES = ("1", "L", "I", "I;16")
"""Pixel formats of masks; a pixel counts where it is not zero."""
EXIF_ORIENTATION = 0x0112
EXIF_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


def dataparser_words(scene: Path) -> list[str]:
    """Return the dataparser and its options for `ns-train`, with held-out views.

    Args:
        scene: folder in blender's format (recognised by its transforms_train.json), or in nerfstudio's, of which every
            8th view is held out.
    """
    if (scene / "transforms_train.json").exists():
        return ["blender-data"]
    return ["nerfstudio-data", "--eval-mode", "interval", "--eval-interval", "8"]


@contextmanager
def reading_data(folder: Optional[Path]) -> Iterator[None]:
    """Report in one sentence that a capture cannot be read.

    Raises:
        SystemExit: instead of the exception that nerfstudio raises.
    """
    try:
        yield
    except (*DATA_ERRORS, TypeError) as error:
        if isinstance(error, TypeError) and not module_of(error).startswith(DATAPARSERS):
            raise
        words = type_and_words(error)
        missing = getattr(error, "filename", None) if isinstance(error, FileNotFoundError) else None
        if isinstance(missing, str) and Path(missing).suffix.lower() in Image.registered_extensions():
            words = way_to_restore(Path(missing))
        if os.sep == "/" and "\\" in words:
            words += "; its transforms.json was written on Windows: replace every \\ in its paths by /"
        raise SystemExit(f"The data in {folder} cannot be read ({words}).") from error


def module_of(error: BaseException) -> str:
    """Return the name of the module that raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "")


def check_photos(scene: DataparserOutputs) -> None:
    """Check that every photo and mask exists, can be opened, and has the size that its camera says.

    Only the files' headers are read, in less than a millisecond each.

    Raises:
        ValueError: with the file, what is wrong with it and what to do.
    """
    sizes = zip(scene.cameras.width.flatten().tolist(), scene.cameras.height.flatten().tolist())
    masks: Sequence[Optional[Path]] = scene.mask_filenames or [None] * len(scene.image_filenames)
    for photo, mask, size in zip(scene.image_filenames, masks, sizes):
        found, mode = header_of(photo)
        if found != size:
            raise ValueError(
                f"{photo} has {found[0]} x {found[1]} pixels, but its camera says {size[0]} x {size[1]}: "
                f"{way_to_fit(photo, found, size)}"
            )
        if mode not in MODES:
            raise ValueError(f"{photo} is stored as {mode} instead of RGB, RGBA or grey: convert it to RGB")
        if mask is None:
            continue
        mask_size, mask_mode = header_of(mask)
        if mask_size != found:
            raise ValueError(f"the mask {mask} has another size than its photo {photo}: scale the mask")
        if mask_mode not in MASK_MODES:
            raise ValueError(
                f"the mask {mask} is stored as {mask_mode} instead of grey: convert it to grey (one channel), black "
                "where the photo is ignored"
            )


def header_of(path: Path) -> tuple[tuple[int, int], str]:
    """Return width and height in pixels, and the pixel format.

    Raises:
        ValueError: if the file is missing or is not a picture.
    """
    try:
        with Image.open(path) as image:
            return image.size, image.mode
    except FileNotFoundError:
        raise ValueError(way_to_restore(path)) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be opened as a picture ({' '.join(str(error).split())})") from error


def way_to_restore(path: Path) -> str:
    """Return what to do about a photo or a mask that is missing."""
    folder = path.parent
    if folder.is_dir():
        return f"{path} is missing: restore it, or remove its frame"
    factor = re.fullmatch(r"(\w+)_(\d+)", folder.name)
    if factor is None or not folder.with_name(factor[1]).is_dir():
        return f"the folder {folder} is missing: restore it, or correct the paths of the frames"
    return (
        f"the folder {folder} is missing: put the photos there, scaled down by {factor[2]} (ns-process-data does it), "
        "or leave out --downscale-factor"
    )


def way_to_fit(photo: Path, found: tuple[int, int], wanted: tuple[int, int]) -> str:
    """Return what to do about a photo whose size differs from its camera's, both as width and height in pixels."""
    if found != wanted[::-1]:
        return "scale one of them"
    with Image.open(photo) as image:
        orientation = image.getexif().get(EXIF_ORIENTATION)
    if orientation in EXIF_ON_ITS_SIDE:
        return (
            f"it is stored on its side with an EXIF orientation ({orientation}), which nerfstudio ignores. Turn the "
            "pixels of all such photos (ImageMagick: mogrify -auto-orient)"
        )
    return "turn the photo, or swap w and h, fl_x and fl_y, and cx and cy in its camera"


def held_out_scene(dataparser: Any, split: str) -> DataparserOutputs:
    """Parse the held-out photos.

    nerfstudio evaluates on `val` in training and on `test` later. If a capture lists the photos of its splits, it
    requires both lists. Here a single one serves for both.

    Args:
        dataparser: nerfstudio's, set up.
        split: val or test.

    Raises:
        ValueError: if a capture lists the photos of its splits, but neither of these.
    """
    other = {"val": "test", "test": "val"}[split]
    for name in (split, other):
        try:
            return dataparser.get_dataparser_outputs(split=name)
        except RuntimeError as error:
            if f"filenames for split {name} is missing" not in str(error):
                raise
    raise ValueError(
        "transforms.json lists the training photos, but not the held-out photos: add test_filenames, a list that "
        "may be empty"
    )


def fault_of(scene: DataparserOutputs, index: int, error: BaseException) -> str:
    """Say what is wrong with the files of a photo that could not be read.

    Args:
        scene: what was parsed.
        index: number of the photo.
        error: that it could not be read with.
    """
    photo = scene.image_filenames[index]
    for path in (photo, *((scene.mask_filenames or [])[index : index + 1])):
        try:
            header_of(path)
            with Image.open(path) as image:
                image.load()
        except ValueError as fault:
            return str(fault)
        except (OSError, SyntaxError):
            return f"{path}: {words_of(error)}"
    return f"{photo}: {type_and_words(error)}"


def check_mask(photo: dict[str, Any], index: int, scene: DataparserOutputs) -> None:
    """Refuse a mask that leaves nothing of its photo.

    Args:
        photo: `image`, and perhaps `mask`.
        index: its number.
        scene: what was parsed.

    Raises:
        ValueError: with the mask and the photo.
    """
    if "mask" in photo and not bool(photo["mask"].any()):
        name = scene.mask_filenames[index] if scene.mask_filenames else "its mask"
        raise ValueError(f"{name} hides all of {scene.image_filenames[index]}: repair the mask, or remove both")
