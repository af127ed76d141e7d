"""Write Gaussian .ply files as other programs do, byte by byte and without any library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilled_splat.splat.gaussians import Gaussians

TYPES = {"f4": "float", "f8": "double", "u1": "uchar", "i4": "int", "u4": "uint"}


def cloud(count: int = 7, degree: int = 3, seed: int = 0) -> Gaussians:
    """Random Gaussians."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    rest = (degree + 1) ** 2 - 1
    return Gaussians(random(count, 3), random(count, 4), random(count, 3), random(count), random(count, 3),
                     random(count, rest, 3))  # fmt: skip


def columns_of(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Return the properties that Inria's trainer writes, without normals."""
    columns = {axis: gaussians.means[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"f_dc_{i}": gaussians.sh_dc[:, i] for i in range(3)}
    bands = gaussians.sh_rest.shape[1]
    columns |= {f"f_rest_{c * bands + k}": gaussians.sh_rest[:, k, c] for c in range(3) for k in range(bands)}
    columns |= {"opacity": gaussians.logit_opacities}
    columns |= {f"scale_{i}": gaussians.log_scales[:, i] for i in range(3)}
    columns |= {f"rot_{i}": gaussians.quats[:, i] for i in range(4)}
    return {name: value.numpy() for name, value in columns.items()}


def ply_bytes(
    columns: dict[str, Any],
    form: str = "binary_little_endian",
    kind: str = "f4",
    count: int | None = None,
    remarks: bytes = b"",
    newline: bytes = b"\n",
) -> bytes:
    """Return a .ply of one element; `count` is what the header claims, and uint8 columns stay what they are."""
    order = ">" if form == "binary_big_endian" else "<"
    kinds = {name: "u1" if np.asarray(value).dtype == np.uint8 else kind for name, value in columns.items()}
    rows = np.empty(len(next(iter(columns.values()))), [(name, order + kinds[name]) for name in columns])
    for name, value in columns.items():
        rows[name] = value
    lines = [b"ply", f"format {form} 1.0".encode(), *remarks.splitlines()]
    lines += [f"element vertex {len(rows) if count is None else count}".encode()]
    lines += [f"property {TYPES[kinds[name]]} {name}".encode() for name in columns]
    body = rows.tobytes()
    if form == "ascii":
        body = b"".join(" ".join(repr(float(value)) for value in row).encode() + newline for row in rows)
    return newline.join([*lines, b"end_header", b""]) + body


def write_ply(path: Path, gaussians: Gaussians, **options: Any) -> Path:
    """Write Gaussians as a .ply and return its path."""
    path.write_bytes(ply_bytes(columns_of(gaussians), **options))
    return path


def with_y_up(gaussians: Gaussians) -> Gaussians:
    """Turn Gaussians of degree 3 at most half about z, sign by sign: what lies between a .ply's axes and a .glb's."""
    odd = torch.tensor([-1.0, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1])[: gaussians.sh_rest.shape[1]]
    w, x, y, z = gaussians.quats.T
    return replace(
        gaussians,
        means=gaussians.means * torch.tensor([-1.0, -1, 1]),
        quats=torch.stack([-z, -y, x, w], dim=1),
        sh_rest=gaussians.sh_rest * odd[:, None],
    )


def same(one: Gaussians, other: Gaussians, tolerance: float = 0.0) -> bool:
    """Tell whether two splats are equal in every number."""
    names = ("means", "quats", "log_scales", "logit_opacities", "sh_dc", "sh_rest")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a.shape == b.shape and torch.allclose(a, b, atol=tolerance, rtol=0) for a, b in pairs)
