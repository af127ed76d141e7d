"""Files of splats: what we write is what another reader finds, in every format and at every degree."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from scipy.spatial import KDTree
from torch import Tensor

from distilled_splat.splat.files import read_splat
from distilled_splat.splat.formats import FORMATS, with_degree
from distilled_splat.splat.gaussians import SH_DEGREE_0, Gaussians

COUNT = 1000


def some_gaussians(degree: int = 3, reach: float = 1.0, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        means=reach * normal(COUNT, 3),
        quats=3 * normal(COUNT, 4),
        log_scales=normal(COUNT, 3) - 5,
        logit_opacities=2 * normal(COUNT),
        sh_dc=0.8 * normal(COUNT, 3),
        sh_rest=0.2 * normal(COUNT, (degree + 1) ** 2 - 1, 3),
    )


@dataclass
class Found:
    """What an independent reader found, [N, ...] each; no harmonics above degree 0 where it found none."""

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    colours: np.ndarray
    sh_rest: np.ndarray


def by_gsply(data: object) -> Found:
    rest = data.shN  # type: ignore[attr-defined]
    return Found(
        means=np.asarray(data.means),  # type: ignore[attr-defined]
        quats=np.asarray(data.quats),  # type: ignore[attr-defined]
        scales=np.exp(data.scales),  # type: ignore[attr-defined]
        opacities=1 / (1 + np.exp(-np.asarray(data.opacities).reshape(-1))),  # type: ignore[attr-defined]
        colours=0.5 + SH_DEGREE_0 * np.asarray(data.sh0),  # type: ignore[attr-defined]
        sh_rest=np.zeros((COUNT, 0, 3)) if rest is None else np.asarray(rest),
    )


def by_gaussforge(path: Path, ending: str) -> Found:
    """Let gaussforge make a plain .ply of a file, and read that by its names."""
    gaussforge = pytest.importorskip("gaussforge")
    ply = path.with_name("by gaussforge.ply")
    ply.write_bytes(gaussforge.GaussForge().convert(path.read_bytes(), ending, "ply")["data"])
    rows = PlyData.read(ply)["vertex"]
    bands = sum(prop.name.startswith("f_rest_") for prop in rows.properties) // 3

    def columns(stem: str, count: int) -> np.ndarray:
        return np.stack([rows[f"{stem}_{i}"] for i in range(count)], axis=1)

    return Found(
        means=np.stack([rows["x"], rows["y"], rows["z"]], axis=1),
        quats=columns("rot", 4),
        scales=np.exp(columns("scale", 3)),
        opacities=1 / (1 + np.exp(-rows["opacity"])),
        colours=0.5 + SH_DEGREE_0 * columns("f_dc", 3),
        sh_rest=columns("f_rest", 3 * bands).reshape(COUNT, 3, bands).swapaxes(1, 2)
        if bands
        else np.zeros((COUNT, 0, 3)),
    )


def by_the_description_of_splat(path: Path) -> Found:
    """Read antimatter15's .splat: 32 bytes a Gaussian, three floats, three floats, four bytes, four bytes."""
    rows = np.array(list(struct.iter_unpack("<6f8B", path.read_bytes())))
    return Found(
        means=rows[:, :3],
        quats=(rows[:, 10:] - 128) / 128,
        scales=rows[:, 3:6],
        opacities=rows[:, 9] / 255,
        colours=rows[:, 6:9] / 255,
        sh_rest=np.zeros((COUNT, 0, 3)),
    )


