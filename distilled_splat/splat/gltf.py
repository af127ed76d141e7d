"""Read splats from a .glb: glTF's extension KHR_gaussian_splatting, with plain accessors for its attributes.

In glTF y points up, and in a .ply down. The splats are rotated by half a turn about z after reading, because
splat-transform rotates them so before writing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distilled_splat.runs.words import type_and_words, words_of
from distilled_splat.splat.frames import LEFT_UP_FRONT, half_turned, moved
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.inflation import budget_of
from distilled_splat.splat.splat_file import SplatFile, gaussians_of, log, logit

EXTENSION = "KHR_gaussian_splatting"
MAGIC = b"glTF"
HEADER = struct.Struct("<4sII")
CHUNK = struct.Struct("<I4s")
LONGEST_JSON = 1 << 22
DEEPEST_NODE = 32
KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
HIGHEST_DEGREE = 3
OTHER_AXES = {"rdf": LEFT_UP_FRONT, "rub": torch.tensor([[-1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]])}
"""Undo the half turn for a file with the axes of a .ply, or with the axes right, up, back; see `SplatFile`."""


def read_glb(path: Path) -> SplatFile:
    """Read the splats of a .glb, transformed by their nodes, with the axes of a .ply.

    Raises:
        ValueError: if the file has no splats, is damaged, or another extension compresses them.
    """
    try:
        document, body = chunks_of(path)
        parts = list(splats_of(document, body, budget_of(path)))
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        words = type_and_words(error)
        raise ValueError(f"{path} is a damaged .glb, or an extension compresses its splats ({words}).") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a .glb ({words_of(error)}): convert it to a plain .ply.") from error
    if not parts:
        raise ValueError(f"{path} is a .glb without Gaussians: no mesh has {EXTENSION}.")
    return SplatFile(path, half_turned(together(parts)), "glb", EXTENSION, other_axes=OTHER_AXES)


def chunks_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the binary part of a .glb, each no longer than the file.

    Raises:
        ValueError: if the file is not a .glb of glTF 2, or is truncated.
    """
    with path.open("rb") as file:
        start = file.read(HEADER.size + CHUNK.size)
        if len(start) < HEADER.size + CHUNK.size or start[:4] != MAGIC:
            raise ValueError("it has no header")
        _, version, length = HEADER.unpack_from(start)
        size, kind = CHUNK.unpack_from(start, HEADER.size)
        if version != 2 or kind != b"JSON":
            raise ValueError("it is not glTF 2")
        if length > path.stat().st_size or size > LONGEST_JSON:
            raise ValueError("it is truncated, or its JSON is too long")
        document = json.loads(file.read(size))
        return document, file.read()[CHUNK.size :]


def splats_of(document: dict[str, Any], body: bytes, budget: int) -> Iterator[Gaussians]:
    """Yield the primitives that are splats, in the frame of the scene, up to a number of bytes.

    Raises:
        ValueError: if the splats would take more than `budget` bytes: many nodes may repeat one mesh, and many
            attributes the same numbers.
    """
    nodes = document.get("nodes", [])
    parents = {child: place for place, node in enumerate(nodes) for child in node.get("children", [])}
    for place, node in enumerate(nodes):
        if "mesh" not in node:
            continue
        for primitive in document["meshes"][node["mesh"]]["primitives"]:
            if EXTENSION in primitive.get("extensions", {}):
                settings = primitive["extensions"][EXTENSION]
                if settings.get("colorSpace", "srgb_rec709_display") != "srgb_rec709_display":
                    raise ValueError(f"its colours are not sRGB but {settings['colorSpace']}")
                budget -= declared_bytes(document, primitive["attributes"])
                if budget < 0:
                    raise ValueError("it repeats its numbers until they are many times the size of the file")
                world = world_of(nodes, parents, place)
                gaussians = primitive_of(document, body, primitive["attributes"])
                # an identity is skipped to avoid rounding
                yield gaussians if torch.equal(world, torch.eye(4)[:3].double()) else moved(gaussians, world, 1.0)


def declared_bytes(document: dict[str, Any], attributes: dict[str, int]) -> int:
    """Return how many bytes a primitive's numbers take as floats, before they are read."""
    accessors = [document["accessors"][index] for index in attributes.values()]
    return sum(4 * max(int(accessor["count"]), 0) * WIDTHS.get(accessor["type"], 1) for accessor in accessors)


