"""Trainings on the sham device that several checks look at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def runs(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """One teacher of each kind, trained on the sham device, by kind."""
    from sham_cuda.trainings import VARIANTS, teacher_on, train

    output = tmp_path_factory.mktemp("teachers-on-device")
    return {variant: train(teacher_on("cuda", scene, output / variant, variant)) for variant in VARIANTS}


@pytest.fixture(scope="session")
def folders(runs: dict) -> tuple[Path, ...]:
    """The run folders of these teachers."""
    return tuple(run.folder for run in runs.values())


@pytest.fixture(scope="session")
def masked_scene(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene with the right half of every photo masked."""
    folder = tmp_path_factory.mktemp("masked") / "scene"
    shutil.copytree(scene, folder)
    meta = json.loads((folder / "transforms.json").read_text())
    for frame in meta["frames"]:
        frame["mask_path"] = "mask.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    Image.fromarray(np.repeat([[255] * 32 + [0] * 32], 48, axis=0).astype(np.uint8)).save(folder / "mask.png")
    return folder
