"""Independent readers of splats, and how what they find is compared with what we do."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from plyfile import PlyData

from distilled_splat.splat.gaussians import Gaussians


def agree(ours: Gaussians, theirs: Any, tolerance: float = 1e-5) -> None:
    """Compare with another reader's means, quaternions, log scales, logits and coefficients, opacities as they show."""
    means, quats, log_scales, logits, sh_dc, sh_rest = theirs
    turned = torch.nn.functional.normalize(ours.quats, dim=-1).numpy()
    lengths = np.linalg.norm(quats, axis=-1, keepdims=True)
    shown = 1 / (1 + np.exp(-np.asarray(logits, np.float64).reshape(-1)))
    np.testing.assert_allclose(ours.means.numpy(), means, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(np.abs((turned * (quats / lengths)).sum(-1)), 1, atol=tolerance)
    np.testing.assert_allclose(ours.log_scales.numpy(), log_scales, atol=tolerance)
    np.testing.assert_allclose(ours.logit_opacities.sigmoid().numpy(), shown, atol=tolerance)
    np.testing.assert_allclose(ours.sh_dc.numpy(), sh_dc, atol=tolerance)
    rest = np.zeros((len(means), 0, 3)) if sh_rest is None else sh_rest
    np.testing.assert_allclose(ours.sh_rest.numpy(), rest, atol=tolerance)


def by_gsply(data: Any) -> tuple[Any, ...]:
    return data.means, data.quats, data.scales, data.opacities, data.sh0, data.shN


def by_gaussforge(content: bytes, ending: str) -> tuple[Any, ...]:
    gaussforge = pytest.importorskip("gaussforge")
    rows = PlyData.read(io.BytesIO(gaussforge.GaussForge().convert(content, ending, "ply")["data"]))["vertex"]
    bands = sum(item.name.startswith("f_rest_") for item in rows.properties) // 3

    def columns(stem: str, count: int) -> np.ndarray:
        return np.stack([rows[f"{stem}_{i}"] for i in range(count)], axis=1)

    rest = columns("f_rest", 3 * bands).reshape(-1, 3, bands).swapaxes(1, 2) if bands else None
    means = np.stack([rows[axis] for axis in "xyz"], axis=1)
    return means, columns("rot", 4), columns("scale", 3), rows["opacity"], columns("f_dc", 3), rest
