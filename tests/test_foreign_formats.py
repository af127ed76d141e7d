"""Splats of other programs: what is in the bytes arrives, and independent readers find the same."""

from __future__ import annotations

import dataclasses
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import cloud, columns_of, ply_bytes, same, with_y_up
from foreign_files import bundle, checkpoint, glb, glb_parts, ksplat, saved, sog_members, spz, write_folder
from oracles import agree, by_gaussforge, by_gsply
from strange_files import mild, packed

from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.splat.files import read_splat
from distilled_splat.splat.formats import FORMATS
from distilled_splat.splat.frames import moved
from distilled_splat.splat.gaussians import SH_DEGREE_0
from distilled_splat.splat.splat_file import SplatFile
from distilled_splat.teachers.reading import read_teacher


def read(folder: Path, name: str, content: bytes) -> SplatFile:
    path = folder / name
    path.write_bytes(content)
    return read_splat(path)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("version", [2, 3])
def test_a_spz_of_older_versions_is_what_gsply_and_gaussforge_read(tmp_path: Path, version: int, degree: int) -> None:
    gsply = pytest.importorskip("gsply")
    content = spz(degree=degree, version=version)
    found = read(tmp_path, "splat.spz", content)
    assert (found.format, found.version, found.antialiased) == ("spz", f"{version}", False)
    agree(found.gaussians, by_gsply(gsply.read_spz(tmp_path / "splat.spz")))
    agree(found.gaussians, by_gaussforge(content, "spz"))


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_a_spz_of_version_4_holds_the_sections_of_version_3(tmp_path: Path, degree: int) -> None:
    pytest.importorskip("zstandard")
    newer, older = read(tmp_path, "4.spz", spz(degree=degree, version=4)), read(tmp_path, "3.spz", spz(degree=degree))
    assert newer.version == "4" and same(newer.gaussians, older.gaussians)
    if degree < 4:
        agree(newer.gaussians, by_gaussforge(spz(degree=degree, version=4), "spz"))


def test_a_spz_without_gzip_is_the_same(tmp_path: Path) -> None:
    for version in (2, 3):
        bare = read(tmp_path, "bare.spz", spz(version=version, zipped=False))
        assert same(bare.gaussians, read(tmp_path, "splat.spz", spz(version=version)).gaussians)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_flag_of_a_spz_reaches_the_teacher(tmp_path: Path, version: int) -> None:
    if version == 4:
        pytest.importorskip("zstandard")
    for flags in (0, 1, 2, 3):
        path = tmp_path / "splat.spz"
        path.write_bytes(spz(version=version, flags=flags))
        assert read_splat(path).antialiased is read_teacher(path).antialiased is bool(flags & 1)


def test_a_spz_of_version_4_needs_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ValueError, match="its decoder is not installed: pip install zstandard"):
        read(tmp_path, "splat.spz", spz(version=4))


@pytest.mark.parametrize("text, expected", [("mip", True), ("default", False), (None, None)])
def test_brush_says_in_the_header_how_to_render(tmp_path: Path, text: str | None, expected: bool | None) -> None:
    remarks = b"comment Exported from Brush" + (b"" if text is None else f"\ncomment SplatRenderMode: {text}".encode())
    found = read(tmp_path, "splat.ply", ply_bytes(columns_of(cloud()), remarks=remarks))
    assert found.antialiased is expected
    assert read_teacher(tmp_path / "splat.ply").antialiased is bool(expected)


@pytest.mark.parametrize("value, expected", [(1, True), (0, False), (None, None)])
def test_postshot_says_in_the_header_how_to_render(tmp_path: Path, value: int | None, expected: bool | None) -> None:
    remarks = b"comment Exported from Postshot" + (
        b"" if value is None else f"\ncomment postshot.anti_aliasing={value}".encode()
    )
    assert read(tmp_path, "splat.ply", ply_bytes(columns_of(cloud()), remarks=remarks)).antialiased is expected


