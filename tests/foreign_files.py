"""Write splats in the formats of other programs, byte by byte as their documents say and without any of our code."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distilled_splat.splat.gaussians import Gaussians

SH_C0 = 0.28209479177387814


def zstd_frame(content: bytes) -> bytes:
    """Return a zstd frame of one block that is not compressed, its size in the header."""
    assert len(content) < 1 << 17
    block = (len(content) << 3 | 1).to_bytes(3, "little")  # the last block, raw
    return struct.pack("<IBI", 0xFD2FB528, 0b10100000, len(content)) + block + content


def spz_sections(count: int, degree: int, version: int, seed: int = 0) -> list[bytes]:
    """Return random sections of a .spz; any bytes are a valid splat but for rotations of version 2, which are mild."""
    random = np.random.default_rng(seed)
    rotations = random.integers(90, 166, (count, 3)) if version <= 2 else random.integers(0, 2**32, count)
    # alphas of 0 and of 1 are read differently, as infinite or as large logits
    return [
        random.integers(0, 256, (count, 9), np.uint8).tobytes(),
        random.integers(1, 255, count, np.uint8).tobytes(),
        random.integers(0, 256, (count, 3), np.uint8).tobytes(),
        random.integers(0, 256, (count, 3), np.uint8).tobytes(),
        rotations.astype(np.uint8 if version <= 2 else "<u4").tobytes(),
        random.integers(0, 256, (count, 3 * ((degree + 1) ** 2 - 1)), np.uint8).tobytes(),
    ]


def spz(count: int = 40, degree: int = 3, version: int = 3, flags: int = 0, zipped: bool = True) -> bytes:
    """Return a .spz of version 1 to 4."""
    sections = spz_sections(count, degree, version)
    start = struct.pack("<4sIIBBB", b"NGSP", version, count, degree, 12, flags)
    if version < 4:
        content = start + b"\0" + b"".join(sections)
        return gzip.compress(content) if zipped else content
    sections = [section for section in sections if section]
    frames = [zstd_frame(section) for section in sections]
    table = b"".join(struct.pack("<QQ", len(frame), len(section)) for frame, section in zip(frames, sections))
    return start + struct.pack("<BI12x", len(frames), 32) + table + b"".join(frames)


def spz_of(gaussians: Gaussians, fraction: int = 16) -> bytes:
    """Return Gaussians as a .spz of version 2, as its document says and rounded as its precision asks for."""
    count = len(gaussians)
    fixed = torch.round(gaussians.means * 2**fraction).to(torch.int64).numpy()
    quats = torch.nn.functional.normalize(gaussians.quats, dim=-1)
    quats = quats * torch.where(quats[:, :1] < 0, -1.0, 1.0)
    parts = (
        np.stack([fixed & 255, fixed >> 8 & 255, fixed >> 16 & 255], axis=-1),
        gaussians.logit_opacities.sigmoid() * 255,
        gaussians.sh_dc * (0.15 * 255) + 127.5,
        (gaussians.log_scales + 10) * 16,
        quats[:, 1:] * 127.5 + 127.5,
        gaussians.sh_rest * 128 + 128,
    )
    content = struct.pack("<4sIIBBBB", b"NGSP", 2, count, gaussians.sh_degree, fraction, 0, 0)
    content += b"".join(np.asarray(part).round().clip(0, 255).astype(np.uint8).tobytes() for part in parts)
    return gzip.compress(content)


def ksplat(compression: int = 1, degree: int = 2) -> tuple[bytes, dict[str, Any]]:
    """Return a .ksplat of one section, whose full buckets hold four Gaussians, and the numbers in it."""
    sizes = (4, 4, 3, 2)
    random, count = np.random.default_rng(1), sum(sizes)
    full, others = sum(size == 4 for size in sizes), [size for size in sizes if size != 4]
    middles = random.normal(size=(len(sizes), 3)).astype("<f4")
    bucket = np.repeat(np.arange(len(sizes)), sizes)
    level = random.integers(0, 65536, (count, 3))
    step = 5.0 / 2 / 32767
    means = (level - 32767) * step + middles[bucket]
    number = "<f4" if compression == 0 else "<f2"
    scales = random.uniform(0.01, 1, (count, 3)).astype(number)
    quats = random.normal(size=(count, 4)).astype(number)
    colours = random.integers(1, 255, (count, 4), np.uint8)
    rest = random.normal(size=(count, (degree + 1) ** 2 - 1, 3))
    stored = np.concatenate(
        [rest[:, a:b].transpose(0, 2, 1).reshape(count, -1) for a, b in ((0, 3), (3, 8)) if b <= rest.shape[1]]
        or [np.zeros((count, 0))],
        axis=1,
    )
    stored = random.integers(0, 256, stored.shape, np.uint8) if compression == 2 else stored.astype(number)
    centres = means.astype("<f4") if compression == 0 else level.astype("<u2")
    rows = b"".join(part[i].tobytes() for i in range(count) for part in (centres, scales, quats, colours, stored))
    buckets = b"" if compression == 0 else struct.pack(f"<{len(others)}I", *others) + middles.tobytes()
    header = struct.pack("<BBxxIIIIHxx3f2f", 0, 1, 1, 1, count, count, compression, 0, 0, 0, -2, 2).ljust(4096, b"\0")
    with_buckets = compression > 0
    section = struct.pack(
        "<IIIIfHxxIIIIH", count, count, 4, len(sizes) * with_buckets, 5.0, 12, 32767, 0,
        full, len(others) * with_buckets, degree,
    ).ljust(1024, b"\0")  # fmt: skip
    numbers = {"means": means, "scales": scales, "quats": quats, "colours": colours, "stored": stored}
    return header + section + buckets + rows, numbers


def webp(pixels: np.ndarray) -> bytes:
    """Return a picture of [H, W, 4] bytes without loss, alpha 0 included."""
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8), "RGBA").save(file, "WEBP", lossless=True, exact=True)
    return file.getvalue()


def sog_members(count: int = 50, version: int = 2, bands: int = 2, seed: int = 2) -> dict[str, bytes]:
    """Return the files of a SOG with random content, by their names."""
    random = np.random.default_rng(seed)
    side = 8
    coefficients = (0, 3, 8, 15)[bands]

    def pixels(height: int = side, width: int = side) -> np.ndarray:
        return random.integers(0, 256, (height, width, 4), np.uint8)

    pictures = {name: pixels() for name in ("means_l", "means_u", "quats", "scales", "sh0", "shN_labels")}
    pictures["quats"][..., 3] = random.integers(252, 256, (side, side))
    pictures["quats"][..., :3] = random.integers(60, 196, (side, side, 3))
    pictures["sh0"][..., 3] = random.integers(1, 255, (side, side))
    pictures["shN_labels"][..., 0] = random.integers(0, 128, (side, side))
    pictures["shN_labels"][..., 1] = 0
    pictures["shN_centroids"] = pixels(2, 64 * coefficients)
    bounds: dict[str, Any] = {"mins": [-1.0, -2.0, -0.5], "maxs": [1.0, 2.5, 3.0]}
    meta: dict[str, Any] = {
        "means": {**bounds, "files": ["means_l.webp", "means_u.webp"]},
        "quats": {"files": ["quats.webp"]},
        "scales": {"files": ["scales.webp"]},
        "sh0": {"files": ["sh0.webp"]},
        "shN": {"files": ["shN_centroids.webp", "shN_labels.webp"]},
    }
    if version == 2:
        meta |= {"version": 2, "count": count}
        for name in ("scales", "sh0", "shN"):
            meta[name]["codebook"] = np.sort(random.normal(size=256)).tolist()
        meta["shN"] |= {"bands": bands, "count": 128}
    else:
        meta["means"]["shape"] = [count, 3]
        meta["scales"] |= bounds
        meta["sh0"] |= {"mins": [-1.0, -2.0, -0.5, -4.0], "maxs": [1.0, 2.5, 3.0, 6.0]}
        meta["shN"] |= {"mins": -0.7, "maxs": 0.9}
    if bands == 0:
        del meta["shN"]
    named = {f"{name}.webp": webp(picture) for name, picture in pictures.items() if bands or "shN" not in name}
    return {"meta.json": json.dumps(meta).encode(), **named}


def bundle(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a .zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def write_folder(folder: Path, members: dict[str, bytes]) -> Path:
    """Write the members of a SOG beside each other."""
    folder.mkdir()
    for name, content in members.items():
        (folder / name).write_bytes(content)
    return folder


def checkpoint(gaussians: Gaussians) -> dict[str, Any]:
    """Return the content of a .pt of gsplat's trainer."""
    tensors = {
        "means": gaussians.means,
        "scales": gaussians.log_scales,
        "quats": gaussians.quats,
        "opacities": gaussians.logit_opacities,
        "sh0": gaussians.sh_dc[:, None],
        "shN": gaussians.sh_rest,
    }
    return {"step": 6999, "splats": {name: torch.nn.Parameter(value) for name, value in tensors.items()}}


