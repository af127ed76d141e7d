"""What the viewer shows beside a student: its teachers, where student and teachers differ, and its Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Optional

import torch
from torch import Tensor

from distilled_splat.ops.heat import heat
from distilled_splat.ops.importance import blending_weights
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.splat.frames import DataFrame
from distilled_splat.splat.gaussians import SH_DEGREE_0, Gaussians
from distilled_splat.teachers.ensemble import TeacherEnsemble, unique_names
from distilled_splat.teachers.fit import TeacherFrame, in_frame
from distilled_splat.teachers.reading import read_teacher

POINT_RADIUS = 1.2
"""Standard deviation of a Gaussian that is shown as a point, in pixels."""
POINT_LOGIT_OPACITY = 4.0
MISSING_GREY = 0.35


class Outputs(dict):
    """A model's outputs of one view; some are computed on first access.

    `keys()` lists those too, after the others. So nerfstudio's viewer offers all and renders only the chosen one. It
    does so beside a training: it holds the lock that keeps a training step from running at the same time, and if the
    GPU's memory does not suffice, the picture is grey.
    """

    def __init__(
        self, ready: dict[str, Any], later: dict[str, Callable[[], Tensor]], train_lock: Optional[Lock] = None
    ) -> None:
        """Note what to compute.

        Args:
            ready: the outputs that exist.
            later: functions that compute the others.
            train_lock: the lock to hold meanwhile; None: no training runs beside.
        """
        super().__init__(ready)
        self.later = later
        self.train_lock = train_lock
        self.computed: dict[str, Tensor] = {}

    def __missing__(self, name: str) -> Tensor:
        if name not in self.computed:
            with torch.no_grad():
                self.computed[name] = self.later[name]() if self.train_lock is None else self.beside_training(name)
        return self.computed[name]

    def beside_training(self, name: str) -> Tensor:
        """Compute an output while no training step runs."""
        lock, self.train_lock = self.train_lock, None  # what this output is computed from is under the lock, too
        assert lock is not None
        try:
            with lock:
                return self.later[name]()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return torch.full_like(self["rgb"], MISSING_GREY)
        finally:
            self.train_lock = lock

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.later

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> Any:
        """Return all names, those of the ready outputs first."""
        return [*super().keys(), *self.later]


class Gallery:
    """The teachers of a student, during its training and afterwards, and the pictures that need them.

    During training `meet` sets the teachers. Afterwards they are read on first use, from the paths in the run's config.
    A teacher that cannot be read is listed as missing.
    """

    def __init__(self, paths: Sequence[Path], frame: TeacherFrame, data_frame: Optional[DataFrame] = None) -> None:
        """Note where the teachers are.

        Args:
            paths: run folders, checkpoints or exported files.
            frame: the frame of exported files, as `fit.in_frame` takes it.
            data_frame: how the data's frame relates to the others; None if unknown.
        """
        self.paths = tuple(paths)
        self.frame: TeacherFrame = frame
        self.data_frame = data_frame
        self.ensemble: Optional[TeacherEnsemble] = None
        self.missing: tuple[str, ...] = ()

    def meet(self, ensemble: TeacherEnsemble) -> None:
        """Set the teachers at the start of a training."""
        self.ensemble, self.missing = ensemble, ()

    def find(self, device: torch.device) -> TeacherEnsemble:
        """Return the teachers that can be read, and note the names of those that are missing."""
        if self.ensemble is not None:
            return self.ensemble
        teachers, missing = [], []
        for path in self.paths:
            try:
                teacher = read_teacher(path)
            except ValueError:
                missing.append(f"{path.name} (missing)")
                continue
            if not teacher.is_export or self.frame == "nerfstudio":
                teachers.append(teacher)
            elif self.frame != "auto" and self.data_frame is not None:
                teachers.append(in_frame(teacher, self.frame, self.data_frame))
            else:  # only the photos could tell the frame
                missing.append(f"{path.name} (unknown frame)")
        self.ensemble, self.missing = TeacherEnsemble(teachers, device), tuple(missing)
        return self.ensemble

    @property
    def is_complete(self) -> bool:
        """Whether all teachers were found, so that their mean is what the student learned from."""
        return self.ensemble is not None and len(self.ensemble.teachers) > 0 and not self.missing

    def outputs(
        self,
        ready: dict[str, Any],
        student: Gaussians,
        view: View,
        background: Tensor,
        antialiased: bool,
        crop: Callable[[Gaussians], Gaussians],
        train_lock: Optional[Lock] = None,
    ) -> Outputs:
        """Add to a student's outputs the other pictures of the same view.

        The names are: of each teacher (`standard teacher`), `ensemble` (their mean), `error` (absolute difference of
        student and ensemble), `disagreement` (standard deviation of the teachers), the latter two averaged over the
        colours, and `importance` (the Gaussians as points, see `importance_picture`).

        Args:
            ready: what the model has rendered, with `rgb`.
            student: the student's Gaussians, cropped as it is.
            view: the camera.
            background: colour [3].
            antialiased: whether the student is rendered so.
            crop: leaves out the Gaussians outside the viewer's box.
            train_lock: as `Outputs` takes it.

        Returns:
            Outputs of [H, W, 3], `error` and `disagreement` [H, W, 1].
        """
        ensemble = self.find(background.device)
        names = unique_names(ensemble.teachers)
        shape = (view.height, view.width, 3)
        shown = Outputs(ready, {}, train_lock)

        def drawn(place: int) -> Tensor:
            teacher, member = ensemble.teachers[place], ensemble.members[place]
            return render(crop(member), view, antialiased=teacher.antialiased).over(background)

        def stacked() -> Tensor:
            return torch.stack([shown[name] for name in names])

        later: dict[str, Callable[[], Tensor]] = {
            "importance": lambda: importance_picture(student, view, background, antialiased)
        }
        for place, name in enumerate(names):
            later[name] = lambda place=place: drawn(place)
        for name in self.missing:
            later[name] = lambda: torch.full(shape, MISSING_GREY, device=background.device)
        if names:
            later["disagreement"] = lambda: stacked().std(dim=0, correction=0).mean(dim=-1, keepdim=True)
            later["error"] = lambda: (shown["rgb"] - shown["ensemble"]).abs().mean(dim=-1, keepdim=True)
            # last: nerfstudio's split view opens with it beside the student
            later["ensemble"] = lambda: stacked().mean(dim=0)
        shown.later = later
        return shown


def importance_picture(gaussians: Gaussians, view: View, background: Tensor, antialiased: bool) -> Tensor:
    """Draw the Gaussians as points of equal size, dark to bright by the rank of their blending weight in this view.

    Args:
        gaussians: what to draw.
        view: the camera.
        background: colour [3].
        antialiased: whether the Gaussians are rendered so.

    Returns:
        [H, W, 3].
    """
    weights = blending_weights(gaussians, view, antialiased)
    rank = weights.argsort().argsort() / max(len(gaussians) - 1, 1)
    depth = gaussians.means @ view.viewmat[2, :3] + view.viewmat[2, 3]
    radius = POINT_RADIUS * depth.clamp_min(1e-6) / view.K[0, 0]
    points = Gaussians(
        means=gaussians.means,
        quats=gaussians.quats,
        log_scales=torch.log(radius)[:, None].expand(-1, 3),
        logit_opacities=torch.full_like(depth, POINT_LOGIT_OPACITY),
        sh_dc=(heat(rank) - 0.5) / SH_DEGREE_0,
        sh_rest=gaussians.sh_rest[:, :0],
    )
    return render(points, view).over(background)
