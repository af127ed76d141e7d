"""Write splats as a .glb with glTF's extension KHR_gaussian_splatting, which others show as a cloud of points."""

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
    """Return a .glb of one mesh in glTF's axes: y points up, so it is turned half about z; see `read_glb`.

    Args:
        gaussians: with the axes of a .ply, and harmonics of degree 3 at most.
    """
    columns = attributes_of(half_turned(gaussians.detach().to("cpu")))
    parts = [values.tobytes() for values in columns.values()]
    begins = np.cumsum([0, *map(len, parts)]).tolist()  # a row has 4, 12 or 16 bytes: all begin where glTF wants it
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
    """Return the description of the one primitive, whose attributes are the accessors in their order."""
    attributes = {name: place for place, name in enumerate(columns)}
    return {"mode": POINTS, "attributes": attributes, "extensions": {EXTENSION: SETTINGS}}


def attributes_of(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Return the columns under the extension's names, [N, 1 | 3 | 4].

    Scales are lengths, opacities 0 to 1, quaternions x, y, z, w and of length 1.
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
    """Return colours and opacities for viewers that know points only, [N, 4], uint8: glTF has linear ones there."""
    shades = (0.5 + SH_DEGREE_0 * gaussians.sh_dc).clamp(0, 1)
    linear = torch.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    rgba = torch.cat((linear, gaussians.logit_opacities.sigmoid()[:, None]), dim=1)
    return (255 * rgba).round().byte().numpy()


def accessor_of(values: np.ndarray) -> dict[str, Any]:
    """Return the description of a column; bytes stand for 0 to 1."""
    count, width = values.shape
    described = {"componentType": COMPONENTS[values.dtype.kind], "count": count, "type": TYPES[width]}
    return described | ({"normalized": True} if values.dtype.kind == "u" else {})


def bounds_of(positions: np.ndarray) -> dict[str, list[float]]:
    """Return the least and the greatest coordinates, which glTF wants of positions."""
    return {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}


def container(document: dict[str, Any], body: bytes) -> bytes:
    """Return a .glb of a JSON and a binary part, each filled up to four bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text, body = text + b" " * (-len(text) % 4), body + bytes(-len(body) % 4)
    content = CHUNK.pack(len(text), b"JSON") + text + CHUNK.pack(len(body), b"BIN\0") + body
    return HEADER.pack(MAGIC, 2, HEADER.size + len(content)) + content
