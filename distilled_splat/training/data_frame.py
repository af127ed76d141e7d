"""How the world that nerfstudio parses data into lies to the capture's own and to that of transforms.json."""

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
"""Under this name a dataset's metadata hold the `DataFrame`."""
OLDEST_APPLIED = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]
"""What nerfstudio takes to be applied to captures of COLMAP that do not note it."""


def data_frame(scene: DataparserOutputs, parser: Any, data: Path) -> DataFrame:
    """Return how the world of parsed data lies to others.

    Args:
        scene: what was parsed.
        parser: config of the dataparser.
        data: the folder of the data, or its .json.
    """
    capture = scene.dataparser_transform[:3].cpu(), float(scene.dataparser_scale)
    if not isinstance(parser, NerfstudioDataParserConfig):
        return DataFrame(capture, capture)
    return DataFrame(capture, without(capture, *applied_in(data)))


def without(capture: Move, applied: Tensor, scale: float) -> Move:
    """Take what was applied to the recorded poses, before they were written, out of the move from there.

    Args:
        capture: the move from the recorded poses.
        applied: transform that was applied to them, [3, 4].
        scale: factor likewise.
    """
    whole = torch.cat((applied.double(), torch.tensor([[0, 0, 0, 1.0]], dtype=torch.float64)))
    if torch.equal(whole, torch.eye(4, dtype=torch.float64)) and scale == 1:
        return capture
    return (capture[0].double() @ torch.linalg.inv(whole)).to(capture[0]), capture[1] / scale


def applied_in(data: Path) -> tuple[Tensor, float]:
    """Return the transform [3, 4] and the scale that a transforms.json says were applied to the recorded poses.

    The identity and 1 where it says nothing that can be undone; its parser has refused what is no transforms.json.
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
