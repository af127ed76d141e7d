"""Exported splats of any trainer: every form that is read, and one clear sentence for what is not."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import cloud, columns_of, ply_bytes, same, write_ply
from strange_files import mild, packed

from distilled_splat.teachers.reading import read_teacher


@pytest.mark.parametrize("form", ["binary_little_endian", "binary_big_endian", "ascii"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_every_degree_in_every_encoding(tmp_path: Path, form: str, degree: int) -> None:
    gaussians = cloud(degree=degree)
    teacher = read_teacher(write_ply(tmp_path / "a splat ü.ply", gaussians, form=form))
    assert same(teacher.gaussians, gaussians)
    assert teacher.gaussians.sh_degree == degree
    assert teacher.variant == "standard" and teacher.is_export and teacher.frame is None and not teacher.antialiased


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_other_properties_orders_types_and_remarks_do_not_matter(tmp_path: Path, kind: str, newline: bytes) -> None:
    gaussians = cloud()
    columns = columns_of(gaussians)
    extra = {"nx": np.zeros(7), "red": np.full(7, 9, np.uint8), "segment": np.ones(7)}
    shuffled = dict(sorted({**columns, **extra}.items(), key=lambda item: item[0][::-1]))
    remarks = "comment by Zoë, element vertex 9\nobj_info element vertex 8".encode("latin1")
    path = tmp_path / "splat.PLY"
    path.write_bytes(ply_bytes(shuffled, kind=kind, remarks=remarks, newline=newline))
    assert same(read_teacher(path).gaussians, gaussians)


def test_plain_colours_become_coefficients(tmp_path: Path) -> None:
    columns = {name: value for name, value in columns_of(cloud(degree=0)).items() if not name.startswith("f_")}
    colours = {name: np.arange(7, dtype=np.uint8) * 40 for name in ("red", "green", "blue")}
    path = tmp_path / "splat.ply"
    path.write_bytes(ply_bytes({**columns, **colours}))
    gaussians = read_teacher(path).gaussians
    assert gaussians.sh_degree == 0
    shown = 0.5 + 0.28209479177387814 * gaussians.sh_dc
    assert torch.allclose(shown, (torch.arange(7.0) * 40 / 255)[:, None].expand(7, 3), atol=1e-6)


def test_an_independent_writer_is_read(tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply")
    path, gaussians = tmp_path / "splat.ply", cloud()
    arrays = (gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.logit_opacities, gaussians.sh_dc)
    gsply.plywrite(str(path), *(tensor.numpy() for tensor in arrays), gaussians.sh_rest.numpy())
    assert same(read_teacher(path).gaussians, gaussians)


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("form", ["ply", "spz"])
def test_compressed_splats_are_read_to_within_their_precision(tmp_path: Path, form: str, degree: int) -> None:
    path = packed(tmp_path, form, degree=degree)
    found, gaussians = read_teacher(path).gaussians, mild(cloud(300, degree))
    # a compressed .ply orders its Gaussians along a curve
    order = torch.cdist(gaussians.means, found.means).argmin(dim=1)
    found = found[order]
    assert len(order.unique()) == 300
    assert torch.allclose(found.means, gaussians.means, atol=5e-3)
    assert torch.allclose(found.log_scales, gaussians.log_scales, atol=0.04)
    assert torch.allclose(found.logit_opacities, gaussians.logit_opacities, atol=0.06)
    assert torch.allclose(found.sh_dc, gaussians.sh_dc, atol=0.05)
    assert torch.allclose((found.quats * gaussians.quats).sum(-1).abs(), torch.ones(300), atol=1e-3)
    assert found.sh_rest.shape == gaussians.sh_rest.shape
    if degree:
        assert torch.allclose(found.sh_rest, gaussians.sh_rest, atol=0.05)


def refusal(path: Path) -> str:
    with pytest.raises(ValueError) as refused:
        read_teacher(path)
    sentence = str(refused.value)
    assert str(path) in sentence and "\n" not in sentence and len(sentence) < 600
    return sentence


FULL = columns_of(cloud())


def changed(**columns: Any) -> dict[str, np.ndarray]:
    return {name: value for name, value in {**FULL, **columns}.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a .ply file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "not a .ply file"),
        (b"ply\nformat binary_little_endian 1.0\n" + b"comment \n" * 10000, "not a .ply file"),
        (ply_bytes(FULL)[:-1], "truncated"),
        (ply_bytes(FULL, count=8), "truncated"),
        (ply_bytes(FULL, count=4_000_000_000), "declares 4000000000 Gaussians"),
        (ply_bytes(FULL, count=10**17), "truncated"),
        (ply_bytes(FULL, count=10**30), "damaged .ply header"),
        (ply_bytes(FULL, count=-1), "damaged .ply header"),
        (ply_bytes(FULL, form="ascii", count=10**12), "truncated"),
        (ply_bytes(FULL, form="ascii", count=8), "cannot be read"),
        (ply_bytes(FULL, form="ascii")[:-9] + b"x" * 9, "cannot be read"),
        (ply_bytes(FULL, count=0), "has no Gaussians"),
        (ply_bytes(FULL, form="ascii", count=0), "has no Gaussians"),
        (ply_bytes({name: FULL[name] for name in "xyz"}), "it lacks rot_0, rot_1, rot_2, rot_3"),
        (ply_bytes(changed(scale_1=None)), "it lacks scale_1"),
        (ply_bytes(changed(f_dc_1=None)), "it lacks f_dc_1"),
        (ply_bytes(changed(f_rest_44=None)), "44 f_rest properties"),
        (ply_bytes(changed(f_rest_44=None, f_rest_99=FULL["x"])), "45 f_rest properties"),
        (ply_bytes(changed(opacity=np.full(7, np.nan))), "NaN or infinite"),
        (ply_bytes(changed(scale_0=np.full(7, 1e300)), kind="f8"), "NaN or infinite"),
        (ply_bytes(FULL).replace(b"property float x\n", b"property list uchar int x\n"), "lists of numbers"),
        (ply_bytes(FULL).replace(b"property float x\n", b"property float128 x\n"), "damaged .ply header"),
        (ply_bytes(FULL).replace(b"property float y\n", b"property float x\n"), "damaged .ply header"),
        (ply_bytes(FULL).replace(b"element vertex", b"element point"), "it lacks x, y, z, rot_0"),
    ],
)
def test_a_bad_ply_is_refused_in_one_sentence(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "splat.ply"
    path.write_bytes(content)
    assert complaint in refusal(path)


def test_a_compressed_ply_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    content = packed(tmp_path, "ply").read_bytes()
    path = tmp_path / "bad.ply"
    for old, new in (
        (b"element chunk 2", b"element chunk 1"),  # its decoder would read past the bounds
        (b"binary_little_endian", b"binary_big_endian"),
        (b"packed_scale", b"packed_size"),
        (b"element sh 300", b"element sh 299"),
        (b"property uchar f_rest_44\n", b""),
    ):
        assert old in content
        path.write_bytes(content.replace(old, new))
        assert "compressed .ply" in refusal(path) or "cannot be read" in refusal(path)
    path.write_bytes(content[:-1])
    assert "truncated" in refusal(path)


def spz(count: int = 5, version: int = 3, magic: int = 0x5053474E, degree: int = 0, body: int = 100) -> bytes:
    return struct.pack("<IIIBBBB", magic, version, count, degree, 12, 0, 0) + bytes(body)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "too short for a header"),
        (b"NGSP" + bytes(60), "not a .spz file of versions 1 to 4"),
        (gzip.compress(spz())[:-9], "its gzip stream does not end with the file"),
        (gzip.compress(b"NGSP"), "too short for a header"),
        (gzip.compress(spz(magic=7)), "not a .spz file"),
        (gzip.compress(spz(version=4)), "not a .spz file of versions 1 to 3"),
        (gzip.compress(spz(degree=9)), "not a .spz file"),
        (gzip.compress(spz(count=4_000_000_000)), "declares 4000000000 Gaussians"),
        (gzip.compress(spz(body=99)), "truncated or damaged"),
        (gzip.compress(bytes(200_000_000)), "inflates to more than"),
    ],
    ids=range(10),
)
def test_a_bad_spz_is_refused_in_one_sentence(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "splat.spz"
    path.write_bytes(content)
    assert complaint in refusal(path)