def saved(content: Any) -> bytes:
    """Return what torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def glb_parts(gaussians: Gaussians, node: dict[str, Any] | None = None) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the binary part of a .glb, floats throughout."""
    prefix = "KHR_gaussian_splatting"
    columns = {
        "POSITION": gaussians.means,
        f"{prefix}:ROTATION": gaussians.quats[:, [1, 2, 3, 0]],
        f"{prefix}:SCALE": gaussians.log_scales.exp(),
        f"{prefix}:OPACITY": gaussians.logit_opacities.sigmoid()[:, None],
        f"{prefix}:SH_DEGREE_0_COEF_0": gaussians.sh_dc,
    }
    place = 0
    for band in range(1, gaussians.sh_degree + 1):
        for order in range(2 * band + 1):
            columns[f"{prefix}:SH_DEGREE_{band}_COEF_{order}"] = gaussians.sh_rest[:, place]
            place += 1
    document: dict[str, Any] = {"asset": {"version": "2.0"}, "extensionsUsed": [prefix]}
    views, accessors, attributes, body = [], [], {}, b""
    for place, (name, column) in enumerate(columns.items()):
        content = column.numpy().astype("<f4").tobytes()
        kind = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[column.shape[1]]
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(content)})
        accessors.append({"bufferView": place, "componentType": 5126, "type": kind, "count": len(column)})
        attributes[name] = place
        body += content
    settings = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    primitive = {"mode": 0, "attributes": attributes, "extensions": {prefix: settings}}
    document |= {
        "buffers": [{"byteLength": len(body)}],
        "bufferViews": views,
        "accessors": accessors,
        "meshes": [{"primitives": [primitive]}],
        "nodes": [{"mesh": 0, **(node or {})}],
    }
    return document, body


def glb(document: Any, body: bytes) -> bytes:
    """Return a .glb of a JSON and a binary part."""
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body += bytes(-len(body) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