def by_the_description_of_glb(path: Path) -> Found:
    """Read KHR_gaussian_splatting as its document has it, where y points up, and turn it half about z, as a .ply is."""
    content = path.read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON") and size % 4 == 0
    document = json.loads(content[20 : 20 + size])
    (rest, kind), body = struct.unpack_from("<I4s", content, 20 + size), content[28 + size :]
    assert kind == b"BIN\0" and rest == len(body) == document["buffers"][0]["byteLength"]
    assert document["asset"]["version"] == "2.0" and document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    (primitive,) = document["meshes"][document["nodes"][0]["mesh"]]["primitives"]
    settings = primitive["extensions"]["KHR_gaussian_splatting"]
    assert primitive["mode"] == 0 and settings["kernel"] == "ellipse"
    assert settings["colorSpace"] == "srgb_rec709_display"

    def column(name: str) -> np.ndarray:
        accessor = document["accessors"][primitive["attributes"][name]]
        view = document["bufferViews"][accessor["bufferView"]]
        kind = np.dtype({5126: "<f4", 5121: "u1"}[accessor["componentType"]])
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        assert accessor["count"] == COUNT and view["byteOffset"] % 4 == 0
        assert view["byteLength"] == COUNT * width * kind.itemsize
        return np.frombuffer(body, kind, COUNT * width, view["byteOffset"]).reshape(COUNT, width)

    def splats(name: str) -> np.ndarray:
        return column(f"KHR_gaussian_splatting:{name}")

    bounds = document["accessors"][primitive["attributes"]["POSITION"]]
    assert bounds["min"] == column("POSITION").min(axis=0).tolist()
    assert bounds["max"] == column("POSITION").max(axis=0).tolist()
    x, y, z, w = splats("ROTATION").T
    assert np.abs(x**2 + y**2 + z**2 + w**2 - 1).max() < 1e-6
    colours = 0.5 + SH_DEGREE_0 * splats("SH_DEGREE_0_COEF_0")
    points, shown = column("COLOR_0"), colours.clip(0, 1)
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    assert np.abs(points / 255 - np.concatenate((linear, splats("OPACITY")), axis=1)).max() <= 0.5001 / 255
    names = [f"SH_DEGREE_{band}_COEF_{place}" for band in (1, 2, 3) for place in range(2 * band + 1)]
    odd = [(-1) ** (band + place) for band in (1, 2, 3) for place in range(2 * band + 1)]
    found = [
        sign * splats(name)
        for name, sign in zip(names, odd)
        if f"KHR_gaussian_splatting:{name}" in primitive["attributes"]
    ]
    return Found(
        means=column("POSITION") * (-1, -1, 1),
        quats=np.stack((-z, -y, x, w), axis=1),
        scales=splats("SCALE"),
        opacities=splats("OPACITY")[:, 0],
        colours=colours,
        sh_rest=np.stack(found, axis=1) if found else np.zeros((COUNT, 0, 3)),
    )


def independently(path: Path, kind: str) -> Found:
    """Read a file with another library than the one that wrote it."""
    if kind in ("compressed-ply", "spz"):
        return by_gaussforge(path, FORMATS[kind].ending[1:])
    if kind == "splat":
        return by_the_description_of_splat(path)
    if kind == "glb":
        return by_the_description_of_glb(path)
    gsply = pytest.importorskip("gsply")
    if kind == "sog":
        pytest.importorskip("zstandard")
        return by_gsply(gsply.sogread(path))
    return by_gsply(gsply.plyread(path))


@dataclass
class Tolerance:
    """The most by which a format may round: absolute, scales relative."""

    means: float
    quats: float
    scales: float
    opacities: float
    colours: float
    sh_rest: float


TOLERANCES = {
    "ply": Tolerance(0, 1e-6, 1e-6, 1e-6, 1e-6, 0),
    "compressed-ply": Tolerance(5e-3, 3e-3, 0.02, 0.003, 0.01, 0.02),
    "splat": Tolerance(0, 0.02, 1e-6, 0.005, 0.005, 0),
    "spz": Tolerance(1e-6, 5e-3, 0.035, 0.003, 0.005, 0.005),
    "glb": Tolerance(0, 1e-6, 1e-6, 1e-6, 1e-6, 0),
    "sog": Tolerance(5e-4, 0.02, 0.05, 0.006, 0.02, 0.05),
}


@pytest.mark.parametrize(
    ("kind", "degree"),
    [(kind, degree) for kind, form in FORMATS.items() for degree in range(min(form.highest_degree, 3) + 1)],
)
def test_another_reader_finds_what_we_wrote(kind: str, degree: int, tmp_path: Path) -> None:
    if FORMATS[kind].library is not None:
        pytest.importorskip(str(FORMATS[kind].library))
    gaussians = some_gaussians(degree)
    path = tmp_path / f"splat{FORMATS[kind].ending}"
    path.write_bytes(FORMATS[kind].encode(gaussians))
    found, allowed = independently(path, kind), TOLERANCES[kind]
    # a format may order the Gaussians as it likes
    place = np.asarray(KDTree(found.means).query(gaussians.means.numpy())[1])
    assert len(found.means) == COUNT and len(set(place)) == COUNT
    normal = gaussians.quats / gaussians.quats.norm(dim=-1, keepdim=True)
    theirs = found.quats[place] / np.linalg.norm(found.quats[place], axis=-1, keepdims=True)
    assert np.abs(found.means[place] - gaussians.means.numpy()).max() <= allowed.means
    assert (1 - np.abs((theirs * normal.numpy()).sum(-1))).max() <= allowed.quats
    assert np.abs(found.scales[place] / gaussians.log_scales.exp().numpy() - 1).max() <= allowed.scales
    assert np.abs(found.opacities[place] - gaussians.logit_opacities.sigmoid().numpy()).max() <= allowed.opacities
    colours = (0.5 + SH_DEGREE_0 * gaussians.sh_dc).numpy()
    if kind == "splat":
        colours = colours.clip(0, 1)
    assert np.abs(found.colours[place] - colours).max() <= allowed.colours
    assert found.sh_rest.shape == (COUNT, (degree + 1) ** 2 - 1, 3)
    if degree > 0:
        assert np.abs(found.sh_rest[place] - gaussians.sh_rest.numpy()).max() <= allowed.sh_rest


