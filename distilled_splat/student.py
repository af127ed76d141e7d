"""The student: a small splatfacto that learns from photos and from its teachers (Distilled-3DGS, sections 3.2, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from distilled_splat.agreement import TeacherFrame, brought_in, check_teachers, psnr
from distilled_splat.datamanager import DATA_FRAME
from distilled_splat.densify import CappedStrategy
from distilled_splat.gallery import Gallery, error_picture
from distilled_splat.losses import VoxelGrid, structural_loss
from distilled_splat.memory import LABEL_BYTES_PER_PIXEL, available_bytes, check_memory, gaussian_bytes, pixels
from distilled_splat.pseudo_labels import PseudoLabels, TeacherEnsemble
from distilled_splat.readers import Teacher, read_teacher
from distilled_splat.render import View, downscaled, view_of
from distilled_splat.schedule import reach
from distilled_splat.simplify import Measure, count_after_cut, cut_steps, importance, resize
from distilled_splat.splatfacto import (
    GAUSSIAN_PARAMETERS,
    STEPS_PER_PSNR,
    PortableSplatfactoModel,
    PortableSplatfactoModelConfig,
    ply_megabytes,
)
from distilled_splat.trust import LabelTrust
from distilled_splat.viewer import StudentControls
from distilled_splat.virtual_views import views_between

LEAST_LOGIT_OPACITY = -5.53
"""Just above logit(1/255): ns-export leaves out what is fainter, and the promised count must arrive in the file."""


@dataclass
class DistilledModelConfig(PortableSplatfactoModelConfig):
    """A student of several teachers; the options of splatfacto hold for the teachers that the command trains, too."""

    _target: type = field(default_factory=lambda: DistilledModel)
    teachers: tuple[Path, ...] = ()
    """Trained teachers: run folders, config.yml or .ckpt files of splatfacto or of splatfacto-teacher, and exported
    .ply or .spz files of any trainer. Without any, a standard, a perturbed and a dropout teacher are trained first."""
    teacher_frame: TeacherFrame = "auto"
    """Frame of teachers that are exported files: that of nerfstudio's runs (ns-export writes it), that of the capture's
    own poses (most other trainers), or whichever renders more like the photos."""
    keep_fraction: float = 0.12
    """Size of the student, as a fraction of the standard teacher's Gaussians."""
    num_gaussians: Optional[int] = None
    """Size of the student in Gaussians, exactly; takes the place of keep-fraction."""
    start_from: Literal["teacher", "points"] = "teacher"
    """Start from the standard teacher's Gaussians, or from the points of structure from motion (with densification)."""
    virtual_fraction: float = 0.5
    """Part of the steps that render a view between training cameras, where there is only a pseudo label: the mean of
    the teachers' renders."""
    lambda_kd: float = 0.0
    """Weight of the loss against the pseudo label at a training camera, beside that against the photo; 1 in the paper.
    Off, because labels between the cameras do as well without it, in less time; see docs/method.md."""
    trust_margin: float = 0.25
    """Labels count, by lambda-kd and virtual-fraction, while the student's squared error on the photos exceeds that of
    the teachers' mean by more than this part of it, and fully from twice this part on: teachers that hardly know better
    hold a student back. 0, as in the paper: always fully."""
    overfit_margin: float = 0.3
    """Labels between the cameras count by how much more the student's squared difference from the teachers' mean is
    there than at the photos: fully when it is larger by this part, not at all when it is no larger, for then there is
    nothing that the photos alone do not teach as well. 0: always fully."""
    virtual_views: int = 250
    """Number of such views; each is rendered by the teachers once."""
    virtual_spread: float = 0.5
    """How far such views leave the straight way between two cameras: beyond its ends, as a part of that way, and
    towards a third camera, as a part of the way there."""
    structure_weight: float = 0.0
    """Weight of the structural loss between the voxel histograms of student and standard teacher; 1 in the paper. Off,
    because a student that starts from that teacher is a little worse with it; see docs/method.md."""
    structure_every: int = 10
    """Steps between two applications of the structural loss (not scaled with the run); 0 switches it off."""
    structure_resolution: int = 128
    """Voxels of the histogram along each axis."""
    first_cut: int = 0
    """Step of the first simplification."""
    last_cut: int = 6000
    """Step of the last simplification, after which the student has its final size."""
    cuts: int = 8
    """Number of simplifications; each keeps the same fraction."""
    importance: Measure = "removal"
    """What decides which Gaussians go: how much the training views change without one, or (the paper) its accumulated
    blending weight."""
    cut_sampling: bool = False
    """Draw the Gaussians to keep with probability proportional to importance, instead of taking the most important."""
    label_cache_megabytes: float = 4096
    """Memory for pseudo labels (8 bytes a pixel and photo); views beyond it are rendered anew in each step."""
    extra_haste: float = 0.3
    """In a run shorter than schedule-length all learning rates are higher by this power of how much it is shorter,
    beside what holds for teachers, too: twice as high in a tenth of the steps. They fall to nothing at the end."""
    least_teacher_psnr: float = 15.0
    """A teacher whose renders agree with the photos less than this, in dB, is refused."""

    step_fields: ClassVar[tuple[str, ...]] = (
        *PortableSplatfactoModelConfig.step_fields,
        "first_cut",
        "last_cut",
    )

    def haste(self) -> dict[str, float]:
        """A student that starts from its teacher has less far to go, and one that cools down can go in larger steps."""
        powers = {**dict.fromkeys(GAUSSIAN_PARAMETERS, 0.0), **super().haste()}
        if self.start_from == "teacher":
            powers["means"] = 0.5
        return {name: power + self.extra_haste for name, power in powers.items()}

    def check(self) -> None:
        """Refuse settings that cannot work, before any time is spent.

        Raises:
            SystemExit: with one sentence on the first fault found.
        """
        size_is_wrong = not 0 < self.keep_fraction <= 1 if self.num_gaussians is None else self.num_gaussians < 1
        faults = {
            f"--pipeline.model.keep-fraction {self.keep_fraction} / num-gaussians {self.num_gaussians} is no size: "
            "give a fraction in (0, 1] or a positive number": size_is_wrong,
            f"--pipeline.model.first-cut {self.first_cut} comes after last-cut {self.last_cut}": (
                self.first_cut > self.last_cut
            ),
            f"--pipeline.model.cuts {self.cuts} must be at least 1": self.cuts < 1,
            f"--pipeline.model.last-cut {self.last_cut} must lie inside the run ({self.schedule_length} steps)": (
                self.last_cut >= self.schedule_length
            ),
            f"--pipeline.model.stop-split-at {self.stop_split_at} must not come after first-cut {self.first_cut}, or "
            "the student would grow again": self.start_from == "points" and self.stop_split_at > self.first_cut,
            "--pipeline.model.camera-optimizer cannot be used in a student, whose pseudo labels are rendered at the "
            "given poses: optimise the poses in a run of splatfacto-teacher": self.camera_optimizer.mode != "off",
            "--pipeline.model.use-bilateral-grid cannot be used in a student, whose pseudo labels have no per-photo "
            "colours": self.use_bilateral_grid,
            f"--pipeline.model.virtual-fraction {self.virtual_fraction} must lie in [0, 1)": (
                not 0 <= self.virtual_fraction < 1
            ),
            f"--pipeline.model.virtual-spread {self.virtual_spread} must not be negative": not self.virtual_spread >= 0,
            f"--pipeline.model.trust-margin {self.trust_margin} must not be negative": not self.trust_margin >= 0,
            f"--pipeline.model.overfit-margin {self.overfit_margin} must not be negative": not self.overfit_margin >= 0,
            "--pipeline.model.structure-resolution must be at least 2": self.structure_resolution < 2,
        }
        for fault, found in faults.items():
            if found:
                raise SystemExit(f"{fault}.")


