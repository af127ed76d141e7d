"""A capture with fewer photos: every n-th of those that are trained on, and all of those that are held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distilled_splat.runs.files import write_json

HELD_OUT_EVERY = 8
"""Every so many photos one is held out where a capture does not say which, as `photos.dataparser_words` has it."""


def thinned(scene: Path, every: int, folder: Path) -> Path:
    """Write a capture that has every n-th photo of another to train on, and the same photos held out.

    All frames stay listed in nerfstudio's format, so that the poses' frame is that of the whole capture. Photos are
    links.

    Args:
        scene: folder in nerfstudio's format, of which every 8th photo is held out, or in blender's.
        every: 1 takes all photos, 3 the first, the fourth and so on.
        folder: where to write it, replaced if it is there.

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
    for path in scene.iterdir():
        link = thin / path.name
        if path.name != listing.name and not link.exists():
            link.symlink_to(path.absolute())
    write_json(thin / listing.name, content)
    return thin
