"""Write splats as a .glb with glTF's extension KHR_gaussian_splatting. Other viewers show a point cloud."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from distilled_splat.splat.frames import half_turned
from distilled_splat.splat.gaussians import SH_DEGREE_0, Gaussians
from distilled_splat.splat.gltf import CHUNK, EXTENSION, HEADER, MAGIC

POINTS, ARRAY_BUFFER = 0, 34962
COMPONENTS = {"f": 5126, "u": 5121}
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
SETTINGS = {
    "kernel": "ellipse",
    "colorSpace": "srgb_rec709_display",
    "projection": "perspective",
    "sortingMethod": "cameraDistance",
}


def encode_glb(gaussians: Gaussians) -> bytes:
    """Return a .glb with one mesh in glTF's axes (y up), rotated by half a turn about z; see `read_glb`.

    Args:
        gaussians: Gaussians with the axes of a .ply, and harmonics of at most degree 3.
    """
    columns = attributes_of(half_turned(gaussians.detach().to("cpu")))
    parts = [values.tobytes() for values in columns.values()]
    begins = np.cumsum([0, *map(len, parts)]).tolist()  # rows of 4, 12 or 16 bytes keep glTF's alignment
    document = {
        "asset": {"version": "2.0", "generator": "distilled_splat"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive_of(columns)]}],
        "accessors": [{"bufferView": place, **accessor_of(values)} for place, values in enumerate(columns.values())],
        "bufferViews": [
            {"buffer": 0, "byteOffset": begin, "byteLength": len(part), "target": ARRAY_BUFFER}
            for begin, part in zip(begins, parts)
        ],
        "buffers": [{"byteLength": begins[-1]}],
    }
    document["accessors"][0] |= bounds_of(columns["POSITION"])
    return container(document, b"".join(parts))


def primitive_of(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the description of the only primitive. Its attributes are the accessors in their order."""
    attributes = {name: place for place, name in enumerate(columns)}
    return {"mode": POINTS, "attributes": attributes, "extensions": {EXTENSION: SETTINGS}}


def attributes_of(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Return the columns by the extension's names, [N, 1 | 3 | 4].

    Scales are lengths, opacities are in [0, 1], quaternions are (x, y, z, w) of length 1.
    """
    names = [
        f"SH_DEGREE_{band}_COEF_{place}" for band in range(gaussians.sh_degree + 1) for place in range(2 * band + 1)
    ]
    columns = {
        "ROTATION": normalize(gaussians.quats, dim=-1).roll(-1, dims=-1),
        "SCALE": gaussians.log_scales.exp(),
        "OPACITY": gaussians.logit_opacities.sigmoid()[:, None],
        **dict(zip(names, gaussians.sh.unbind(1))),
    }
    floats = {f"{EXTENSION}:{name}": values.float().numpy() for name, values in columns.items()}
    return {"POSITION": gaussians.means.float().numpy(), "COLOR_0": point_colours(gaussians), **floats}


def point_colours(gaussians: Gaussians) -> np.ndarray:
    """Return linear colours and opacities for viewers that show only points, [N, 4], uint8."""
    shades = (0.5 + SH_DEGREE_0 * gaussians.sh_dc).clamp(0, 1)
    linear = torch.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    rgba = torch.cat((linear, gaussians.logit_opacities.sigmoid()[:, None]), dim=1)
    return (255 * rgba).round().byte().numpy()


def accessor_of(values: np.ndarray) -> dict[str, Any]:
    """Return the description of a column; bytes are normalised to [0, 1]."""
    count, width = values.shape
    described = {"componentType": COMPONENTS[values.dtype.kind], "count": count, "type": TYPES[width]}
    return described | ({"normalized": True} if values.dtype.kind == "u" else {})


def bounds_of(positions: np.ndarray) -> dict[str, list[float]]:
    """Return the minima and maxima of the coordinates, which glTF requires for positions."""
    return {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}


def container(document: dict[str, Any], body: bytes) -> bytes:
    """Return a .glb with a JSON and a binary part, each padded to a multiple of four bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text, body = text + b" " * (-len(text) % 4), body + bytes(-len(body) % 4)
    content = CHUNK.pack(len(text), b"JSON") + text + CHUNK.pack(len(body), b"BIN\0") + body
    return HEADER.pack(MAGIC, 2, HEADER.size + len(content)) + content
