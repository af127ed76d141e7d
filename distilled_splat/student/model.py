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
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.ply import ply_megabytes
from distilled_splat.student.gallery import Gallery
from distilled_splat.student.meeting import meet_teachers
from distilled_splat.student.viewer import StudentControls
from distilled_splat.teachers.ensemble import TeacherEnsemble, standard_of
from distilled_splat.teachers.fit import TeacherFrame
from distilled_splat.teachers.reading import read_teacher
from distilled_splat.training.data_frame import DATA_FRAME
from distilled_splat.training.model import GAUSSIAN_PARAMETERS, PortableSplatfactoModel, PortableSplatfactoModelConfig
from distilled_splat.training.schedule import reach


@dataclass
class DistilledModelConfig(PortableSplatfactoModelConfig):
    """A student of several teachers; the options of splatfacto hold for the teachers that the command trains, too."""

    _target: type = field(default_factory=lambda: DistilledModel)
    teachers: tuple[Path, ...] = ()
    """Trained teachers: run folders, config.yml or .ckpt files of splatfacto or of splatfacto-teacher, and exported
    files of any trainer (.ply, .spz, .splat, .ksplat, .sog, .glb, gsplat's .pt). Without any, a standard, a perturbed
    and a dropout teacher are trained first."""
    teacher_frame: TeacherFrame = "auto"
    """Frame of teachers that are exported files: that of nerfstudio's runs (ns-export writes it), that of the capture's
    own poses (most other trainers), that of the matrices in transforms.json (trainers that read it), each also with
    axes right, up, back (rub; some .spz), or whichever renders most like the photos."""
    keep_fraction: float = 0.12
    """Size of the student, as a fraction of the standard teacher's Gaussians."""
    num_gaussians: Optional[int] = None
    """Size of the student in Gaussians, exactly; takes the place of keep-fraction."""
    start_from: Literal["teacher", "points"] = "teacher"
    """Start from the standard teacher's Gaussians, or from the points of structure from motion (with densification)."""
    start_with: Optional[Path] = None
    """A splat to start with in place of the standard teacher's Gaussians: a run, or a file in the frame of the run."""
    virtual_fraction: float = 0.5
    """Part of the steps that render a view between training cameras, where there is only a pseudo label: the mean of
    the teachers' renders."""
    lambda_kd: float = 0.0
    """Weight of the loss against the pseudo label at a training camera, beside that against the photo; 1 in the paper.
    Off, because labels between the cameras do as well without it, in less time; see docs/method.md."""
    min_teacher_advantage: float = 0.25
    """Labels count, by lambda-kd and virtual-fraction, while the student's squared error on the photos exceeds that of
    the teachers' mean by more than this part of it, and fully from twice this part on: teachers that hardly know better
    hold a student back. 0, as in the paper: always fully."""
    full_overfit_gap: float = 0.3
    """Labels between the cameras count by how much more the student's squared difference from the teachers' mean is
    there than at the photos: fully when it is larger by this part, not at all when it is no larger, for then there is
    nothing that the photos alone do not teach as well. 0: always fully."""
    virtual_views: int = 250
    """Number of such views; each is rendered by the teachers once."""
    virtual_spread: float = 0.5
    """How far such views leave the straight way between two cameras: beyond its ends, as a part of that way, and
    towards a third camera, as a part of the way there."""
    lambda_depth: float = 0.05
    """Weight of the structural loss by depth: against the teachers' mean depth, where they agree on it."""
    lambda_structure: float = 0.0
    """Weight of the structural loss between the voxel histograms of student and standard teacher; 1 in the paper. Off,
    because that by depth keeps the geometry better, at less cost for the pictures; see docs/geometry.md."""
    structure_of: Literal["mass", "centres"] = "mass"
    """What the histograms count: what Gaussians cover (opacity times area), or (the paper) their centres."""
    structure_resolutions: tuple[int, ...] = (16, 32, 64)
    """Voxels of each histogram along each axis; 128 in the paper."""
    structure_every: int = 10
    """Steps between two applications of the structural loss (not scaled with the run); 0 switches it off."""
    prune_start: int = 0
    """Step of the first pruning."""
    prune_stop: int = 6000
    """Step of the last pruning, after which the student has its final size."""
    prune_times: int = 8
    """Number of prunings; each keeps the same fraction."""
    prune_importance: Measure = "removal"
    """What decides which Gaussians go: how much the training views change without one, or (the paper) its accumulated
    blending weight."""
    prune_unseen: bool = True
    """Prune first what no training view shows. Otherwise the same part of it stays as of the rest, that of most mass:
    for splats of which more is wanted than the views show."""
    prune_sampling: bool = False
    """Draw the Gaussians to keep with probability proportional to importance, instead of taking the most important."""
    label_cache_megabytes: float = 4096
    """Memory for pseudo labels (8 bytes a pixel and photo), at most; half of what is free after all other needs if that
    is less. Views beyond it are rendered anew in each step."""
    lr_boost: float = 0.3
    """In a run shorter than schedule-length all learning rates are higher by this power of how much it is shorter,
    beside what holds for teachers, too: twice as high in a tenth of the steps. They fall to nothing at the end."""
    min_teacher_psnr: float = 15.0
    """A teacher whose renders agree with the photos less than this, in dB, is refused; one that was trained on this
    very data is warned of only."""

    step_fields: ClassVar[tuple[str, ...]] = (
        *PortableSplatfactoModelConfig.step_fields,
        "prune_start",
        "prune_stop",
    )

    def lr_powers(self) -> dict[str, float]:
        """A student that starts from its teacher has less far to go, and one that cools down can go in larger steps."""
        powers = {**dict.fromkeys(GAUSSIAN_PARAMETERS, 0.0), **super().lr_powers()}
        if self.start_from == "teacher":
            powers["means"] = 0.5
        return {name: power + self.lr_boost for name, power in powers.items()}

    def check(self) -> None:
        """Refuse settings that cannot work, before any time is spent.

        Raises:
            SystemExit: with one sentence on the first fault found.
        """
        fault = self.fault()
        if fault is not None:
            raise SystemExit(f"{fault}.")

    def fault(self) -> Optional[str]:
        """Return the first setting that cannot work, as a sentence without its end; None if all can."""
        size = f"--pipeline.model.keep-fraction {self.keep_fraction} / num-gaussians {self.num_gaussians}"
        if not 0 < self.keep_fraction <= 1 if self.num_gaussians is None else self.num_gaussians < 1:
            return f"{size} is not a size: give a fraction in (0, 1] or a positive number"
        if self.prune_start > self.prune_stop:
            return f"--pipeline.model.prune-start {self.prune_start} comes after prune-stop {self.prune_stop}"
        if self.prune_times < 1:
            return f"--pipeline.model.prune-times {self.prune_times} must be at least 1"
        if self.prune_stop >= self.schedule_length:
            return (
                f"--pipeline.model.prune-stop {self.prune_stop} must lie inside the run ({self.schedule_length} steps)"
            )
        if self.start_from == "points" and self.stop_split_at > self.prune_start:
            return (
                f"--pipeline.model.stop-split-at {self.stop_split_at} must not come after prune-start "
                f"{self.prune_start}, or the student would grow again"
            )
        if not self.prune_unseen and (self.prune_sampling or self.prune_importance != "removal"):
            return (
                "--pipeline.model.prune-unseen False goes with prune-importance removal and without prune-sampling: "
                "leave those as they are"
            )
        if self.camera_optimizer.mode != "off":
            return (
                "--pipeline.model.camera-optimizer cannot be used in a student, whose pseudo labels are rendered at "
                "the given poses: optimise the poses in a run of splatfacto-teacher"
            )
        if self.use_bilateral_grid:
            return (
                "--pipeline.model.use-bilateral-grid cannot be used in a student, whose pseudo labels have no "
                "per-photo colours"
            )
        if not 0 <= self.virtual_fraction < 1:
            return f"--pipeline.model.virtual-fraction {self.virtual_fraction} must lie in [0, 1)"
        for name in ("virtual_spread", "min_teacher_advantage", "full_overfit_gap"):
            if not getattr(self, name) >= 0:
                return f"--pipeline.model.{name.replace('_', '-')} {getattr(self, name)} must not be negative"
        for name in ("lambda_depth", "lambda_structure"):
            if not getattr(self, name) >= 0:
                return f"--pipeline.model.{name.replace('_', '-')} {getattr(self, name)} must not be negative"
        if not self.structure_resolutions or min(self.structure_resolutions) < 2:
            return "--pipeline.model.structure-resolutions must be one number or more, each at least 2"
        return None


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

    def renders_depth(self) -> bool:
        """Render depth in training, too, where the teachers' depths are taught."""
        return super().renders_depth() or self.config.lambda_depth > 0

    def build_strategy(self) -> CappedStrategy:
        """Return splatfacto's densification for a student that starts from points, and none for the other."""
        strategy = super().build_strategy()
        if self.config.start_from == "teacher":
            strategy.refine_stop_iter = 0
        return strategy

    def before_training(self, trainer: Any) -> None:
        """Meet the teachers, and begin as the standard one if that is asked for."""
        config, steps = self.config, trainer.config.max_num_iterations
        self.teaching, config.teacher_frame = meet_teachers(self, trainer.pipeline.datamanager, steps)
        ensemble = self.teaching.labels.ensemble
        self.gallery.meet(ensemble)
        self.controls.target = self.teaching.pruning.target
        if trainer._start_step == 0 and config.start_from == "teacher":
            self.set_gaussians(self.first_gaussians(ensemble).to_splatfacto(config.sh_degree))

    def first_gaussians(self, ensemble: TeacherEnsemble) -> Gaussians:
        """Return what a student starts with that does not start from points.

        Raises:
            SystemExit: if it cannot be read.
        """
        if self.config.start_with is None:
            return standard_of(ensemble.teachers).gaussians
        try:
            return read_teacher(self.config.start_with).gaussians
        except ValueError as error:
            raise SystemExit(f"--pipeline.model.start-with: {error}") from None

    def active_sh_degree(self) -> int:
        """A student that starts from a teacher has all degrees of spherical harmonics from the first step."""
        return self.config.sh_degree if self.config.start_from == "teacher" else super().active_sh_degree()

    def training_view(self, camera: Cameras) -> View:
        """Return the view of the step's lesson: the photo's, or in some steps a virtual one (see `step.Teaching`)."""
        assert camera.metadata is not None
        lesson = self.teaching.begin(self, int(camera.metadata["cam_idx"]))
        return downscaled(lesson.view, self._get_downscale_factor())

    def image_losses(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the losses of the step's lesson; in evaluation that by the photo."""
        return self.teaching.losses(self, outputs, batch) if self.training else super().image_losses(outputs, batch)

    def step_post_backward(self, step: int) -> None:
        """Densify while that is on, and prune when it is due."""
        super().step_post_backward(step)
        self.teaching.finish(self, step)

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Add how far labels are trusted."""
        metrics = super().get_metrics_dict(outputs, batch)
        if self.training and metrics and self.teaching.uses_labels:
            trust = self.teaching.trust
            metrics["label_trust"] = torch.tensor(trust.value)
            metrics["label_trust_between"] = torch.tensor(trust.value * trust.overfit)
        return metrics

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
