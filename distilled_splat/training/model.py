"""Splatfacto on any device, resumable: the base of teachers and student."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.model_components.lib_bilagrid import total_variation_loss
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from distilled_splat.ops.densify import CappedStrategy
from distilled_splat.ops.losses import photometric_losses
from distilled_splat.ops.render import Rendered, rasterizer_for, render
from distilled_splat.ops.views import View, view_of
from distilled_splat.splat.gaussians import SH_DEGREE_0, Gaussians
from distilled_splat.splat.ply import ply_megabytes
from distilled_splat.training.lpips import LazyLpips, nothing_downloaded
from distilled_splat.training.memory import (
    COPIES_IN_CHECKPOINT,
    COPIES_IN_TRAINING,
    REMEDIES,
    available_bytes,
    check_memory,
    gaussian_bytes,
)
from distilled_splat.training.points import LEAST_LOG_SCALE

GAUSSIAN_PARAMETERS = ("means", "scales", "quats", "features_dc", "features_rest", "opacities")
STEPS_PER_PSNR = 10
"""nerfstudio logs metrics every tenth step by default; a PSNR in other steps would not be used."""


@dataclass
class PortableSplatfactoModelConfig(SplatfactoModelConfig):
    """splatfacto's options; every step number refers to a run of `schedule_length` steps."""

    _target: type = field(default_factory=lambda: PortableSplatfactoModel)
    cull_alpha_thresh: float = 0.005
    """Opacity below which a Gaussian is removed while the splat is densified."""
    densify_grad_thresh: float = 0.0006
    """View-space gradient (absolute, see use-absgrad) above which a Gaussian is duplicated or split."""
    num_downscales: int = 0
    """Training starts at 1 / 2^this of the photos' resolution; see resolution-schedule."""
    reset_alpha_every: int = 30
    """While the splat is densified, reset its opacities every this many times refine-every steps: every 3000 steps.
    This interval does not scale with the run, because recovery takes as long in a short run. A run of 6000 steps or
    fewer has no reset but that at the start."""
    reset_at_start: bool = True
    """Reset the opacities after the first step, as gsplat does: to twice cull-alpha-thresh. This is good for random
    first Gaussians, and bad for a good point cloud."""
    schedule_length: int = 30000
    """Length of the run that the step numbers here refer to. A run with another --max-num-iterations scales them in
    proportion. Set this to --max-num-iterations to use them as written."""
    min_refine_every: int = 100
    """Smallest densification interval of a short run (or refine-every, if that is less)."""
    max_gaussians: Optional[int] = None
    """Largest number of Gaussians; densification stops there. No limit by default."""

    step_fields: ClassVar[tuple[str, ...]] = (
        "warmup_length", "resolution_schedule", "sh_degree_interval", "stop_screen_size_at", "stop_split_at",
    )  # fmt: skip
    """Fields that hold step numbers, which are scaled with the run."""

    def lr_powers(self) -> dict[str, float]:
        """Return the powers of `schedule_length` / n that multiply learning rates in a shorter run of n steps."""
        return {"means": 1.0, "quats": 0.5, "features_rest": 0.5}


