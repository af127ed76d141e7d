"""Files that other programs wrote, against independent readers of them; see `conftest.py` for where they lie.

Each figure below is what the named program reads, or what the file was made of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SPLAT_FILES
from exports import same
from oracles import agree, by_gaussforge, by_gsply
from plyfile import PlyData

from distilled_splat.splat.files import read_splat
from distilled_splat.splat.gaussians import SH_DEGREE_0, Gaussians
from distilled_splat.teachers.reading import read_teacher

COUNTS = {
    "minimal-v2.spz": ("spz", "2", 4, 0),
    "minimal-v3.spz": ("spz", "3", 4, 0),
    "minimal-v4.spz": ("spz", "4", 4, 0),
    "minimal-raw.spz": ("spz", "2", 4, 0),
    "splat-transform_v4.spz": ("spz", "4", 5000, 3),
    "capture_rub.spz": ("spz", "3", 5000, 3),
    "test-splat.3-points-from-train.spz": ("spz", "3", 3, 3),
    "test-splat.3-points-from-train.ply": ("ply", "", 3, 3),
    "test-splat.3-points-from-train.splat": ("splat", "", 3, 0),
    "minimal.splat": ("splat", "", 4, 0),
    "minimal.ksplat": ("ksplat", "0.1", 4, 0),
    "playbot-sog": ("sog", "2", 1873, 2),
    "supersplat-2.2-degree3.compressed.ply": ("compressed-ply", "", 64, 3),
    "gsplat_deg0.compressed.ply": ("compressed-ply", "", 5000, 0),
    "supersplat1_12chunk.compressed.ply": ("compressed-ply", "without colour bounds", 5000, 3),
    "opaque_inf.ply": ("ply", "", 5000, 3),
    "2dgs_two_scales.ply": ("ply", "2D Gaussians", 5000, 3),
    "brush_mip.ply": ("ply", "", 5000, 3),
    "mip_splatting_filter3D.ply": ("ply", "Mip-Splatting", 5000, 3),
}


def found(name: str) -> Gaussians:
    return read_splat(SPLAT_FILES / name).gaussians


@pytest.mark.parametrize("name", COUNTS)
def test_every_file_is_read(name: str) -> None:
    file = read_splat(SPLAT_FILES / name)
    assert (file.format, file.version, len(file.gaussians), file.gaussians.sh_degree) == COUNTS[name]
    assert same(read_teacher(SPLAT_FILES / name).gaussians, file.gaussians)


@pytest.mark.parametrize(
    "name",
    [
        "minimal-v2.spz", "minimal-v3.spz", "minimal-v4.spz", "splat-transform_v4.spz", "capture_rub.spz",
        "test-splat.3-points-from-train.spz", "test-splat.3-points-from-train.ply",
        "test-splat.3-points-from-train.splat", "minimal.splat", "minimal.ksplat", "opaque_inf.ply", "brush_mip.ply",
    ],
)  # fmt: skip
def test_gaussforge_reads_the_same(name: str) -> None:
    path = SPLAT_FILES / name
    agree(found(name), by_gaussforge(path.read_bytes(), path.suffix[1:]))


@pytest.mark.parametrize("name", ["supersplat-2.2-degree3.compressed.ply", "gsplat_deg0.compressed.ply"])
def test_gaussforge_and_gsply_read_the_same_compressed_ply(name: str) -> None:
    """gaussforge takes an opacity of 1 to be .999, and gsply the logit 10."""
    gsply = pytest.importorskip("gsply")
    agree(found(name), by_gaussforge((SPLAT_FILES / name).read_bytes(), "compressed.ply"), tolerance=2e-3)
    agree(found(name), by_gsply(gsply.plyread(SPLAT_FILES / name)), tolerance=1e-4)


def test_gsply_reads_the_same_sog() -> None:
    gsply = pytest.importorskip("gsply")
    agree(found("playbot-sog"), by_gsply(gsply.sogread(SPLAT_FILES / "playbot-sog")))
    assert same(found("playbot-sog/meta.json"), found("playbot-sog"))


def test_the_minimal_files_are_one_splat() -> None:
    """To within the steps of each format: PlayCanvas wrote all of one square of four Gaussians."""
    reference = found("minimal.ksplat")
    for name in ("minimal-v2.spz", "minimal-v3.spz", "minimal-v4.spz", "minimal-raw.spz", "minimal.splat"):
        here = found(name)
        assert float((here.log_scales - reference.log_scales).abs().max()) <= 1 / 32 + 1e-6
        assert float((here.logit_opacities.sigmoid() - reference.logit_opacities.sigmoid()).abs().max()) < 1e-6
    assert same(found("minimal-raw.spz"), found("minimal-v2.spz"))


@pytest.fixture(scope="module")
def student() -> Gaussians:
    """The splat that most of the larger files were made of."""
    return found("brush_mip.ply")


def columns(name: str, *properties: str) -> Any:
    rows = PlyData.read(SPLAT_FILES / name)["vertex"]
    return np.stack([rows[item] for item in properties], axis=1)


def test_infinite_opacities_become_1(student: Gaussians) -> None:
    stored = columns("opaque_inf.ply", "opacity")[:, 0]
    assert np.isinf(stored).sum() > 0
    logits = found("opaque_inf.ply").logit_opacities.numpy()
    assert (logits[np.isinf(stored)] == 20).all()
    assert np.array_equal(logits[np.isfinite(stored)], stored[np.isfinite(stored)])


def test_2d_gaussians_are_the_students_without_a_third_scale(student: Gaussians) -> None:
    flat = found("2dgs_two_scales.ply")
    assert torch.equal(flat.means, student.means) and torch.equal(flat.log_scales[:, :2], student.log_scales[:, :2])
    assert bool((flat.log_scales[:, 2] < flat.log_scales[:, :2].min(dim=1).values - 6).all())


def test_the_older_compressed_ply_is_the_student_but_for_its_colours(student: Gaussians) -> None:
    """It was made by taking the bounds of colours out of a newer one, so that those of each chunk span 0 to 1."""
    older = found("supersplat1_12chunk.compressed.ply")
    place = torch.cdist(older.means, student.means).argmin(dim=1)
    here = student[place]
    assert len(place.unique()) == 5000 and float((older.means - here.means).abs().max()) < 2e-3
    assert float((older.log_scales - here.log_scales).abs().max()) < 0.01
    assert float((older.logit_opacities.sigmoid() - here.logit_opacities.sigmoid()).abs().max()) < 0.003
    colours = 0.5 + SH_DEGREE_0 * here.sh_dc[:256]
    least, greatest = colours.amin(dim=0), colours.amax(dim=0)
    shown = 0.5 + SH_DEGREE_0 * older.sh_dc[:256]
    assert float((shown - (colours - least) / (greatest - least)).abs().max()) < 0.003


@pytest.mark.parametrize(
    ("name", "antialiased"),
    [
        ("brush_mip.ply", True),
        ("mip_splatting_filter3D.ply", True),
        ("opaque_inf.ply", None),
        ("minimal-v4.spz", False),
    ],
)
def test_what_a_file_says_about_antialiasing(name: str, antialiased: bool | None) -> None:
    assert read_splat(SPLAT_FILES / name).antialiased is antialiased
    assert read_teacher(SPLAT_FILES / name).antialiased is bool(antialiased)


def test_the_filter_is_convolved_with_the_student(student: Gaussians) -> None:
    radii = columns("mip_splatting_filter3D.ply", "filter_3D")
    scales = found("mip_splatting_filter3D.ply").log_scales.exp().numpy()
    np.testing.assert_allclose(scales, np.hypot(student.log_scales.exp().numpy(), radii), rtol=1e-5)


def test_the_places_of_the_files_are_all_of_the_folder() -> None:
    """A file that is added to the folder is added here."""
    there = {item.name for item in Path(SPLAT_FILES).iterdir() if item.name != "README.md"}
    assert there == set(COUNTS)