@pytest.mark.parametrize("kind", ["ply", "compressed-ply", "spz", "sog"])
def test_what_we_write_says_how_to_render(tmp_path: Path, kind: str) -> None:
    form, gaussians = FORMATS[kind], cloud(count=300, degree=1)
    if form.library is not None:
        pytest.importorskip(form.library)
    plain, smooth = (read(tmp_path, f"{mode}{form.ending}", form.file_of(gaussians, mode)) for mode in (False, True))
    assert smooth.antialiased is True and not plain.antialiased
    assert same(plain.gaussians, smooth.gaussians, 0.0)


@pytest.mark.parametrize("said, expected", [(True, True), (False, False), (None, None), (1, None), ("yes", None)])
def test_a_sog_says_in_its_json_how_to_render(tmp_path: Path, said: Any, expected: bool | None) -> None:
    members = sog_members()
    meta = {**json.loads(members["meta.json"]), **({} if said is None else {"antialias": said})}
    found = read(tmp_path, "splat.sog", bundle({**members, "meta.json": json.dumps(meta).encode()}))
    assert found.antialiased is expected


@pytest.mark.parametrize("version, name, field, value", [
    (2, "means", "mins", [[[0.0]]] * 150),
    (1, "scales", "maxs", [[1.0, 1.0, 1.0]]),
    (1, "sh0", "mins", [0.0, 0.0]),
    (2, "scales", "codebook", [[0.0] * 200] * 256),
])  # fmt: skip
def test_a_sog_of_nested_lists_is_refused(tmp_path: Path, version: int, name: str, field: str, value: Any) -> None:
    members = sog_members(version=version)
    meta = json.loads(members["meta.json"])
    meta[name][field] = value
    with pytest.raises(ValueError, match="damaged SOG"):
        read(tmp_path, "splat.sog", bundle({**members, "meta.json": json.dumps(meta).encode()}))


def test_an_ascii_ply_of_endless_empty_rows_is_refused(tmp_path: Path) -> None:
    content = ply_bytes(columns_of(cloud()), form="ascii")
    with pytest.raises(ValueError, match="declares"):
        read(tmp_path, "splat.ply", content.replace(b"element vertex", b"element junk 99999999999\nelement vertex", 1))


def test_a_glb_that_repeats_its_numbers_is_refused_before_they_are_read(tmp_path: Path) -> None:
    document, body = glb_parts(cloud(count=100_000, degree=3))
    for view in document["bufferViews"]:
        view["byteOffset"] = 0
    # the last accessor is outside of the file: reading it would be refused with other words
    document["accessors"][-1]["count"] = 100_000_000
    with pytest.raises(ValueError, match="repeats its numbers"):
        read(tmp_path, "splat.glb", glb(document, body[:1_600_000]))


def test_mip_splattings_filter_is_convolved_in(tmp_path: Path) -> None:
    """A sum of independent offsets has the sum of their covariances, and its mass stays."""
    gaussians = cloud()
    radii = np.array([0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 10.0], np.float32)
    found = read(tmp_path, "splat.ply", ply_bytes({**columns_of(gaussians), "filter_3D": radii}))
    assert found.antialiased is True and found.version == "Mip-Splatting"
    before, after = gaussians.log_scales.exp().double(), found.gaussians.log_scales.exp().double()
    assert torch.allclose(after**2, before**2 + torch.from_numpy(radii.astype(np.float64))[:, None] ** 2, rtol=1e-5)
    masses = [
        (splat.logit_opacities.sigmoid() * splat.log_scales.sum(dim=1).exp()).double()
        for splat in (gaussians, found.gaussians)
    ]
    assert torch.allclose(masses[0], masses[1], rtol=1e-4)
    kept = dataclasses.replace(
        found.gaussians, log_scales=gaussians.log_scales, logit_opacities=gaussians.logit_opacities
    )
    assert same(kept, gaussians)


