"""Points as people bring them: a splat begins well with them, or says why it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refusal
from tiny import tiny_config, tiny_teacher

from distilled_splat.methods import distilled_splatfacto, splatfacto_teacher
from distilled_splat.workflows.teacher_configs import parsed_scene

POINTS = np.random.default_rng(0).uniform(-1, 1, (40, 3))
COLORS = np.random.default_rng(1).integers(0, 255, (40, 3))


@pytest.fixture
def capture(scene: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scene, tmp_path / "capture"))


def write_points(capture: Path, points: np.ndarray, colors: np.ndarray | None = None) -> None:
    kinds = {"x": "<f8", "y": "<f8", "z": "<f8"} | (
        {} if colors is None else dict.fromkeys(("red", "green", "blue"), "u1")
    )
    rows = np.zeros(len(points), np.dtype(list(kinds.items())))
    for name, column in zip(kinds, np.hstack([points] if colors is None else [points, colors]).T):
        rows[name] = column
    properties = [f"property {'uchar' if kind == 'u1' else 'double'} {name}" for name, kind in kinds.items()]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    (capture / "sparse_pc.ply").write_bytes("\n".join(head).encode() + rows.tobytes())


@pytest.mark.parametrize("copies", [4, 12])
def test_points_that_lie_in_one_place_begin_as_small_gaussians_of_some_size(
    capture: Path, tmp_path: Path, copies: int
) -> None:
    points = np.concatenate([POINTS, np.repeat(POINTS[:3], copies, axis=0)])
    write_points(capture, points)
    model = tiny_teacher(capture, tmp_path, iterations=1).pipeline.model
    sizes = torch.exp(model.scales.detach())
    assert bool(torch.isfinite(sizes).all())
    assert float(sizes.min()) == pytest.approx(1e-7**0.5, rel=0.1)  # after one step of Adam
    assert float(sizes.max()) > 0.1


@pytest.mark.parametrize("colors", [COLORS, None], ids=["with colours", "without colours"])
def test_points_that_are_no_numbers_are_left_out_and_counted(
    capture: Path, tmp_path: Path, colors: np.ndarray | None, capsys: pytest.CaptureFixture[str]
) -> None:
    points = POINTS.copy()
    points[3, 1], points[30] = np.nan, (np.inf, 0, 0)
    write_points(capture, points, colors)
    model = tiny_teacher(capture, tmp_path, iterations=1).pipeline.model
    assert model.num_points == 38 and bool(torch.isfinite(model.means).all())
    if colors is not None:
        found = model.seed_points[1]
        assert torch.equal(found.cpu(), torch.tensor(np.delete(colors, [3, 30], axis=0), dtype=torch.uint8))
    assert "2 of 40 points are NaN or infinite and are left out." in capsys.readouterr().out


@pytest.mark.parametrize("points", [POINTS[:1], POINTS[:3], np.full((9, 3), np.nan)], ids=["one", "three", "nine NaN"])
def test_with_fewer_points_than_four_a_splat_begins_at_random(
    capture: Path, tmp_path: Path, points: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write_points(capture, points)
    assert tiny_teacher(capture, tmp_path, iterations=1, num_random=300).pipeline.model.num_points == 300
    assert "the training starts from random points" in " ".join(capsys.readouterr().out.split())


def shifted(capture: Path, shift: tuple[float, float, float], scale: float = 1.0) -> None:
    """Move the cameras, and say nothing of the points."""
    meta = json.loads((capture / "transforms.json").read_text())
    for frame in meta["frames"]:
        for axis in range(3):
            frame["transform_matrix"][axis][3] = scale * frame["transform_matrix"][axis][3] + shift[axis]
    (capture / "transforms.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("shift", "scale", "offset"),
    [
        ((500000.0, 5400000.0, 300.0), 1.0, "5400000"),
        ((0.0, 1e5, 0.0), 1.0, "100000"),
        ((8.5, 47.4, 0.0), 1e-5, "47.4"),
    ],
    ids=["UTM", "a kilometre grid", "degrees"],
)
def test_coordinates_too_large_for_their_size_are_refused_with_what_to_subtract(
    capture: Path, tmp_path: Path, shift: tuple[float, float, float], scale: float, offset: str
) -> None:
    shifted(capture, shift, scale)
    sentence = refusal(tiny_config(splatfacto_teacher, capture, tmp_path))
    assert str(capture) in sentence and "32-bit floats" in sentence and f"{offset}" in sentence
    with pytest.raises(SystemExit, match="32-bit floats"):
        parsed_scene(tiny_config(distilled_splatfacto, capture, tmp_path))
    named = json.loads("[" + sentence.split("subtract (")[1].split(")")[0] + "]")
    shifted(capture, tuple(-value for value in named))
    parsed_scene(tiny_config(distilled_splatfacto, capture, tmp_path))


def test_a_large_capture_far_from_its_origin_is_taken(capture: Path, tmp_path: Path) -> None:
    shifted(capture, (5e5, 5.4e6, 300.0), scale=1e5)
    parsed_scene(tiny_config(distilled_splatfacto, capture, tmp_path))
