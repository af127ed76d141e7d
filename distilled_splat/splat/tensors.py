"""Read tensors from an untrusted checkpoint: plain numbers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distilled_splat.runs.checkpoints import load_tensors
from distilled_splat.splat.splat_file import SplatFile, gaussians_of

REST_COUNTS = (0, 3, 8, 15, 24)
SHAPES = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "sh0": (1, 3)}
"""Shapes of one Gaussian in gsplat's `splats`; scales are logarithms and opacities are logits."""


def plain(value: Tensor, name: str, path: Path) -> Tensor:
    """Return a copy of a tensor as float32.

    Raises:
        ValueError: if the tensor is not plain, or has more numbers than the file (a view may repeat one number).
    """
    fits = value.numel() * value.element_size() <= path.stat().st_size
    if not (value.layout is torch.strided and value.device.type == "cpu" and value.is_floating_point() and fits):
        raise ValueError(f"{path}: {name} is not a plain tensor of numbers in the file.")
    return value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def read_gsplat_checkpoint(path: Path) -> SplatFile:
    """Read a .pt of gsplat's trainer: step, and `splats` with means, quats, scales, opacities, sh0 and shN.

    Raises:
        ValueError: if the file is not such a checkpoint, or its tensors have wrong shapes.
    """
    content: Any = load_tensors(path)
    splats = content.get("splats") if isinstance(content, dict) else None
    if not isinstance(splats, dict):
        raise ValueError(f"{path} is not a checkpoint of gsplat's trainer: it has no entry 'splats'.")
    names = (*SHAPES, "shN")
    missing = [name for name in names if not isinstance(splats.get(name), Tensor)]
    if missing:
        words = "train without --app-opt" if "features" in splats else "give another file"
        raise ValueError(f"{path} has no splat with harmonics: {', '.join(missing)} missing; {words}.")
    found = {name: plain(splats[name], name, path) for name in names}
    count, rest = len(found["means"]) if found["means"].dim() else 0, found["shN"].shape
    for name, shape in SHAPES.items():
        if tuple(found[name].shape) != (count, *shape):
            raise ValueError(f"{path}: {name} has shape {tuple(found[name].shape)}, expected {(count, *shape)}.")
    if len(rest) != 3 or rest[0] != count or rest[1] not in REST_COUNTS or rest[2] != 3:
        raise ValueError(f"{path}: shN has shape {tuple(rest)}, expected ({count}, 0|3|8|15|24, 3).")
    means, quats, scales, opacities, sh0, rest = (found[name].numpy() for name in names)
    return SplatFile(path, gaussians_of(means, quats, scales, opacities, sh0[:, 0], rest), "gsplat-checkpoint")
