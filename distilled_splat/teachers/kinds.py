"""The teachers: plain splatfacto, perturbed by noise, or regularised by dropout (Distilled-3DGS, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Optional

import torch
from torch import Tensor
from torch.nn.functional import normalize

from distilled_splat.ops.quaternions import normalized_quat_to_rotmat, quaternion_product, small_random_rotation
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.training.model import PortableSplatfactoModel, PortableSplatfactoModelConfig

Variant = Literal["standard", "perturbed", "dropout"]
VARIANTS: tuple[Variant, ...] = ("standard", "perturbed", "dropout")


@dataclass
class TeacherModelConfig(PortableSplatfactoModelConfig):
    """A teacher of one of the three kinds."""

    _target: type = field(default_factory=lambda: TeacherModel)
    variant: Variant = "standard"
    """Kind of teacher: plain splatfacto, noise on the Gaussians with the largest gradients, or dropout of Gaussians."""
    perturb_start: int = 500
    """perturbed: step of the first noise."""
    perturb_stop: int = 15000
    """perturbed: last step that may get noise."""
    perturb_every: int = 500
    """perturbed: steps between two applications of noise."""
    perturb_fraction: float = 0.2
    """perturbed: fraction of the Gaussians that gets noise, those with the largest view-space gradient."""
    position_noise: float = 0.3
    """perturbed: standard deviation of the noise on a centre, in units of the Gaussian's own standard deviations."""
    rotation_noise: float = 0.05
    """perturbed: standard deviation of the noise on each of the six numbers of the rotation's 6D form."""
    log_scale_noise: float = 0.1
    """perturbed: standard deviation of the noise on the logarithm of each scale."""
    logit_opacity_noise: float = 0.2
    """perturbed: standard deviation of the noise on the logit of the opacity."""
    dropout_rate: float = 0.2
    """dropout: probability of dropping a Gaussian at dropout-stop; it rises linearly from 0 at dropout-start."""
    dropout_start: int = 500
    """dropout: first step with dropout."""
    dropout_stop: int = 15000
    """dropout: last step with dropout."""
    dropout_compensation: bool = False
    """dropout: divide the remaining opacities by 1 - rate, as DropGaussian does. Off by default: opaque surfaces
    saturate instead of compensating for the holes, and the teacher is 4 dB worse; see docs/trials.md."""

    step_fields: ClassVar[tuple[str, ...]] = (
        *PortableSplatfactoModelConfig.step_fields,
        "perturb_start", "perturb_stop", "perturb_every", "dropout_start", "dropout_stop",
    )  # fmt: skip


class TeacherModel(PortableSplatfactoModel):
    """Splatfacto with the perturbation or the dropout of a Distilled-3DGS teacher."""

    config: TeacherModelConfig

    def opacity_factors(self) -> Optional[Tensor]:
        """Return the dropout factors of this step's render; None for other kinds of teacher and other steps."""
        config = self.config
        if config.variant != "dropout" or not config.dropout_start <= self.step <= config.dropout_stop:
            return None
        rate = dropout_probability(self.step, config.dropout_start, config.dropout_stop, config.dropout_rate)
        return dropout_factors(self.opacities[:, 0], rate, config.dropout_compensation)

    def step_post_backward(self, step: int) -> None:
        """Perturb at the steps that get noise, by the gradients gathered so far; then densify and prune."""
        config = self.config
        if (
            config.variant == "perturbed"
            and config.perturb_start <= step <= config.perturb_stop
            and (step - config.perturb_start) % config.perturb_every == 0
        ):
            self.perturb()
        super().step_post_backward(step)

    @torch.no_grad()
    def perturb(self) -> None:
        """Add noise to the Gaussians with the largest mean view-space gradient since the last densification."""
        config, state = self.config, self.strategy_state
        gradient, count = state["grad2d"], state["count"]
        if gradient is None or int((count > 0).sum()) == 0:
            return
        gradient = gradient / count.clamp_min(1)
        chosen = gradient.topk(max(round(config.perturb_fraction * self.num_points), 1)).indices
        noisy = perturbed(
            self.gaussians()[chosen],
            position=config.position_noise,
            rotation=config.rotation_noise,
            log_scale=config.log_scale_noise,
            logit_opacity=config.logit_opacity_noise,
        )
        self.means.data[chosen] = noisy.means
        self.quats.data[chosen] = noisy.quats
        self.scales.data[chosen] = noisy.log_scales
        self.opacities.data[chosen, 0] = noisy.logit_opacities


def dropout_probability(step: int, start: int, stop: int, rate: float) -> float:
    """Return r_t = rate (t - start) / (stop - start), Distilled-3DGS's rate of dropout at step t in [start, stop]."""
    return rate * (step - start) / max(stop - start, 1)


def dropout_factors(opacities: Tensor, rate: float, compensate: bool) -> Tensor:
    """Draw the factors that drop each Gaussian with probability `rate`, [N].

    A dropped Gaussian has factor 0 and gets no gradient. With `compensate` the others have 1 / (1 - rate) as in
    DropGaussian (arXiv 2504.00773), otherwise 1.

    Args:
        opacities: a tensor of the factors' shape and device.
        rate: probability of dropping a Gaussian, below 1.
        compensate: whether to keep the expected opacity.
    """
    kept = (torch.rand_like(opacities) >= rate).to(opacities.dtype)
    return kept / (1 - rate) if compensate else kept


def perturbed(
    gaussians: Gaussians, position: float, rotation: float, log_scale: float, logit_opacity: float
) -> Gaussians:
    """Add Gaussian noise to centres, rotations, scales and opacities (Distilled-3DGS, section 3.2).

    The paper gives neither distribution nor size. Noise in world units would destroy small Gaussians and leave large
    ones unchanged, so a centre moves in units of its own Gaussian's extent, along its own axes.

    Args:
        gaussians: what to perturb.
        position: standard deviation of a centre's step, in units of the Gaussian's standard deviations.
        rotation: standard deviation of the noise on each number of the rotation's 6D form (Zhou et al. 2019).
        log_scale: standard deviation of the noise on each log scale.
        logit_opacity: standard deviation of the noise on the logit of the opacity.
    """
    quats = normalize(gaussians.quats, dim=-1)
    step = position * torch.exp(gaussians.log_scales) * torch.randn_like(gaussians.means)
    return replace(
        gaussians,
        means=gaussians.means + (normalized_quat_to_rotmat(quats) @ step[..., None])[..., 0],
        quats=quaternion_product(quats, small_random_rotation(len(gaussians), rotation, quats)),
        log_scales=gaussians.log_scales + log_scale * torch.randn_like(gaussians.log_scales),
        logit_opacities=gaussians.logit_opacities + logit_opacity * torch.randn_like(gaussians.logit_opacities),
    )