class PortableSplatfactoModel(SplatfactoModel):
    """Splatfacto that trains and renders on a CPU or a GPU, and resumes where it stopped."""

    config: PortableSplatfactoModelConfig
    info: dict[str, Any]

    def populate_modules(self) -> None:
        """Build parameters and metrics as splatfacto does, without its CUDA calls and downloads."""
        points = self.seed_points
        if points is not None and not self.config.random_init:
            # splatfacto would move the colours to CUDA; they are set below instead
            self.seed_points = (points[0], points[1][:0])
        try:
            with nothing_downloaded():
                super().populate_modules()
        finally:
            self.seed_points = points
        self.gauss_params["scales"].data.clamp_(min=LEAST_LOG_SCALE)
        del self.lpips
        self.lpips = LazyLpips()
        if points is not None and not self.config.random_init and len(points[1]) > 0:
            colors = points[1].float() / 255
            if self.config.sh_degree > 0:
                self.gauss_params["features_dc"].data = (colors - 0.5) / SH_DEGREE_0
            else:
                self.gauss_params["features_dc"].data = torch.logit(colors, eps=1e-10)
        get_rasterizer_ready(torch.device(self.kwargs["device"]))
        self.strategy = self.build_strategy()
        self.strategy_state = self.strategy.initialize_state(scene_scale=1.0)
        self.known_views: dict[tuple[int, int], View] = {}

    def build_strategy(self) -> CappedStrategy:
        """Return gsplat's densification with splatfacto's settings, without its messages.

        At the start and after an opacity reset splatfacto pauses for one pass over the photos. Here the pause is at
        most half the interval between resets: with very many photos there would never be any densification.
        """
        config = self.config
        reset_every = config.reset_alpha_every * config.refine_every
        pause = min(self.num_train_data + config.refine_every, reset_every // 2)
        return CappedStrategy(
            max_gaussians=config.max_gaussians,
            reset_at_start=config.reset_at_start,
            prune_opa=config.cull_alpha_thresh,
            grow_grad2d=config.densify_grad_thresh,
            grow_scale3d=config.densify_size_thresh,
            grow_scale2d=config.split_screen_size,
            prune_scale3d=config.cull_scale_thresh,
            prune_scale2d=config.cull_screen_size,
            refine_scale2d_stop_iter=config.stop_screen_size_at,
            refine_start_iter=config.warmup_length,
            refine_stop_iter=config.stop_split_at,
            reset_every=reset_every,
            refine_every=config.refine_every,
            pause_refine_after_reset=pause,
            absgrad=config.use_absgrad,
            revised_opacity=False,
            verbose=False,
        )

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Prepare for training (only the trainer calls this), then return splatfacto's callbacks."""
        self.before_training(training_callback_attributes.trainer)
        return super().get_training_callbacks(training_callback_attributes)

    def before_training(self, trainer: Any) -> None:
        """See that the memory is there, the photos being not loaded yet, and that every camera can be rendered.

        Raises:
            SystemExit: with the estimate of memory, or the type of the camera.
        """
        datamanager = trainer.pipeline.datamanager
        cameras = datamanager.train_dataset.cameras
        try:
            self.check_memory(datamanager, self.num_points, resumed=trainer._start_step > 0)
            for index in range(len(cameras)):
                view_of(cameras[index : index + 1])
        except ValueError as error:
            raise SystemExit(str(error)) from None

    def check_memory(self, datamanager: Any, count: int, resumed: bool = False, **more: int) -> int:
        """Print what training so many Gaussians needs at least.

        Args:
            datamanager: where the photos are, which need not be loaded yet.
            count: Gaussians.
            resumed: whether a checkpoint is loaded: its Gaussians and their moments are on the device already.
            more: bytes that are needed on the device besides.

        Returns:
            The bytes that are left on the device.

        Raises:
            ValueError: if that is not there.
        """
        needs = {"Gaussians": self.gaussian_bytes(count), **more}
        loaded = gaussian_bytes(self.num_points, self.config.sh_degree, COPIES_IN_CHECKPOINT) if resumed else 0
        photos = datamanager.make_room(sum(needs.values()) - loaded)
        if photos and datamanager.place == "cpu" and self.device.type != "cpu":
            check_memory({"photos": photos}, available_bytes("cpu"))
        elif photos:
            needs = {"photos": photos, **needs}
        remedies = {**REMEDIES, "Gaussians": self.fewer_gaussians(count)}
        return check_memory(needs, available_bytes(self.device) + loaded, self.device.type != "cpu", remedies)

    def gaussian_bytes(self, count: int) -> int:
        """Return what training takes for so many Gaussians, or for the most that there may be."""
        count = max(count, self.config.max_gaussians or 0)
        return gaussian_bytes(count, self.config.sh_degree, COPIES_IN_TRAINING)

    def fewer_gaussians(self, count: int) -> str:
        """Return how to train fewer Gaussians than `count`, or than the most that there may be."""
        limited = (self.config.max_gaussians or 0) > count
        return "fewer Gaussians (--pipeline.model.max-gaussians)" if limited else REMEDIES["Gaussians"]

    def rates_on(self, cameras: Cameras) -> dict[str, float]:
        """Return factors for the learning rates of parameter groups, for a capture with these cameras."""
        return {}

    def gaussians(self) -> Gaussians:
        """Return the parameters as Gaussians (the same tensors, with their gradients)."""
        return Gaussians.from_splatfacto(dict(self.gauss_params.items()))

    def set_gaussians(self, parameters: dict[str, Tensor]) -> None:
        """Set the values of the parameters that the optimizers hold, with any number of Gaussians."""
        for name in GAUSSIAN_PARAMETERS:
            value = parameters[name].to(self.device, torch.float32)
            self.gauss_params[name].data = value.clone(memory_format=torch.contiguous_format)

    def load_state_dict(self, dict: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Load a checkpoint of any number of Gaussians into the parameters that the optimizers already hold.

        splatfacto replaces the parameters, after which its optimizers train tensors that nothing renders
        (nerfstudio issue 3554). Weights of metrics in checkpoints of the stock method are ignored.
        """
        for name in GAUSSIAN_PARAMETERS:
            value = dict.get(f"gauss_params.{name}", dict.get(name))
            if value is not None:
                self.gauss_params[name].data = torch.empty_like(value, device=self.device)
                dict[f"gauss_params.{name}"] = value
        known = super(SplatfactoModel, self).state_dict().keys()
        return super(SplatfactoModel, self).load_state_dict(
            {key: value for key, value in dict.items() if key in known}, **kwargs
        )

    def training_state(self) -> dict[str, Any]:
        """Return what the model has gathered over many steps: the statistics of densification."""
        return {"strategy": {name: value for name, value in self.strategy_state.items() if value is not None}}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Take over what `training_state` returned."""
        for name, value in state["strategy"].items():
            self.strategy_state[name] = value.to(self.device).clone() if isinstance(value, Tensor) else value

    def active_sh_degree(self) -> int:
        """Return the current degree of spherical harmonics: rising in training, full otherwise."""
        if not self.training or self.config.sh_degree == 0:
            return self.config.sh_degree
        return min(self.step // self.config.sh_degree_interval, self.config.sh_degree)

    def opacity_factors(self) -> Optional[Tensor]:
        """Return factors for the opacities in a training step, [N], or None; subclasses override this."""
        return None

    def training_view(self, camera: Cameras) -> View:
        """Return the view that a training step renders: the photo's camera at the step's resolution."""
        factor = self._get_downscale_factor()
        if self.camera_optimizer.config.mode != "off" or camera.metadata is None or "cam_idx" not in camera.metadata:
            return view_of(camera, self.camera_optimizer.apply_to_camera(camera)[0], factor)
        place = (camera.metadata["cam_idx"], factor)
        if place not in self.known_views:
            self.known_views[place] = view_of(camera, downscale=factor)
        return self.known_views[place]

    def asked_view(self, camera: Cameras) -> View:
        """Return the view of a camera from ns-render or the viewer.

        Raises:
            SystemExit: if it is not a pinhole camera, after printing so.
        """
        try:
            return view_of(camera)
        except ValueError as error:
            CONSOLE.print(str(error), soft_wrap=True, markup=False)  # the viewer's thread would end without a message
            raise SystemExit(1) from None

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:
        """Render one camera as splatfacto does: keys rgb, depth, accumulation, background.

        Args:
            camera: nerfstudio cameras of shape [1], or [] in evaluation.
        """
        if not isinstance(camera, Cameras):
            return {}
        camera = camera.reshape((1,)) if camera.shape == () else camera
        view = self.training_view(camera) if self.training else self.asked_view(camera)
        self.last_size = (view.height, view.width)
        background = self._get_background_color()

        gaussians = self.gaussians()
        if self.crop_box is not None and not self.training:
            gaussians = self.cropped(gaussians)
            if len(gaussians) == 0:
                return self.get_empty_outputs(view.width, view.height, background)  # type: ignore[return-value]

        rendered = self.render_view(gaussians, view, background)
        rgb = torch.nn.functional.hardtanh(rendered.color, 0.0, 1.0)  # clamp, with a gradient in one pass
        if self.training:
            self.info = rendered.info
            if self.step < self.strategy.refine_stop_iter:
                self.strategy.step_pre_backward(
                    self.gauss_params, self.optimizers, self.strategy_state, self.step, self.info
                )
            if self.config.use_bilateral_grid and camera.metadata is not None and "cam_idx" in camera.metadata:
                rgb = self._apply_bilateral_grid(rgb[None], camera.metadata["cam_idx"], view.height, view.width)[0]
        return {
            "rgb": rgb,
            "depth": None if rendered.depth is None else far_where_empty(rendered.depth, rendered.alpha),
            "accumulation": rendered.alpha,
            "background": background if self.training else background.expand(view.height, view.width, 3),
        }

    def cropped(self, gaussians: Gaussians) -> Gaussians:
        """Return the Gaussians inside the viewer's crop box, or all without one."""
        if self.crop_box is None:
            return gaussians
        return gaussians[self.crop_box.within(gaussians.means).reshape(-1)]

    def render_view(self, gaussians: Gaussians, view: View, background: Tensor) -> Rendered:
        """Render Gaussians over a background colour [3] with this model's settings."""
        return render(
            gaussians,
            view,
            background=background,
            sh_degree=self.active_sh_degree(),
            opacity_factors=self.opacity_factors() if self.training else None,
            depth=self.renders_depth(),
            antialiased=self.config.rasterize_mode == "antialiased",
            absgrad=self.training and self.strategy.absgrad and self.step < self.strategy.refine_stop_iter,
        )

    def renders_depth(self) -> bool:
        """Whether to render depth too: in evaluation, and in training if the config says so."""
        return self.config.output_depth_during_training or not self.training

    def step_post_backward(self, step: int) -> None:
        """Densify and prune after a step with gsplat's strategy, while densification is on."""
        if step < self.strategy.refine_stop_iter:
            super().step_post_backward(step)

    def photo(self, batch: dict[str, Any], background: Tensor) -> Tensor:
        """Return a batch's photo at the step's resolution, over the step's background, [H, W, 3]."""
        return self.composite_with_background(self.get_gt_img(batch["image"]), background)

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the metrics of logged steps: the number of Gaussians and the PSNR."""
        if self.training and self.step % STEPS_PER_PSNR != 0:
            return {}
        with torch.no_grad():
            return super().get_metrics_dict(outputs, batch)

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: Optional[dict[str, Tensor]] = None
    ) -> dict[str, Tensor]:
        """Return splatfacto's losses."""
        losses = self.image_losses(outputs, batch)
        if self.config.use_scale_regularization and self.step % 10 == 0:
            scales = torch.exp(self.scales)
            ratio = scales.amax(dim=-1) / scales.amin(dim=-1)
            losses["scale_reg"] = 0.1 * torch.relu(ratio - self.config.max_gauss_ratio).mean()
        if self.training:
            self.camera_optimizer.get_loss_dict(losses)
            if self.config.use_bilateral_grid:
                losses["tv_loss"] = 10 * total_variation_loss(self.bil_grids.grids)
        return losses

    def image_losses(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the losses on the rendered image: here against the photo; subclasses add theirs."""
        (loss,) = self.losses_by(outputs["rgb"], batch, self.photo(batch, outputs["background"]))
        return {"main_loss": loss}

    def mask_of(self, batch: dict[str, Any]) -> Optional[Tensor]:
        """Return a batch's mask at the step's resolution, [H, W, 1], or None if it has none."""
        return self._downscale_if_required(batch["mask"]) if "mask" in batch else None

    def losses_by(self, rendered: Tensor, batch: dict[str, Any], *targets: Tensor) -> list[Tensor]:
        """Return L_color of a render against each target [H, W, 3]; all are black where the batch's mask is 0."""
        mask = self.mask_of(batch)
        if mask is not None:
            rendered, targets = rendered * mask, tuple(target * mask for target in targets)
        return photometric_losses(rendered, *targets, ssim_weight=self.config.ssim_lambda)

    def get_image_metrics_and_images(
        self, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return splatfacto's metrics and pictures of one evaluation view, with the size of the splat.

        `gaussian_count` counts Gaussians; `megabytes` is their size as an exported .ply, in 10^6 bytes.
        """
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        metrics = {name: value for name, value in metrics.items() if not math.isnan(value)}
        metrics["gaussian_count"] = float(self.num_points)
        metrics["megabytes"] = ply_megabytes(self.num_points, self.config.sh_degree)
        return metrics, images


def get_rasterizer_ready(device: torch.device) -> None:
    """Import or compile a device's rasterizer in the main thread.

    The viewer interrupts its renders anywhere, and a half-imported numba stays broken. If there is no rasterizer, the
    message says so; a model that is only exported does not need one.
    """
    try:
        rasterizer_for(device)
    except ValueError as error:
        CONSOLE.print(f"This machine cannot render: {error}", soft_wrap=True, markup=False)


def far_where_empty(depth: Tensor, alpha: Tensor) -> Tensor:
    """Give pixels that no Gaussian covers the largest depth in the image, as splatfacto does; [H, W, 1]."""
    return torch.where(alpha > 0, depth, depth.detach().max())
