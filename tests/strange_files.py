"""Files of strangers, sound and otherwise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import cloud


class Bomb:
    """Writes a file when it is unpickled by somebody who runs what he reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def packed(folder: Path, form: str, count: int = 300, degree: int = 3) -> Path:
    """Write random Gaussians with gsply, as a compressed .ply or as a .spz."""
    gsply = pytest.importorskip("gsply")
    gaussians = mild(cloud(count, degree))
    arrays = (gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.logit_opacities, gaussians.sh_dc)
    data = [tensor.numpy() for tensor in arrays]
    rest = gaussians.sh_rest.numpy() if degree else None
    if form == "ply":
        gsply.plywrite(str(folder / "splat.ply"), *data, rest, compressed=True)
        return folder / "splat.compressed.ply"
    splat = gsply.GSData.from_arrays(*data, rest, format="ply")
    gsply.write_spz(str(folder / "splat.spz"), splat)
    return folder / "splat.spz"


def parameters(count: int = 5, sh_degree: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "means": torch.randn(count, 3),
        "quats": torch.randn(count, 4),
        "scales": torch.randn(count, 3),
        "opacities": torch.randn(count, 1),
        "features_dc": torch.randn(count, 3),
        "features_rest": torch.randn(count, (sh_degree + 1) ** 2 - 1, 3),
    }


def write_run(folder: Path, content: dict[str, torch.Tensor], prefix: str = "_model.gauss_params.") -> Path:
    checkpoints = folder / "nerfstudio_models"
    checkpoints.mkdir(parents=True)
    state = {prefix + name: value for name, value in content.items()}
    path = checkpoints / "step-000000007.ckpt"
    torch.save({"step": 7, "pipeline": state}, path)
    (folder / "config.yml").write_text("!!python/object/apply:os.system ['exit 1']\n  rasterize_mode: antialiased\n")
    (folder / "dataparser_transforms.json").write_text(json.dumps({"transform": torch.eye(4)[:3].tolist(), "scale": 2}))
    return path


def mild(gaussians: Any) -> Any:
    """Bring a splat into the ranges that compressed formats can hold, quaternions normalised with positive w."""
    quats = torch.nn.functional.normalize(gaussians.quats, dim=-1)
    quats = quats * torch.where(quats[:, :1] < 0, -1.0, 1.0)
    return dataclasses.replace(
        gaussians, quats=quats, log_scales=gaussians.log_scales - 4, sh_rest=gaussians.sh_rest.clamp(-0.9, 0.9)
    )
