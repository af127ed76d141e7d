"""How the frame of nerfstudio's parsed data relates to the capture's own frame and to that of transforms.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from torch import Tensor

from distilled_splat.runs.files import read_text
from distilled_splat.splat.frames import DataFrame, Move

DATA_FRAME = "data_frame"
"""Key of the `DataFrame` in a dataset's metadata."""
OLDEST_APPLIED = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]
"""The transform that nerfstudio assumes for COLMAP captures without an `applied_transform`."""


def data_frame(scene: DataparserOutputs, parser: Any, data: Path) -> DataFrame:
    """Return how the frame of parsed data relates to the others.

    Args:
        scene: the parsed data.
        parser: config of the dataparser.
        data: the folder of the data, or its .json.
    """
    capture = scene.dataparser_transform[:3].cpu(), float(scene.dataparser_scale)
    if not isinstance(parser, NerfstudioDataParserConfig):
        return DataFrame(capture, capture)
    return DataFrame(capture, without(capture, *applied_in(data)))


def without(capture: Move, applied: Tensor, scale: float) -> Move:
    """Remove a transform that was applied to the original poses from the move that starts at those poses.

    Args:
        capture: the move from the original poses.
        applied: transform that was applied to them, [3, 4].
        scale: factor that was applied to them.
    """
    whole = torch.cat((applied.double(), torch.tensor([[0, 0, 0, 1.0]], dtype=torch.float64)))
    if torch.equal(whole, torch.eye(4, dtype=torch.float64)) and scale == 1:
        return capture
    return (capture[0].double() @ torch.linalg.inv(whole)).to(capture[0]), capture[1] / scale


def applied_in(data: Path) -> tuple[Tensor, float]:
    """Return the transform [3, 4] and the scale that were applied to the original poses, from transforms.json.

    The identity and 1 if it has none that can be inverted. The dataparser has already refused anything that is not a
    transforms.json.
    """
    nothing = torch.eye(4)[:3], 1.0
    try:
        meta = json.loads(read_text(data if data.suffix == ".json" else data / "transforms.json"))
        default = OLDEST_APPLIED if (data / "colmap" / "sparse" / "0").exists() else nothing[0]
        applied = torch.as_tensor(meta.get("applied_transform", default), dtype=torch.float32).reshape(3, 4)
        scale = float(meta.get("applied_scale", 1.0))
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError):
        return nothing
    sound = bool(applied.isfinite().all()) and float(torch.linalg.det(applied[:, :3]).abs()) > 1e-9 and scale > 0
    return (applied, scale) if sound else nothing