def test_infinite_opacities_and_flat_scales_are_clamped(tmp_path: Path) -> None:
    columns = columns_of(cloud())
    columns["opacity"] = np.array([np.inf, -np.inf, 3, 25, -30, 0, 1], np.float32)
    columns["scale_1"] = np.array([-np.inf, -2, -40, 1, 2, 3, 4], np.float32)
    path = tmp_path / "splat.ply"
    path.write_bytes(ply_bytes(columns))
    for gaussians in (read_splat(path).gaussians, read_teacher(path).gaussians):
        assert gaussians.logit_opacities.tolist() == [20, -20, 3, 25, -30, 0, 1]
        assert gaussians.log_scales[:, 1].tolist() == [-20, -2, -40, 1, 2, 3, 4]
        assert torch.equal(gaussians.log_scales[:, 0], cloud().log_scales[:, 0])


@pytest.mark.parametrize(
    ("name", "value"),
    [("opacity", np.nan), ("scale_0", np.inf), ("scale_0", np.nan), ("x", np.inf), ("rot_1", -np.inf)],
)
def test_other_infinities_are_refused(tmp_path: Path, name: str, value: float) -> None:
    columns = {**columns_of(cloud()), name: np.full(7, value, np.float32)}
    with pytest.raises(ValueError, match=r"has NaN or infinite values"):
        read(tmp_path, "splat.ply", ply_bytes(columns))


def test_an_empty_element_of_harmonics_is_degree_0(tmp_path: Path) -> None:
    content = packed(tmp_path, "ply", degree=0).read_bytes()
    added = content.replace(b"end_header\n", b"element sh 300\nend_header\n")
    assert added != content
    empty, none = read(tmp_path, "empty.ply", added), read(tmp_path, "none.ply", content)
    assert same(empty.gaussians, none.gaussians) and empty.gaussians.sh_degree == 0


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_compressed_ply_is_what_gsply_reads(tmp_path: Path, degree: int) -> None:
    gsply = pytest.importorskip("gsply")
    path = packed(tmp_path, "ply", degree=degree)
    agree(read_splat(path).gaussians, by_gsply(gsply.plyread(path)), tolerance=1e-4)


def test_a_compressed_ply_without_bounds_of_colours_has_colours_from_0_to_1(tmp_path: Path) -> None:
    content = packed(tmp_path, "ply", degree=1).read_bytes()
    head, end, body = content.partition(b"end_header\n")
    bounds = np.frombuffer(body[: 2 * 72], "<f4").reshape(2, 18).copy()
    bounds[:, 12:15], bounds[:, 15:] = 0, 1
    newer = head + end + bounds.tobytes() + body[2 * 72 :]
    lines = [
        line
        for line in head.splitlines()
        if line[-5:] not in {b"%s_%s" % (m, c) for m in (b"min", b"max") for c in (b"r", b"g", b"b")}
    ]
    older = b"\n".join(lines) + b"\n" + end + bounds[:, :12].tobytes() + body[2 * 72 :]
    assert len(lines) == len(head.splitlines()) - 6
    assert same(read(tmp_path, "older.ply", older).gaussians, read(tmp_path, "newer.ply", newer).gaussians)


def test_2d_gaussians_are_flat_along_their_third_axis(tmp_path: Path) -> None:
    gaussians = cloud(degree=0)
    columns = columns_of(gaussians)
    del columns["scale_2"]
    found = read(tmp_path, "splat.ply", ply_bytes(columns))
    assert found.version == "2D Gaussians"
    assert torch.equal(found.gaussians.log_scales[:, :2], gaussians.log_scales[:, :2])
    third = gaussians.log_scales[:, :2].min(dim=1).values + np.log(1e-3)
    assert torch.allclose(found.gaussians.log_scales[:, 2], third)
    # so thin that its thickness is not to be seen
    viewmat = torch.eye(4)
    viewmat[2, 3] = 6
    view = View(viewmat, torch.tensor([[80.0, 0, 40], [0, 80, 30], [0, 0, 1]]), 80, 60)
    thinner = dataclasses.replace(
        found.gaussians, log_scales=torch.cat((gaussians.log_scales[:, :2], third[:, None] - 5), dim=1)
    )
    drawn, expected = (render(splat, view).over(torch.zeros(3)) for splat in (found.gaussians, thinner))
    assert float(expected.std()) > 0.05 and float((drawn - expected).abs().max()) < 1 / 255


