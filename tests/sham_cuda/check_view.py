"""What a browser is shown, on the sham device as on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from solids import solid, sphere

from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.teachers.reading import Teacher
from distilled_splat.viewing.pictures import Camera, Choice, picture
from distilled_splat.viewing.splats import shown
from distilled_splat.viewing.start import find_start


def test_pictures_and_where_they_begin_are_those_of_the_cpu() -> None:
    paths = [Path("solid.ply"), Path("sphere.ply")]
    splats = [Teacher(path, splat, False, None, {}) for path, splat in zip(paths, (solid(1500), sphere(500)))]
    frame = UnitFrame.of([splat.gaussians for splat in splats])
    camera = Camera((1.0, 0.0, 0.0, 0.0), (0.1, -0.2, -3.0), 0.8, 1.3)
    found = {}
    for device in ("cuda", "cpu"):
        here = shown(splats, ["solid", "sphere"], frame, torch.device(device))
        assert here[0].gaussians.means.device.type == device
        start = find_start(paths, splats, here, frame)
        assert start.up.device.type == "cpu"
        found[device] = picture(Choice(here[0], here[1], 0.6, (9, 99, 200)), camera, 60), start
    (on_device, there), (on_cpu, expected) = found["cuda"], found["cpu"]
    assert on_cpu.std() > 20 and np.abs(on_device.astype(int) - on_cpu).max() <= 2
    assert torch.allclose(there.view.viewmat.cpu(), expected.view.viewmat, atol=1e-4)
