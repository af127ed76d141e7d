"""Stores views in a file beside their capture, so that resumed work reads them instead of inventing them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import torch

from distilled_splat.ops.views import View
from distilled_splat.runs.files import read_text, write_json
from distilled_splat.shrink.viewpoints import Views

VIEWS_NAME = "views.json"


def write_views(path: Path, views: Views) -> None:
    """Write views with every number at full precision."""
    content = {
        "words": views.words, "up": views.up.tolist(),
        "train": [plain(view) for view in views.train], "test": [plain(view) for view in views.test],
    }  # fmt: skip
    write_json(path, content)


def read_views(path: Path, device: torch.device) -> Optional[Views]:
    """Read stored views; None if there are none, or the file is damaged."""
    try:
        content = json.loads(read_text(path))
        train, test = ([view_from(found, device) for found in content[name]] for name in ("train", "test"))
        up = torch.tensor(content["up"], dtype=torch.float32).reshape(3)
        words = str(content["words"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
        return None
    return Views(train, test, up, words) if train and test else None


def plain(view: View) -> dict[str, Any]:
    """Return a view as JSON's types."""
    return {"viewmat": view.viewmat.tolist(), "K": view.K.tolist(), "width": view.width, "height": view.height}


def view_from(content: dict[str, Any], device: torch.device) -> View:
    """Return the view from the result of `plain`.

    Raises:
        ValueError, KeyError, TypeError, RuntimeError: if the content is not a view.
    """
    viewmat = torch.tensor(content["viewmat"], dtype=torch.float32).reshape(4, 4)
    K = torch.tensor(content["K"], dtype=torch.float32).reshape(3, 3)
    width, height = int(content["width"]), int(content["height"])
    if not bool(viewmat.isfinite().all() and K.isfinite().all()) or min(width, height) < 1:
        raise ValueError("not a view")
    return View(viewmat.to(device), K.to(device), width, height)
