"""The 3D view of a report: the student, its first teacher, the first cameras, and a viewer."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from distilled_splat.evaluation.browser_splats import camera_at, page_data, spz_of
from distilled_splat.evaluation.held_out import FinishedRun
from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.teachers.reading import read_teacher

MOST_MEGABYTES = 8.0
"""Largest size of a report's splats as .spz files. As text in the page they take a third more."""


def splats_of(run: FinishedRun, most_megabytes: float = MOST_MEGABYTES) -> Optional[dict[str, Any]]:
    """Return a run's splats for the report's page, as JSON's types.

    Teacher and student are included if both together are small enough, otherwise the student alone. The result is None
    if the student is too large, there are no held-out photos, or the extra `export`, which writes .spz, is missing.

    Args:
        run: the run.
        most_megabytes: largest size of the .spz files together, in 10^6 bytes.

    Returns:
        see `browser_splats.page_data`; or None.
    """
    views = [held.view for held in run.held_out()] if most_megabytes > 0 else []
    if not views:
        return None
    antialiased = run.model.config.rasterize_mode == "antialiased"
    found = [("student", run.model.gaussians().detach(), antialiased)]
    if run.teachers:
        teacher = read_teacher(run.teachers[0])
        if not teacher.is_export:  # the frame of an exported file is not known here
            found.append((f"{teacher.variant} teacher", teacher.gaussians, teacher.antialiased))
    splats, left = [], most_megabytes * 1e6
    for name, gaussians, mode in found:
        try:
            splat = spz_of(name, gaussians, mode)
        except ValueError:  # the library is missing
            return None
        left -= 3 / 4 * len(splat["spz"])  # base64 holds three bytes in four letters
        if left >= 0:
            splats.append(splat)
    if not splats or splats[0]["name"] != "student":
        return None
    ups = torch.stack([-view.viewmat[1, :3].cpu() for view in views]).mean(dim=0)
    return page_data(
        splats,
        [camera_of(view, found[0][1]) for view in views],
        ups.tolist(),
        views[0].width / views[0].height,
        run.model._get_background_color().tolist(),
    )


def camera_of(view: View, gaussians: Gaussians) -> dict[str, Any]:
    """Return a camera for the page; see `camera_at`.

    The target is at the median distance of the Gaussians in front of the camera, so that the camera turns around them.
    """
    depths = before(view, gaussians)
    return camera_at(view, float(depths.median()) if len(depths) else 1.0)


def before(view: View, gaussians: Gaussians) -> Tensor:
    """Return the depths of the Gaussians with centres in the middle half of a picture, [M]."""
    x, y, depth = ((gaussians.means @ view.viewmat[:3, :3].T + view.viewmat[:3, 3]) @ view.K.T).unbind(dim=1)
    inside = (depth > 0) & ((x / depth - view.width / 2).abs() < view.width / 4)
    return depth[inside & ((y / depth - view.height / 2).abs() < view.height / 4)]