@pytest.mark.parametrize("kind", FORMATS)
def test_we_read_what_we_wrote(kind: str, tmp_path: Path) -> None:
    if FORMATS[kind].library is not None:
        pytest.importorskip(str(FORMATS[kind].library))
    gaussians = with_degree(some_gaussians(), FORMATS[kind].highest_degree)
    path = tmp_path / f"splat{FORMATS[kind].ending}"
    path.write_bytes(FORMATS[kind].encode(gaussians))
    back, allowed = read_splat(path).gaussians, TOLERANCES[kind]
    place = torch.from_numpy(KDTree(back.means.numpy()).query(gaussians.means.numpy())[1])
    assert back.sh_degree == gaussians.sh_degree
    assert float((back.means[place] - gaussians.means).abs().max()) <= allowed.means
    assert float((back.log_scales[place] - gaussians.log_scales).abs().max()) <= allowed.scales + 1e-6


def test_the_ply_is_inrias_byte_for_byte() -> None:
    gaussians = some_gaussians(degree=1)
    content = FORMATS["ply"].encode(gaussians)
    names = [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9)),
        "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {COUNT}\n"
    header += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    assert content.startswith(header.encode())
    rows = np.frombuffer(content[len(header) :], "<f4").reshape(COUNT, len(names))
    first = {
        "means": rows[0, :3],
        "normals": rows[0, 3:6],
        "red above degree 0": rows[0, 9:12],
        "blue above degree 0": rows[0, 15:18],
        "opacity": rows[0, 18],
    }
    expected = {
        "means": gaussians.means[0],
        "normals": torch.zeros(3),
        "red above degree 0": gaussians.sh_rest[0, :, 0],
        "blue above degree 0": gaussians.sh_rest[0, :, 2],
        "opacity": gaussians.logit_opacities[0],
    }
    for name, values in first.items():
        assert np.array_equal(values, expected[name].numpy()), name


@pytest.mark.parametrize("kind", ["ply", "glb"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_plain_floats_come_back_as_they_were(kind: str, degree: int, tmp_path: Path) -> None:
    """A .glb has scales and opacities where a .ply has their logarithms and logits; signs of rotations mean nothing."""
    gaussians = some_gaussians(degree)
    path = tmp_path / f"splat.{kind}"
    path.write_bytes(FORMATS[kind].encode(gaussians))
    back = read_splat(path).gaussians
    for name in ("means", "sh_dc", "sh_rest"):
        assert torch.equal(getattr(back, name), getattr(gaussians, name)), name
    assert torch.allclose(back.log_scales, gaussians.log_scales, rtol=0, atol=1e-6)
    assert torch.allclose(back.logit_opacities, gaussians.logit_opacities, rtol=1e-5, atol=1e-6)
    turns = (back.quats * torch.nn.functional.normalize(gaussians.quats, dim=-1)).sum(dim=-1)
    assert torch.allclose(turns.abs(), torch.ones(COUNT), rtol=0, atol=1e-6)


@pytest.mark.parametrize("reach", [1e-3, 50.0, 1e5])
def test_a_spz_holds_captures_of_any_extent(reach: float, tmp_path: Path) -> None:
    pytest.importorskip("gsply")
    gaussians = some_gaussians(degree=0, reach=reach)
    path = tmp_path / "splat.spz"
    path.write_bytes(FORMATS["spz"].encode(gaussians))
    step = max(8 * reach / 2**23, 2**-25)
    assert float((read_splat(path).gaussians.means - gaussians.means).abs().max()) <= step


@pytest.mark.parametrize("kind", ["compressed-ply", "splat", "spz", "sog"])
def test_a_missing_library_is_one_sentence_with_the_name_of_the_extra(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, str(FORMATS[kind].library), None)
    with pytest.raises(ValueError, match=r'not installed: pip install "distilled-splat\[export\]"\.$'):
        FORMATS[kind].encode(some_gaussians(degree=0))


def test_degrees_are_left_out_from_the_top() -> None:
    gaussians = some_gaussians(degree=3)
    for degree in range(4):
        cut = with_degree(gaussians, degree)
        assert cut.sh_degree == degree
        assert torch.equal(cut.sh_rest, gaussians.sh_rest[:, : (degree + 1) ** 2 - 1])
    assert with_degree(replace(gaussians, sh_rest=gaussians.sh_rest[:, :3]), 3).sh_degree == 1