def test_antimatters_rows_are_read_as_they_are_described(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [(*random.normal(size=3), *random.uniform(0.01, 1, 3), *random.integers(1, 255, 8)) for _ in range(9)]
    content = b"".join(struct.pack("<6f8B", *row) for row in rows)
    found = read(tmp_path, "splat.splat", content)
    table = np.array(rows)
    assert found.format == "splat" and found.gaussians.sh_degree == 0
    agree(found.gaussians, (
        table[:, :3], table[:, 10:] - 128, np.log(table[:, 3:6]), np.log(table[:, 9] / (255 - table[:, 9])),
        (table[:, 6:9] / 255 - 0.5) / SH_DEGREE_0, None,
    ))  # fmt: skip
    agree(found.gaussians, by_gaussforge(content, "splat"))


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("compression", [0, 1, 2])
def test_a_ksplat_of_every_compression_and_degree(tmp_path: Path, compression: int, degree: int) -> None:
    content, numbers = ksplat(compression, degree)
    found = read(tmp_path, "splat.ksplat", content)
    assert (found.format, found.version) == ("ksplat", "0.1")
    stored = numbers["stored"].astype(np.float64)
    if compression == 2:
        stored = -2 + stored / 255 * 4  # between the bounds in the header
    bands = [stored[:, :9].reshape(-1, 3, 3), stored[:, 9:].reshape(-1, 3, 5)][:degree]
    rest = np.concatenate(bands, axis=2).transpose(0, 2, 1) if bands else None
    colours = numbers["colours"].astype(np.float64)
    agree(found.gaussians, (
        numbers["means"], numbers["quats"].astype(np.float64), np.log(numbers["scales"].astype(np.float64)),
        np.log(colours[:, 3] / (255 - colours[:, 3])), (colours[:, :3] / 255 - 0.5) / SH_DEGREE_0, rest,
    ))  # fmt: skip


@pytest.mark.parametrize("degree", [0, 1])
def test_a_ksplat_of_gaussforge_is_what_gaussforge_reads(tmp_path: Path, degree: int) -> None:
    """Above degree 1 it orders the coefficients in another way than mkkellogg's viewer, whose format it is."""
    gaussforge = pytest.importorskip("gaussforge")
    plain = ply_bytes(columns_of(mild(cloud(300, degree))))
    content = gaussforge.GaussForge().convert(plain, "ply", "ksplat")["data"]
    agree(read(tmp_path, "splat.ksplat", content).gaussians, by_gaussforge(content, "ksplat"), tolerance=1e-4)


@pytest.mark.parametrize("bands", [0, 1, 2, 3])
@pytest.mark.parametrize("version", [1, 2])
def test_a_sog_is_what_gsply_reads_bundled_or_not(tmp_path: Path, version: int, bands: int) -> None:
    gsply = pytest.importorskip("gsply")
    pytest.importorskip("zstandard")
    members = sog_members(version=version, bands=bands)
    folder = write_folder(tmp_path / "folder", members)
    bundled = read(tmp_path, "splat.sog", bundle(members))
    assert (bundled.format, bundled.version) == ("sog", f"{version}")
    assert len(bundled.gaussians) == 50 and bundled.gaussians.sh_degree == bands
    agree(bundled.gaussians, by_gsply(gsply.sogread(tmp_path / "splat.sog")))
    for path in (folder, folder / "meta.json"):
        teacher = read_teacher(path)
        assert same(teacher.gaussians, bundled.gaussians) and teacher.is_export


@pytest.mark.parametrize("degree", [0, 3])
def test_a_sog_of_gaussforge_is_what_gaussforge_reads(tmp_path: Path, degree: int) -> None:
    gaussforge = pytest.importorskip("gaussforge")
    content = gaussforge.GaussForge().convert(ply_bytes(columns_of(mild(cloud(300, degree)))), "ply", "sog")["data"]
    agree(read(tmp_path, "splat.sog", content).gaussians, by_gaussforge(content, "sog"), tolerance=1e-4)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_a_checkpoint_of_gsplats_trainer(tmp_path: Path, degree: int) -> None:
    found = read(tmp_path, "ckpt_6999_rank0.pt", saved(checkpoint(cloud(degree=degree))))
    assert found.format == "gsplat-checkpoint" and same(found.gaussians, cloud(degree=degree))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_glb_holds_lengths_and_opacities(tmp_path: Path, degree: int) -> None:
    gaussians = cloud(degree=degree)
    found = read(tmp_path, "splat.glb", glb(*glb_parts(gaussians)))
    assert found.format == "glb" and same(found.gaussians, with_y_up(gaussians), 2e-5)


def test_a_glb_of_two_nodes_is_where_they_put_it(tmp_path: Path) -> None:
    gaussians = cloud(degree=2)
    document, body = glb_parts(gaussians)
    half = 0.5**0.5
    parent = {"translation": [1, 2, 3], "scale": [2, 2, 2], "children": [0]}
    turned = [0, -1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 5, 0, 0, 1]  # by columns: a quarter turn about z, and away
    document["nodes"] = [{"mesh": 0, "rotation": [half, 0, 0, half]}, parent, {"mesh": 0, "matrix": turned}]
    found = read(tmp_path, "splat.glb", glb(document, body)).gaussians
    about_x = torch.tensor([[2.0, 0, 0, 1], [0, 0, -2, 2], [0, 2, 0, 3]])
    about_z = torch.tensor([[0.0, 1, 0, 5], [-1, 0, 0, 0], [0, 0, 1, 0]])
    for part, transform in zip((found[torch.arange(7)], found[torch.arange(7, 14)]), (about_x, about_z)):
        assert same(part, with_y_up(moved(gaussians, transform, 1.0)), 1e-4)


def test_a_glb_of_small_integers_is_of_fractions(tmp_path: Path) -> None:
    document, body = glb_parts(cloud(degree=0))
    for accessor, kind, values in (
        (1, 5122, np.tile(np.array([0, 0, 0, 32767], "<i2"), (7, 1))),
        (2, 5123, np.full((7, 3), 65535, "<u2")),
        (3, 5121, np.full((7, 4), 51, np.uint8)),  # a byte of four is read
    ):
        document["accessors"][accessor] |= {"componentType": kind, "normalized": True}
        view = document["bufferViews"][accessor]
        view |= {"byteOffset": len(body), "byteLength": values.nbytes}
        if accessor == 3:
            view["byteStride"] = 4
        body += values.tobytes()
    found = read(tmp_path, "splat.glb", glb(document, body)).gaussians
    assert torch.allclose(found.quats.abs(), torch.tensor([0.0, 0, 0, 1]).expand(7, 4))
    assert torch.allclose(found.log_scales, torch.zeros(7, 3))
    assert torch.allclose(found.logit_opacities.sigmoid(), torch.full((7,), 0.2))


CONTENTS: dict[str, Callable[[], bytes]] = {
    "ply": lambda: ply_bytes(columns_of(cloud())),
    "spz": lambda: spz(),
    "sog": lambda: bundle(sog_members()),
    "glb": lambda: glb(*glb_parts(cloud())),
    "gsplat-checkpoint": lambda: saved(checkpoint(cloud())),
}


@pytest.mark.parametrize("form", CONTENTS)
@pytest.mark.parametrize("ending", [".bin", ".ply", ".splat", ""])
def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path, form: str, ending: str) -> None:
    assert read(tmp_path, f"file{ending}", CONTENTS[form]()).format == form


def test_what_is_no_splat_is_refused_with_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    (tmp_path / "archive.zip").write_bytes(bundle({"photo.txt": b"x"}))
    for name in ("folder", "picture.jpg", "archive.zip", "gone.ply"):
        with pytest.raises(ValueError, match=r"give a \.ply, \.spz, \.splat, \.ksplat, \.sog, \.glb") as refused:
            read_splat(tmp_path / name)
        assert str(tmp_path / name) in str(refused.value)
