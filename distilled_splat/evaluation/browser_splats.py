"""Splats inside an HTML page: the data that the page holds, and a page that shows splats and nothing else."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

from distilled_splat.evaluation.templates import template
from distilled_splat.ops.views import View
from distilled_splat.splat.formats import FORMATS, with_degree
from distilled_splat.splat.gaussians import Gaussians

FORMAT = FORMATS["spz"]


def spz_of(name: str, gaussians: Gaussians, antialiased: bool) -> dict[str, Any]:
    """Return a splat as JSON's types: `name`, `antialiased`, and `spz` in base64.

    Raises:
        ValueError: if the extra `export`, which writes .spz, is missing.
    """
    content = FORMAT.file_of(with_degree(gaussians, FORMAT.highest_degree), antialiased)
    return {"name": name, "antialiased": antialiased, "spz": text_of(content)}


def page_data(
    splats: Sequence[dict[str, Any]],
    cameras: Sequence[dict[str, Any]],
    up: Sequence[float],
    aspect: float,
    background: Sequence[float],
) -> dict[str, Any]:
    """Return what `browser_splats.js.jinja` reads, as JSON's types.

    Args:
        splats: one splat, or two to show side by side; see `spz_of`.
        cameras: the cameras to start at; see `camera_at`.
        up: the up direction, [3].
        aspect: width divided by height of the cameras' pictures. A narrower window gets a larger `fov`.
        background: the background colour, in 0 to 1, [3].
    """
    viewer = resources.files("distilled_splat").joinpath("evaluation/webview/viewer.js.gz").read_bytes()
    return {
        "viewer": text_of(viewer),
        "splats": list(splats),
        "cameras": list(cameras),
        "up": list(up),
        "aspect": aspect,
        "background": list(background),
    }


def camera_at(view: View, distance: float, units: float = 1.0) -> dict[str, Any]:
    """Return a camera in three.js's form: `eye` and `target` [3], and the vertical field of view `fov` in degrees.

    Args:
        view: the camera.
        distance: from the camera to the target, around which it turns.
        units: the page's units per unit of the view.
    """
    viewmat = view.viewmat.detach().cpu().double()
    eye, look = -viewmat[:3, :3].T @ viewmat[:3, 3], viewmat[2, :3]
    fov = math.degrees(2 * math.atan(view.height / (2 * float(view.K[1, 1]))))
    return {"eye": (units * eye).tolist(), "target": (units * (eye + distance * look)).tolist(), "fov": fov}


def splat_page(title: str, data: dict[str, Any]) -> str:
    """Return a page, as HTML, that shows one splat, or two side by side, in the whole window. It fetches nothing.

    Args:
        title: the page's title.
        data: see `page_data`.
    """
    return template("splat_page.html.jinja").render(title=title, data=data)


def text_of(content: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(content).decode()