def world_of(nodes: list[Any], parents: dict[int, int], place: int) -> Tensor:
    """Return the transform [3, 4] from a node to the scene.

    Raises:
        ValueError: if the node has too many ancestors, or is its own ancestor.
    """
    world = np.eye(4)
    for _ in range(DEEPEST_NODE):
        world = local_of(nodes[place]) @ world
        if place not in parents:
            return torch.from_numpy(world[:3])
        place = parents[place]
    raise ValueError("its nodes are nested too deeply")


def local_of(node: dict[str, Any]) -> np.ndarray:
    """Return a node's transform [4, 4], from a matrix by columns, or from translation, rotation x y z w and scales."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    from nerfstudio.cameras.camera_utils import quaternion_matrix  # which takes seconds to import

    local = np.eye(4)
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    turn = quaternion_matrix(np.array([w, x, y, z], np.float64))[:3, :3]
    local[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64)
    local[:3, 3] = node.get("translation", (0, 0, 0))
    return local


def primitive_of(document: dict[str, Any], body: bytes, attributes: dict[str, int]) -> Gaussians:
    """Read one primitive: scales are lengths, opacities 0 to 1, and quaternions x, y, z, w."""

    def values(name: str) -> np.ndarray:
        return accessor_of(document, body, attributes[name])

    found = [band for band in range(HIGHEST_DEGREE + 1) if f"{EXTENSION}:SH_DEGREE_{band}_COEF_0" in attributes]
    rest = [
        values(f"{EXTENSION}:SH_DEGREE_{band}_COEF_{place}")
        for band in range(1, max(found, default=0) + 1)
        for place in range(2 * band + 1)
    ]
    columns = {
        "means": values("POSITION"),
        "quats": np.roll(values(f"{EXTENSION}:ROTATION"), 1, axis=1),
        "log_scales": log(values(f"{EXTENSION}:SCALE")),
        "logit_opacities": logit(values(f"{EXTENSION}:OPACITY").clip(0, 1))[:, 0],
        "sh_dc": values(f"{EXTENSION}:SH_DEGREE_0_COEF_0"),
    }
    shapes = {name: column.shape[1:] for name, column in columns.items()}
    lengths = {len(column) for column in (*columns.values(), *rest)}
    if len(lengths) != 1 or shapes != {
        "means": (3,), "quats": (4,), "log_scales": (3,), "logit_opacities": (), "sh_dc": (3,),
    } or any(column.shape[1] != 3 for column in rest):  # fmt: skip
        raise ValueError("the attributes of a splat have wrong lengths or shapes")
    return gaussians_of(**columns, sh_rest=np.stack(rest, axis=1) if rest else None)


def accessor_of(document: dict[str, Any], body: bytes, index: int) -> np.ndarray:
    """Read an accessor in the binary part, [N, width].

    Raises:
        ValueError: if the accessor is outside of the binary part or sparse, or its numbers are in another file.
    """
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    if "sparse" in accessor or document["buffers"][view["buffer"]].get("uri") is not None or view["buffer"] != 0:
        raise ValueError("its numbers are sparse, or in another file")
    kind, width, count = np.dtype(KINDS[accessor["componentType"]]), WIDTHS[accessor["type"]], accessor["count"]
    row = kind.itemsize * width
    stride = view.get("byteStride", row)
    begin = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    if min(count - 1, begin, stride - row) < 0 or begin + stride * (count - 1) + row > len(body):
        raise ValueError(f"it declares {count} values, more than it has")
    with np.errstate(invalid="ignore"):  # NaN and infinite numbers are refused later
        numbers = np.ndarray((count, width), kind, body, begin, (stride, kind.itemsize)).astype(np.float64)
    if accessor.get("normalized", False) and kind.kind != "f":
        numbers = np.maximum(numbers / np.iinfo(kind).max, -1)
    return numbers


def together(parts: list[Gaussians]) -> Gaussians:
    """Join splats. Coefficients up to the highest degree are zero where a splat lacks them."""
    bands = max(part.sh_rest.shape[1] for part in parts)
    rests = [torch.nn.functional.pad(part.sh_rest, (0, 0, 0, bands - part.sh_rest.shape[1])) for part in parts]
    padded = [replace(part, sh_rest=rest) for part, rest in zip(parts, rests)]
    return Gaussians(*(torch.cat([getattr(part, field.name) for part in padded]) for field in fields(Gaussians)))
