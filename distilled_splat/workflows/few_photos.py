"""Captures with fewer photos: every n-th training photo, and all held-out photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distilled_splat.runs.files import write_json

HELD_OUT_EVERY = 8
"""Every 8th photo is held out if the capture has no split of its own, as in `photos.dataparser_words`."""


def thinned(scene: Path, every: int, folder: Path) -> Path:
    """Write a capture with every n-th training photo of another capture, and with the same held-out photos.

    In nerfstudio's format all frames stay listed, so that the poses keep the coordinate frame of the whole capture. The
    photos are links.

    Args:
        scene: folder in nerfstudio's format (every 8th photo is held out) or in blender's.
        every: 1 takes all training photos, 3 the first, the fourth and so on.
        folder: parent folder of the new capture; an earlier capture there is replaced.

    Returns:
        The folder of the new capture, `folder` / "<scene>-every-<n>".

    Raises:
        FileNotFoundError: if the scene has neither transforms.json nor transforms_train.json.
    """
    thin = folder / f"{scene.name}-every-{every}"
    thin.mkdir(parents=True, exist_ok=True)
    blender = scene / "transforms_train.json"
    listing = blender if blender.exists() else scene / "transforms.json"
    content: dict[str, Any] = json.loads(listing.read_text())
    if listing == blender:
        content["frames"] = content["frames"][::every]
    else:
        names = sorted(frame["file_path"] for frame in content["frames"])
        held_out = names[::HELD_OUT_EVERY]
        rest = [name for place, name in enumerate(names) if place % HELD_OUT_EVERY]
        content |= {"train_filenames": rest[::every], "val_filenames": held_out, "test_filenames": held_out}
    for link in thin.iterdir():
        if link.is_symlink() and not link.exists():  # to a file that the scene no longer has
            link.unlink()
    for path in scene.iterdir():
        link = thin / path.name
        if path.name == listing.name:
            continue
        if link.is_symlink():  # it may lead to where the scene was before
            link.unlink()
        if not link.exists():
            link.symlink_to(path.absolute())
    write_json(thin / listing.name, content)
    return thin
