"""The student: a small splatfacto that learns from photos and from its teachers (Distilled-3DGS, sections 3.2, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from distilled_splat.ops.densify import CappedStrategy
from distilled_splat.ops.heat import error_picture
from distilled_splat.ops.importance import Measure
from distilled_splat.ops.losses import psnr
from distilled_splat.ops.views import View, downscaled, view_of
from distilled_splat.splat.ply import ply_megabytes
from distilled_splat.student.gallery import Gallery
from distilled_splat.student.meeting import meet_teachers
from distilled_splat.student.viewer import StudentControls
from distilled_splat.teachers.fit import TeacherFrame
from distilled_splat.training.data_frame import DATA_FRAME
from distilled_splat.training.model import GAUSSIAN_PARAMETERS, PortableSplatfactoModel, PortableSplatfactoModelConfig
from distilled_splat.training.schedule import reach


@dataclass
class DistilledModelConfig(PortableSplatfactoModelConfig):
    """A student of several teachers. The options of splatfacto also apply to the teachers that the command trains."""

    _target: type = field(default_factory=lambda: DistilledModel)
    teachers: tuple[Path, ...] = ()
    """Trained teachers: run folders, config.yml or .ckpt files of splatfacto or of splatfacto-teacher, and exported
    files of any trainer (.ply, .spz, .splat, .ksplat, .sog, .glb, gsplat's .pt). By default those of --teacher-kinds
    are trained first."""
    teacher_frame: TeacherFrame = "auto"
    """Coordinate frame of teachers that are exported files. nerfstudio: the frame of nerfstudio's runs, which ns-export
    writes. capture: the frame of the original poses (most other trainers). file: the frame of the matrices in
    transforms.json (trainers that read it). upright: the frame that distilled-splat export writes. -rub: the same with
    axes right, up, back (some .spz). -rdf: with axes right, down, front (some .glb). auto: the frame that renders most
    like the photos."""
    keep_fraction: float = 0.12
    """Size of the student, as a fraction of the standard teacher's Gaussians."""
    num_gaussians: Optional[int] = None
    """Exact size of the student in Gaussians; overrides keep-fraction."""
    start_from: Literal["teacher", "points"] = "teacher"
    """Start from the standard teacher's Gaussians, or from the capture's point cloud (with densification)."""
    start_with: Optional[Path] = None
    """A splat to start from instead of the standard teacher's Gaussians: a run, or a file in the frame of the run."""
    virtual_fraction: float = 0.5
    """Fraction of the steps at virtual views: novel views between the training cameras, where the only target is the
    pseudo label, the mean of the teachers' renders."""
    lambda_kd: float = 0.0
    """Weight of the loss against the pseudo label at a training camera, beside the loss against the photo; 1 in the
    paper. Off by default: pseudo labels at virtual views do as well in less time; see docs/trials.md."""
    min_teacher_advantage: float = 0.25
    """Use pseudo labels only while the student's squared error on the photos exceeds that of the teachers' mean by this
    fraction, and fully from twice this fraction. Teachers that are hardly better hold a student back. Applies to
    lambda-kd and virtual-fraction. 0, as in the paper: always fully."""
    full_overfit_gap: float = 0.3
    """Use virtual views only while the student overfits, that is, while its squared difference from the teachers' mean
    is larger at virtual views than at the photos: fully when larger by this fraction, not at all when not larger. 0:
    always fully."""
    max_teacher_disagreement: float = 1.0
    """Use virtual views only where the teachers agree: fully while their variance there is below the squared error of
    their mean on the photos times this factor, not at all from twice that. Teachers of few photos overfit, and then
    differ at novel views. With one teacher the variance is that of student and teacher, and the error the student's.
    0: always fully."""
    virtual_views: int = 250
    """Number of virtual views; the teachers render each one once."""
    virtual_spread: float = 0.5
    """How far virtual views leave the straight line between two cameras: beyond its ends, as a fraction of its length,
    and towards a third camera, as a fraction of the distance to it."""
    lambda_depth: float = 0.05
    """Weight of the structural loss by depth: against the teachers' mean depth, where the teachers agree on it."""
    lambda_structure: float = 0.0
    """Weight of the structural loss by histograms, of student and standard teacher over voxels; 1 in the paper. Off by
    default: the loss by depth preserves the geometry better and costs less image quality; see docs/geometry.md."""
    structure_of: Literal["mass", "centres"] = "mass"
    """What the histograms count: mass, opacity times area of each Gaussian; or centres, as in the paper."""
    structure_resolutions: tuple[int, ...] = (16, 32, 64)
    """Voxels of each histogram along each axis; 128 in the paper."""
    structure_every: int = 100
    """Steps between two applications of the structural loss by histograms; 500 in the paper; 0 turns it off."""
    prune_start: int = 0
    """Step of the first pruning. If a student that starts from points would still grow then, all prunings are later, by
    as many steps as the first one has to wait."""
    prune_stop: int = 6000
    """Step of the last pruning, after which the student has its final size."""
    prune_times: int = 8
    """Number of prunings; each one keeps the same fraction."""
    prune_importance: Measure = "removal"
    """How to choose the Gaussians to prune: removal, by how little the training views change without each; or weight,
    by accumulated blending weight, as in the paper."""
    prune_views: Optional[int] = None
    """Largest number of photos on which a pruning measures importance; all by default. With more photos the prunings
    take turns: each measures on other photos, spread evenly over the capture. This saves time with big teachers and
    hundreds of photos, and costs a little quality; see docs/speed.md."""
    prune_unseen: bool = True
    """Prune the Gaussians that no training view shows first. False counts each of them like a shown one of the same
    opacity and size, for a splat that is also looked at from elsewhere."""
    prune_sampling: bool = False
    """Draw the Gaussians to keep with probability proportional to importance, instead of taking the most important."""
    label_cache_megabytes: float = 4096
    """Largest cache of pseudo labels in megabytes (8 bytes a pixel and photo); at most half of the memory that the rest
    leaves free. Views that do not fit are rendered again in each step."""
    lr_boost: float = 0.3
    """In a run of n < schedule-length steps, multiply all learning rates of the student by (schedule-length / n) to
    this power, on top of the teachers' factors: twice as high in a tenth of the steps."""
    min_teacher_psnr: float = 15.0
    """Refuse a teacher whose renders have a lower PSNR, in dB, against the photos. A teacher that was trained on this
    same data only causes a warning."""

    step_fields: ClassVar[tuple[str, ...]] = (
        *PortableSplatfactoModelConfig.step_fields,
        "prune_start",
        "prune_stop",
        "structure_every",
    )

    def lr_powers(self) -> dict[str, float]:
        """Return smaller powers for a student that starts from its teacher, plus `lr_boost` for every student."""
        powers = {**dict.fromkeys(GAUSSIAN_PARAMETERS, 0.0), **super().lr_powers()}
        if self.start_from == "teacher":
            powers["means"] = 0.5
        return {name: power + self.lr_boost for name, power in powers.items()}

    def pruning_span(self) -> tuple[int, int]:
        """Return the steps of the first and of the last pruning; a student from points first stops growing."""
        wait = max(self.stop_split_at - self.prune_start, 0) if self.start_from == "points" else 0
        return self.prune_start + wait, self.prune_stop + wait

    def check(self) -> None:
        """Refuse settings that cannot work, before any time is spent.

        Raises:
            SystemExit: with one sentence on the first fault found.
        """
        fault = self.fault()
        if fault is not None:
            raise SystemExit(f"{fault}.")

    def fault(self) -> Optional[str]:
        """Return the first setting that cannot work, as a sentence without its full stop; None if all can."""
        size = f"--pipeline.model.keep-fraction {self.keep_fraction} / num-gaussians {self.num_gaussians}"
        if not 0 < self.keep_fraction <= 1 if self.num_gaussians is None else self.num_gaussians < 1:
            return f"{size} is invalid: give a fraction in (0, 1] or a positive number"
        if self.prune_start > self.prune_stop:
            return f"--pipeline.model.prune-start {self.prune_start} must not be after prune-stop {self.prune_stop}"
        if self.prune_times < 1:
            return f"--pipeline.model.prune-times {self.prune_times} must be at least 1"
        if self.prune_views is not None and self.prune_views < 1:
            return f"--pipeline.model.prune-views {self.prune_views} must be at least 1"
        last = self.pruning_span()[1]
        if last >= self.schedule_length:
            growth = f" and stop-split-at {self.stop_split_at}" if last > self.prune_stop else ""
            return (
                f"--pipeline.model.prune-stop {self.prune_stop}{growth}: the last pruning, at step {last}, must be "
                f"within the run ({self.schedule_length} steps)"
            )
        if not self.prune_unseen and (self.prune_sampling or self.prune_importance != "removal"):
            return "--pipeline.model.prune-unseen False needs prune-importance removal, and prune-sampling must be off"
        if self.camera_optimizer.mode != "off":
            return (
                "--pipeline.model.camera-optimizer does not work in a student, because its pseudo labels are rendered "
                "at the given poses: optimise the poses in a run of splatfacto-teacher"
            )
        if self.use_bilateral_grid:
            return (
                "--pipeline.model.use-bilateral-grid does not work in a student, because its pseudo labels have no "
                "per-photo colours: leave it out"
            )
        if not 0 <= self.virtual_fraction < 1:
            return f"--pipeline.model.virtual-fraction {self.virtual_fraction} must be in [0, 1)"
        for name in ("virtual_spread", "min_teacher_advantage", "full_overfit_gap", "max_teacher_disagreement"):
            if not getattr(self, name) >= 0:
                return f"--pipeline.model.{name.replace('_', '-')} {getattr(self, name)} must not be negative"
        for name in ("lambda_depth", "lambda_structure"):
            if not getattr(self, name) >= 0:
                return f"--pipeline.model.{name.replace('_', '-')} {getattr(self, name)} must not be negative"
        if not self.structure_resolutions or min(self.structure_resolutions) < 2:
            return "--pipeline.model.structure-resolutions must have one or more numbers, each at least 2"
        return None


FEWER_AT_THE_START = "a smaller standard teacher, from which the student starts"


class DistilledModel(PortableSplatfactoModel):
    """The student. It needs its teachers only while it trains; its checkpoint does not contain them."""

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

    def fewer_gaussians(self, count: int) -> str:
        """Return how to train fewer Gaussians at a time."""
        return super().fewer_gaussians(count) if self.config.start_from == "points" else FEWER_AT_THE_START

    def rates_on(self, cameras: Cameras) -> dict[str, float]:
        """Scale the centres' learning rate to the size of the capture; splatfacto's is for size 1 (see `reach`).

        3DGS does this in every training. Teachers, and students that start from points, keep splatfacto's.
        """
        return {"means": reach(cameras)} if self.config.start_from == "teacher" else {}

    def renders_depth(self) -> bool:
        """Render depth in training too, if the structural loss by depth is on."""
        return super().renders_depth() or self.config.lambda_depth > 0

    def build_strategy(self) -> CappedStrategy:
        """Return splatfacto's densification for a student that starts from points, and none for the other."""
        strategy = super().build_strategy()
        if self.config.start_from == "teacher":
            strategy.refine_stop_iter = 0
        return strategy

    def before_training(self, trainer: Any) -> None:
        """Read the teachers, and copy the standard one's Gaussians if the student starts from it."""
        config, steps = self.config, trainer.config.max_num_iterations
        resumed = trainer._start_step > 0
        datamanager = trainer.pipeline.datamanager
        self.teaching, config.teacher_frame, first = meet_teachers(self, datamanager, steps, resumed)
        self.gallery.meet(self.teaching.labels.ensemble)
        self.controls.target = self.teaching.pruning.target
        if not resumed and config.start_from == "teacher":
            self.set_gaussians(first.to_splatfacto(config.sh_degree))

    def training_state(self) -> dict[str, Any]:
        """Add how much the labels count."""
        return {**super().training_state(), "trust": self.teaching.trust.state()}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Take over what `training_state` returned."""
        super().restore_training_state(state)
        self.teaching.trust.restore(state["trust"], self.device)

    def active_sh_degree(self) -> int:
        """Return all degrees from the first step for a student that starts from a teacher."""
        return self.config.sh_degree if self.config.start_from == "teacher" else super().active_sh_degree()

    def training_view(self, camera: Cameras) -> View:
        """Return the view that a step renders: the photo's, or in some steps a virtual view (see `step.Teaching`)."""
        assert camera.metadata is not None
        lesson = self.teaching.begin(self, int(camera.metadata["cam_idx"]))
        return downscaled(lesson.view, self._get_downscale_factor())

    def image_losses(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the losses of a training step; in evaluation the loss against the photo."""
        return self.teaching.losses(self, outputs, batch) if self.training else super().image_losses(outputs, batch)

    def step_post_backward(self, step: int) -> None:
        """Densify while densification is on, and prune at the steps of the schedule."""
        super().step_post_backward(step)
        self.teaching.finish(self, step)

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Add the weights of the pseudo labels."""
        metrics = super().get_metrics_dict(outputs, batch)
        if self.training and metrics and self.teaching.uses_labels:
            trust = self.teaching.trust
            metrics["label_trust"] = torch.tensor(trust.value)
            metrics["label_trust_between"] = torch.tensor(trust.between)
        return metrics

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:
        """Render one camera; in evaluation the outputs include the teachers' renders (see `Gallery`)."""
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
            train_lock=self.controls.connection.lock_to_take(),
        )

    def get_image_metrics_and_images(
        self, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Add the PSNR against the teachers' mean, and pictures of it and of the error, if the teachers can be read."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        self.controls.show_psnr(metrics["psnr"], self.step)
        if self.gallery.is_complete:
            metrics["psnr_ensemble"] = psnr(outputs["rgb"], outputs["ensemble"])
            images["student"], images["ensemble"] = outputs["rgb"], outputs["ensemble"]
            images["error"] = error_picture(outputs["error"])
        return metrics, images
