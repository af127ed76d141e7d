"""The six tensors of a splat, with their units and shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

SH_DEGREE_0 = 0.28209479177387814
"""The constant of the zeroth real spherical harmonic: colour = 0.5 + SH_DEGREE_0 * sh_dc."""


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians in the form in which they are optimised and stored.

    Attributes:
        means: centres in world units, [N, 3].
        quats: rotations (w, x, y, z), not normalised, [N, 4].
        log_scales: natural logarithm of the three standard deviations in world units, [N, 3].
        logit_opacities: inverse sigmoid of the opacities, [N].
        sh_dc: spherical-harmonics coefficients of degree 0, [N, 3].
        sh_rest: coefficients of degree 1 and up, [N, (degree + 1)^2 - 1, 3].
    """

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    logit_opacities: Tensor
    sh_dc: Tensor
    sh_rest: Tensor

    @classmethod
    def from_splatfacto(cls, parameters: Mapping[str, Tensor]) -> Gaussians:
        """Read nerfstudio's `gauss_params` (means, quats, scales, opacities, features_dc, features_rest).

        A splatfacto of `sh_degree` 0 has no `features_rest`, and its colours are sigmoids of `features_dc`. They are
        converted to coefficients of degree 0, so every splat renders in the same way.
        """
        sh_dc, sh_rest = parameters["features_dc"], parameters["features_rest"]
        if sh_rest.shape[1] == 0:
            sh_dc = (torch.sigmoid(sh_dc) - 0.5) / SH_DEGREE_0
        return cls(
            means=parameters["means"],
            quats=parameters["quats"],
            log_scales=parameters["scales"],
            logit_opacities=parameters["opacities"].squeeze(-1),
            sh_dc=sh_dc,
            sh_rest=sh_rest,
        )

    def to_splatfacto(self, sh_degree: int) -> dict[str, Tensor]:
        """Return the Gaussians by nerfstudio's names, with coefficients of exactly `sh_degree`.

        Coefficients of higher degrees are removed, and missing ones are zero; see `from_splatfacto` for degree 0.
        """
        wanted = (sh_degree + 1) ** 2 - 1
        sh_rest = self.sh_rest[:, :wanted]
        if sh_rest.shape[1] < wanted:
            sh_rest = torch.cat((sh_rest, sh_rest.new_zeros(len(self), wanted - sh_rest.shape[1], 3)), dim=1)
        colors = self.sh_dc * SH_DEGREE_0 + 0.5
        return {
            "means": self.means,
            "quats": self.quats,
            "scales": self.log_scales,
            "opacities": self.logit_opacities[:, None],
            "features_dc": self.sh_dc if sh_degree > 0 else torch.logit(colors, eps=1e-4),
            "features_rest": sh_rest,
        }

    def __len__(self) -> int:
        return self.means.shape[0]

    def __getitem__(self, chosen: Tensor) -> Gaussians:
        """Return the Gaussians chosen by a boolean mask [N] or an index tensor [M]."""
        return Gaussians(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def to(self, device: torch.device | str) -> Gaussians:
        """Return the same Gaussians on another device."""
        return Gaussians(*(getattr(self, field.name).to(device) for field in fields(self)))

    def centred(self, centre: Tensor, size: float) -> Gaussians:
        """Return the splat in other units: x -> (x - centre) / size, computed in float64.

        Args:
            centre: the new origin, [3].
            size: the new unit of length, positive.
        """
        means = (self.means.double() - centre.to(self.means.device)) / size
        log_scales = self.log_scales.double() - math.log(size)
        return replace(self, means=means.float(), log_scales=log_scales.float())

    def detach(self) -> Gaussians:
        """Return the same Gaussians, detached from gradients."""
        return Gaussians(*(getattr(self, field.name).detach() for field in fields(self)))

    @property
    def sh_degree(self) -> int:
        """The highest degree of the spherical harmonics."""
        return round((self.sh_rest.shape[1] + 1) ** 0.5) - 1

    @property
    def sh(self) -> Tensor:
        """All coefficients, [N, (degree + 1)^2, 3]."""
        return torch.cat((self.sh_dc[:, None, :], self.sh_rest), dim=1)