class DistilledModel(PortableSplatfactoModel):
    """The student. Teachers are there while it trains only: not in its checkpoint, and not needed to use it."""

    config: DistilledModelConfig

    def populate_modules(self) -> None:
        """Build the splat, and what the viewer shows of it."""
        super().populate_modules()
        metadata = self.kwargs.get("metadata") or {}
        self.gallery = Gallery(self.config.teachers, self.config.teacher_frame, metadata.get(DATA_FRAME))
        self.controls = StudentControls(self.gaussians)
        # nerfstudio's viewer finds its elements among the model's attributes
        self.viewer_panel, self.viewer_connection = self.controls.panel, self.controls.connection
        self.viewer_export = self.controls.button

    def rates_on(self, cameras: Cameras) -> dict[str, float]:
        """Let centres move as far in this capture as in one of size 1, which splatfacto's rates are for (see `reach`).

        3DGS does so in every training. Teachers, and a student that starts as they do, keep to splatfacto.
        """
        return {"means": reach(cameras)} if self.config.start_from == "teacher" else {}

    def build_strategy(self) -> CappedStrategy:
        """Return splatfacto's densification for a student that starts from points, and none for the other."""
        strategy = super().build_strategy()
        if self.config.start_from == "teacher":
            strategy.refine_stop_iter = 0
        return strategy

    def before_training(self, trainer: Any) -> None:
        """Call in the teachers."""
        self.meet_teachers(trainer.pipeline.datamanager, trainer.config.max_num_iterations, trainer._start_step == 0)

    def meet_teachers(self, datamanager: Any, steps: int, fresh: bool) -> None:
        """Read and check the teachers, fix the size and the schedule, and start from the standard teacher.

        Args:
            datamanager: where the photos and their cameras are.
            steps: length of the run.
            fresh: whether the run begins, and does not go on from a checkpoint.

        Raises:
            SystemExit: if a teacher cannot be read or does not fit the data, or the memory is too small.
        """
        config = self.config
        try:
            teachers = [read_teacher(path) for path in config.teachers]
            self.check_memory(datamanager, teachers)
            least = config.least_teacher_psnr
            teachers, config.teacher_frame = brought_in(teachers, datamanager, config.teacher_frame, least, self.device)
            check_teachers(teachers, datamanager, least, self.device)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        standard = standard_of(teachers)
        self.views = [view_of(camera) for camera in datamanager.single_cameras]
        wanted = config.virtual_views if config.virtual_fraction > 0 else 0
        self.all_views = [*self.views, *views_between(self.views, wanted, spread=config.virtual_spread)]
        # a tuple is invisible to torch.nn.Module and to the viewer's search for controls
        ensemble = TeacherEnsemble(teachers, self.device)
        self.distillation = (PseudoLabels(ensemble, config.label_cache_megabytes),)
        self.trust = LabelTrust(config.trust_margin, config.overfit_margin)
        self.gallery.meet(ensemble)
        self.grid = VoxelGrid.around(standard.gaussians.means.to(self.device), config.structure_resolution)
        self.teacher_histogram = self.grid.histogram(standard.gaussians.means.to(self.device))
        self.target_count = config.num_gaussians or max(round(config.keep_fraction * len(standard.gaussians)), 1)
        self.controls.target = self.target_count
        self.cut_steps = cut_steps(config.cuts, config.first_cut, config.last_cut)
        self.last_step = steps - 1
        if fresh and config.start_from == "teacher":
            self.set_gaussians(standard.gaussians.to_splatfacto(config.sh_degree))
        CONSOLE.print(
            f"Student of {len(teachers)} teachers ({', '.join(teacher.variant for teacher in teachers)}): "
            f"{self.target_count} Gaussians, the standard teacher has {len(standard.gaussians)}."
        )

    def check_memory(self, datamanager: Any, teachers: Sequence[Teacher]) -> None:
        """Count the teachers and their pseudo labels, too, and a student that starts as large as its teacher."""
        config = self.config
        photos = len(datamanager.train_dataset)
        views = photos * self.distills + config.virtual_views * (config.virtual_fraction > 0)
        label_bytes = LABEL_BYTES_PER_PIXEL * pixels(datamanager.train_dataset) * views // photos
        starts_with = len(standard_of(teachers).gaussians) if config.start_from == "teacher" else self.num_points
        needs = {
            **self.memory_needs(datamanager, max(starts_with, self.num_points)),
            "teachers": sum(gaussian_bytes(len(item.gaussians), item.gaussians.sh_degree) for item in teachers),
            "pseudo labels": min(label_bytes, int(config.label_cache_megabytes * 1e6)),
        }
        check_memory(needs, available_bytes(self.device))

    def active_sh_degree(self) -> int:
        """A student that starts from a teacher has all degrees of spherical harmonics from the first step."""
        return self.config.sh_degree if self.config.start_from == "teacher" else super().active_sh_degree()

    def training_view(self, camera: Cameras) -> View:
        """Return the photo's view, or in some steps a view between the cameras; logged steps always have a photo."""
        assert camera.metadata is not None
        self.view_index = int(camera.metadata["cam_idx"])
        virtual = len(self.all_views) - len(self.views)
        part = self.config.virtual_fraction * self.trust.value * self.trust.overfit
        if virtual and self.step % STEPS_PER_PSNR and float(torch.rand(())) < part:
            self.view_index = len(self.views) + int(torch.randint(virtual, ()))
        return downscaled(self.all_views[self.view_index], self._get_downscale_factor())

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:
        """Render one camera; in evaluation the teachers' renders of it can be asked for, too (see `Gallery`)."""
        outputs = super().get_outputs(camera)
        if self.training or not isinstance(camera, Cameras):
            return outputs
        self.controls.show_size(self.num_points, ply_megabytes(self.num_points, self.config.sh_degree))
        return self.gallery.outputs(
            outputs,
            student=self.cropped(self.gaussians().detach()),
            view=view_of(camera.reshape((1,))),
            background=self._get_background_color(),
            antialiased=self.config.rasterize_mode == "antialiased",
            crop=self.cropped,
        )

    def get_image_metrics_and_images(
        self, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Add, when the teachers are at hand, the PSNR against their mean, and pictures of it and of the error."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        self.controls.show_psnr(metrics["psnr"], self.step)
        if self.gallery.is_complete:
            metrics["psnr_ensemble"] = psnr(outputs["rgb"], outputs["ensemble"])
            images["student"], images["ensemble"] = outputs["rgb"], outputs["ensemble"]
            images["error"] = error_picture(outputs["error"])
        return metrics, images

    def image_losses(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return L_color on the photo and lambda_kd L_color on its label; without a photo, on the label alone."""
        if not self.training:
            return super().image_losses(outputs, batch)
        has_photo = self.view_index < len(self.views)
        targets: dict[str, Tensor] = {}
        if has_photo:
            targets["main_loss"] = self.photo(batch, outputs["background"])
        lambda_kd = self.config.lambda_kd * self.trust.value
        if not has_photo or lambda_kd > 0:
            targets["kd_loss"] = self.label(self.view_index, outputs["background"])
        masked = batch if has_photo else {}
        losses = dict(zip(targets, self.losses_by(outputs["rgb"], masked, *targets.values())))
        if has_photo and self.step % STEPS_PER_PSNR == 0 and self.distills:
            label = targets["kd_loss"] if "kd_loss" in targets else self.label(self.view_index, outputs["background"])
            self.trust.see(outputs["rgb"].detach(), label, targets["main_loss"], self.mask_of(batch))
            self.compare_between(outputs["rgb"].detach() - label, outputs["background"])
        if has_photo and "kd_loss" in losses:
            losses["kd_loss"] = lambda_kd * losses["kd_loss"]
        return losses

    @torch.no_grad()
    def compare_between(self, at_photo: Tensor, background: Tensor) -> None:
        """Let the trust compare the difference from the label at the step's photo with that at a view near it.

        Near a photo are the views between the cameras that `views_between` made from its camera.
        """
        near = range(len(self.views) + self.view_index, len(self.all_views), len(self.views))
        if not near or not self.config.overfit_margin:
            return
        index = near[int(torch.randint(len(near), ()))]
        view = downscaled(self.all_views[index], self._get_downscale_factor())
        rendered = self.render_view(self.gaussians(), view, background).color.clamp(0, 1)
        self.trust.see_between(at_photo, rendered - self.label(index, background))

    @property
    def distills(self) -> bool:
        """Whether there is any use for pseudo labels."""
        return self.config.lambda_kd > 0 or self.config.virtual_fraction > 0

    def label(self, index: int, background: Tensor) -> Tensor:
        """Return the pseudo label of a view (of `all_views`) over a background at the step's resolution, [H, W, 3]."""
        return self.distillation[0].label(index, self.all_views[index], background, self._get_downscale_factor())

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Add how far labels are trusted."""
        metrics = super().get_metrics_dict(outputs, batch)
        if self.training and metrics and self.distills:
            metrics["label_trust"] = torch.tensor(self.trust.value)
            metrics["label_trust_between"] = torch.tensor(self.trust.value * self.trust.overfit)
        return metrics

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: Optional[dict[str, Tensor]] = None
    ) -> dict[str, Tensor]:
        """Add the structural loss to those on the image."""
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        config = self.config
        if not self.training:
            return losses
        if config.structure_weight > 0 and config.structure_every > 0 and self.step % config.structure_every == 0:
            histogram = self.grid.histogram(self.means)
            losses["structure_loss"] = config.structure_weight * structural_loss(histogram, self.teacher_histogram)
        return losses

    def step_post_backward(self, step: int) -> None:
        """Densify while that is on, cut when it is due, and leave the promised count after the last step."""
        super().step_post_backward(step)
        cuts_left = sum(cut >= step for cut in self.cut_steps)
        if step in self.cut_steps:
            self.cut(cuts_left)
        if step == self.last_step:
            self.opacities.data.clamp_(min=LEAST_LOGIT_OPACITY)

    @torch.no_grad()
    def cut(self, cuts_left: int) -> None:
        """Measure every Gaussian's importance over the training views and bring the splat to its next size."""
        config = self.config
        antialiased = config.rasterize_mode == "antialiased"
        weights = importance(self.gaussians(), self.views, self._get_background_color, config.importance, antialiased)
        resize(
            self.gauss_params,
            self.optimizers,
            self.strategy_state,
            weights,
            count_after_cut(self.num_points, self.target_count, cuts_left),
            config.cut_sampling,
        )


def standard_of(teachers: Sequence[Teacher]) -> Teacher:
    """Return the teacher whose structure and size the student refers to: the first standard one, else the first."""
    return next((teacher for teacher in teachers if teacher.variant == "standard"), teachers[0])
