"""One training step of a student: choose a view, compute its losses, compare with the teachers, prune.

nerfstudio's trainer calls the model, and the model calls `Teaching` in this order: `begin` before it renders, `losses`
on what it has rendered, `finish` when the optimizers have stepped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from distilled_splat.ops.composite import over_background
from distilled_splat.ops.free_memory import release_memory
from distilled_splat.ops.importance import Measure, importance
from distilled_splat.ops.views import downscaled
from distilled_splat.ops.voxels import squared_effects
from distilled_splat.runs.stages import STAGES
from distilled_splat.student.curriculum import Curriculum, Lesson
from distilled_splat.student.labels import PseudoLabels
from distilled_splat.student.pruning import PruningSchedule, in_turn, resize, with_unseen
from distilled_splat.student.structure import Structure, depth_loss
from distilled_splat.student.trust import LabelTrust
from distilled_splat.training.model import STEPS_PER_PSNR, PortableSplatfactoModel

LEAST_LOGIT_OPACITY = -5.53
"""Just above logit(1/255): ns-export leaves out fainter Gaussians, and the file must have the exact count."""


@dataclass
class Teaching:
    """What a student uses only while it trains; see `meeting.meet_teachers`.

    Attributes:
        curriculum: the views, with photos and without.
        labels: the teachers' mean render of each view.
        trust: how much labels count.
        lambda_kd: weight of the label of a view that has a photo.
        structure: the structural loss; None if its weight is 0.
        lambda_depth: weight of the loss against the teachers' depths.
        pruning: when to prune, and to how many Gaussians.
        importance: how to choose the Gaussians to prune.
        prune_views: the largest number of photos on which a pruning measures importance; None for all.
        prune_unseen: whether to prune the Gaussians that no view shows first; otherwise see `pruning.with_unseen`.
        prune_sampling: whether the Gaussians to keep are drawn at random.
        lesson: the view of the current step.
    """

    curriculum: Curriculum
    labels: PseudoLabels
    trust: LabelTrust
    lambda_kd: float
    structure: Optional[Structure]
    lambda_depth: float
    pruning: PruningSchedule
    importance: Measure
    prune_views: Optional[int]
    prune_unseen: bool
    prune_sampling: bool
    lesson: Optional[Lesson] = None

    @property
    def uses_labels(self) -> bool:
        """Whether pseudo labels are used at all."""
        return self.lambda_kd > 0 or self.curriculum.virtual_fraction > 0

    def begin(self, student: PortableSplatfactoModel, photo: int) -> Lesson:
        """Choose the view of a step that nerfstudio gave this photo; logged steps always render the photo's view."""
        self.lesson = self.curriculum.choose(photo, self.trust.between, photos_only=student.step % STEPS_PER_PSNR == 0)
        return self.lesson

    def losses(
        self, student: PortableSplatfactoModel, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Return L_color on the photo, lambda_kd L_color on its label, and the structural losses.

        See Distilled-3DGS, sections 3.2 and 3.3. At a virtual view the only image loss is L_color on the label.
        """
        lesson, background, rendered = self.lesson, outputs["background"], outputs["rgb"]
        assert lesson is not None
        lambda_kd = self.lambda_kd * self.trust.value if lesson.has_photo else 1.0
        targets: dict[str, Tensor] = {}
        if lesson.has_photo:
            targets["main_loss"] = student.photo(batch, background)
        if lambda_kd > 0:
            targets["kd_loss"] = self.label(student, lesson, background)
        losses = dict(zip(targets, student.losses_by(rendered, batch if lesson.has_photo else {}, *targets.values())))

        if lesson.has_photo and student.step % STEPS_PER_PSNR == 0 and self.uses_labels:
            self.observe(student, lesson, rendered.detach(), targets, batch, background)

        if lesson.has_photo and "kd_loss" in losses:
            losses["kd_loss"] = lambda_kd * losses["kd_loss"]
        if self.structure is not None and self.structure.is_due(student.step):
            losses["structure_loss"] = self.structure.loss(student.gaussians())
        if self.lambda_depth > 0:
            true, belief = self.labels.surface(lesson.index, lesson.view, student._get_downscale_factor())
            mask = student.mask_of(batch) if lesson.has_photo else None
            belief = belief if mask is None else belief * mask
            losses["depth_loss"] = self.lambda_depth * depth_loss(outputs["depth"], true, belief)
        return losses

    def label(self, student: PortableSplatfactoModel, lesson: Lesson, background: Tensor) -> Tensor:
        """Return the pseudo label of a view over a background at the step's resolution, [H, W, 3]."""
        return self.labels.label(lesson.index, lesson.view, background, student._get_downscale_factor())

    @torch.no_grad()
    def observe(
        self,
        student: PortableSplatfactoModel,
        lesson: Lesson,
        rendered: Tensor,
        targets: dict[str, Tensor],
        batch: dict[str, Any],
        background: Tensor,
    ) -> None:
        """Update the trust: compare student and teachers at the photo, and at a virtual view near it.

        This happens before the optimizer steps: the same student must render the photo and the virtual view.
        """
        label = targets["kd_loss"] if "kd_loss" in targets else self.label(student, lesson, background)
        self.trust.see(rendered, label, targets["main_loss"], student.mask_of(batch))
        near = self.curriculum.near(lesson.index) if self.trust.full_gap or self.trust.max_disagreement else None
        if near is not None:
            downscale = student._get_downscale_factor()
            view = downscaled(near.view, downscale)
            between = student.render_view(student.gaussians(), view, background).color.clamp(0, 1)
            there = self.labels.of(near.index, near.view)
            taught = over_background(there.image, background, downscale)
            self.trust.see_between(rendered - label, between - taught, there.disagreement)

    @torch.no_grad()
    def finish(self, student: PortableSplatfactoModel, step: int) -> None:
        """Prune at the steps of the schedule, and keep all Gaussians exportable after the last step."""
        count = self.pruning.count_at(step, student.num_points)
        if count is not None:
            with STAGES.within("cuts"):
                antialiased = student.config.rasterize_mode == "antialiased"
                views = in_turn(self.curriculum.photographed, self.prune_views, self.pruning.steps.index(step))
                background = student._get_background_color
                weights = importance(student.gaussians(), views, background, self.importance, antialiased)
                if not self.prune_unseen:
                    weights = with_unseen(weights, squared_effects(student.gaussians()))
                state = student.strategy_state
                resize(student.gauss_params, student.optimizers, state, weights, count, self.prune_sampling)
                release_memory()
        if step == self.pruning.last_step:
            student.opacities.data.clamp_(min=LEAST_LOGIT_OPACITY)
