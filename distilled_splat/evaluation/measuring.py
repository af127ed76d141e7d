"""Render teachers and student side by side, and measure them against photos and true depths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import torch
from torch import Tensor

from distilled_splat.evaluation.geometry import Surfaces, alpha_error, depth_error, mean_surfaces
from distilled_splat.evaluation.held_out import FinishedRun, HeldOut
from distilled_splat.evaluation.perceptual import perceptual_measures
from distilled_splat.evaluation.true_depth import TrueDepths
from distilled_splat.ops.losses import l1_and_ssim, psnr
from distilled_splat.ops.render import Rendered
from distilled_splat.ops.views import View
from distilled_splat.teachers.ensemble import TeacherEnsemble, mean_alpha, mean_depth, unique_names
from distilled_splat.teachers.reading import Teacher

MEAN = "mean of teachers"


@dataclass
class Scores:
    """The measurements of one splat, view by view."""

    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    depth: list[float] = field(default_factory=list)
    depth_beyond: list[float] = field(default_factory=list)
    alpha: list[float] = field(default_factory=list)
    perceptual: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def by_photo(self) -> dict[str, list[float]]:
        """Return each measure's values by held-out photo, in order."""
        found = {"psnr": self.psnr, "ssim": self.ssim, **self.perceptual}
        return {name: values for name, values in found.items() if values}


class Measuring:
    """Measures teachers and student, view by view.

    Attributes:
        scores: the measurements of each splat, and of the teachers' mean, by name.
        names: the names of the teachers.
        has_maps: whether the held-out photos so far had depth maps.
        notes: sentences on what could not be measured.
    """

    def __init__(
        self, run: FinishedRun, teachers: Sequence[Teacher], perceptual_of: Optional[Collection[str]] = None
    ) -> None:
        self.run, self.ensemble = run, TeacherEnsemble(teachers, run.model.device)
        self.names = unique_names(teachers)
        self.truth = TrueDepths(run.datamanager.eval_dataset, run.datamanager.train_dataparser_outputs)
        self.scores: defaultdict[str, Scores] = defaultdict(Scores)
        self.has_maps = False
        self.perceptual_of = perceptual_of
        wanted = perceptual_of is None or len(perceptual_of) > 0
        self.perceptual, self.notes = perceptual_measures(run.model.device) if wanted else ({}, [])

    def renders(self, view: View) -> tuple[dict[str, Rendered], Optional[Surfaces]]:
        """Render each teacher and the student. Return the renders by name, and the surfaces of the teachers' mean."""
        renders = self.ensemble.renders(view, depth=True)
        student = self.run.rendered(view, depth=True)
        return {**dict(zip(self.names, renders)), "student": student}, mean_surfaces(renders) if renders else None

    def see(self, held: HeldOut) -> dict[str, Tensor]:
        """Measure every splat, and the teachers' mean, on a held-out photo. Return their images [H, W, 3] by name."""
        renders, taken = self.renders(held.view)
        images = {name: rendered.over(held.background) for name, rendered in renders.items()}
        if taken is not None:
            student = images.pop("student")
            images[MEAN], images["student"] = torch.stack(list(images.values())).mean(dim=0), student
        for name, image in images.items():
            self.scores[name].psnr.append(psnr(image, held.photo))
            self.scores[name].ssim.append(float(l1_and_ssim(image, held.photo)[1]))
        judged = [name for name in images if self.perceptual_of is None or name in self.perceptual_of]
        for measure, metric in self.perceptual.items():
            for name, distance in zip(judged, metric.distances(held.photo, [images[name] for name in judged])):
                self.scores[name].perceptual[measure].append(distance)
        depth = self.truth.of_photo(held.place, held.view)
        self.has_maps = self.has_maps or depth is not None
        surfaces = surfaces_of(depth, held.alpha, taken)
        for name, (own, alpha) in self.seen(renders, depth).items():
            if surfaces is not None:
                self.scores[name].depth.append(depth_error(own, alpha, surfaces.depth))
            is_measure = name == MEAN and held.alpha is None  # the mean would be its own reference
            if surfaces is not None and surfaces.alpha is not None and not is_measure:
                self.scores[name].alpha.append(alpha_error(alpha, surfaces.alpha))
        return images

    def seen(self, renders: Mapping[str, Rendered], true: Optional[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return depth and alpha of each render, and of the teachers' mean if it is not the reference itself."""
        found = {name: (one.depth, one.alpha) for name, one in renders.items() if one.depth is not None}
        if true is not None and self.names:
            teachers = [renders[name] for name in self.names]
            found[MEAN] = mean_depth(teachers)[0], mean_alpha(teachers)
        return found

    def see_beyond(self, view: View, depth: Optional[Tensor]) -> None:
        """Measure every splat at a view beyond the cameras, against its depth map [H, W, 1] or the teachers' mean."""
        if depth is None and not self.names:
            return  # there is no reference
        renders, taken = self.renders(view)
        surfaces = surfaces_of(depth, None, taken)
        for name, (own, alpha) in self.seen(renders, depth).items():
            if surfaces is not None:
                self.scores[name].depth_beyond.append(depth_error(own, alpha, surfaces.depth))


def surfaces_of(depth: Optional[Tensor], alpha: Optional[Tensor], taken: Optional[Surfaces]) -> Optional[Surfaces]:
    """Return a view's reference: the capture's own depth and alpha if it has them, otherwise the teachers' mean.

    Args:
        depth: the capture's depth map of the view, [H, W, 1].
        alpha: the photo's alpha, [H, W, 1].
        taken: the teachers' mean; None without teachers.
    """
    if taken is None:
        return None if depth is None else Surfaces(depth, alpha)
    return Surfaces(taken.depth if depth is None else depth, taken.alpha if alpha is None else alpha)
