"""Render Gaussians from a camera: the only file that knows gsplat's rasterizer or our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians

NEAR_PLANE, FAR_PLANE = 0.01, 1e10
"""splatfacto's clipping planes, in world units."""


class Rendered(NamedTuple):
    """What a camera sees.

    `color` is the sum of colour times blending weight [H, W, 3], with what shows of the background if `render` was
    given one; `alpha` is the sum of the weights [H, W, 1], `depth` the expected depth in world units [H, W, 1] or None,
    `info` the rasterizer's account for densification.
    """

    color: Tensor
    alpha: Tensor
    depth: Optional[Tensor]
    info: dict[str, Any]

    def over(self, background: Tensor) -> Tensor:
        """Composite what was rendered without a background over one [3]; returns colours in [0, 1], [H, W, 3]."""
        return torch.clamp(self.color + (1 - self.alpha) * background, 0.0, 1.0)


def rasterizer_for(device: torch.device) -> Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]:
    """Return gsplat's `rasterization` on a CUDA device, and on any other our own of the same signature.

    The first call gets the kernels ready, which can take minutes: make it in the main thread.

    Raises:
        ValueError: if gsplat's kernels cannot be had.
    """
    if device.type == "cuda":
        from distilled_splat.ops.toolchain import fault_of_kernels

        fault = fault_of_kernels()
        if fault is not None:
            raise ValueError(fault)
        from gsplat.rendering import rasterization
    else:
        from distilled_splat.cpu.rasterize import rasterization
    return rasterization


def stored_or_joined(gaussians: Gaussians, rasterizer: Callable[..., Any]) -> Tensor | tuple[Tensor, Tensor]:
    """Return the coefficients as a rasterizer takes them: our own as they are stored, gsplat's joined in one tensor."""
    ours = rasterizer.__module__.startswith("distilled_splat.")
    return (gaussians.sh_dc, gaussians.sh_rest) if ours else gaussians.sh


def camera_arguments(view: View, antialiased: bool) -> dict[str, Any]:
    """Return what every rasterizer is told of a camera: its pose, lens and size, splatfacto's planes, and the mode."""
    return {
        "viewmats": view.viewmat[None],
        "Ks": view.K[None],
        "width": view.width,
        "height": view.height,
        "near_plane": NEAR_PLANE,
        "far_plane": FAR_PLANE,
        "packed": False,
        "rasterize_mode": "antialiased" if antialiased else "classic",
    }


def render(
    gaussians: Gaussians,
    view: View,
    *,
    background: Optional[Tensor] = None,
    sh_degree: Optional[int] = None,
    opacity_factors: Optional[Tensor] = None,
    depth: bool = False,
    antialiased: bool = False,
    absgrad: bool = False,
) -> Rendered:
    """Render Gaussians from one view; differentiable in every tensor of both.

    Args:
        gaussians: what to render.
        view: the camera.
        background: colour [3] behind everything; None leaves what is transparent black, to be composited later.
        sh_degree: highest degree of spherical harmonics to evaluate; None takes all there are.
        opacity_factors: what to multiply the opacities by, [N]; a product above 1 saturates in the Gaussian's middle.
        depth: also render the expected depth.
        antialiased: compensate the opacities for the 0.3 pixel blur (Mip-Splatting's 2D filter).
        absgrad: let `info["means2d"].absgrad` hold the sums of absolute gradients after the backward pass.
    """
    opacities = torch.sigmoid(gaussians.logit_opacities)
    rasterizer = rasterizer_for(gaussians.means.device)
    colors, alpha, info = rasterizer(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=torch.exp(gaussians.log_scales),
        opacities=opacities if opacity_factors is None else opacities * opacity_factors,
        colors=stored_or_joined(gaussians, rasterizer),
        backgrounds=None if background is None else background[None],
        sh_degree=gaussians.sh_degree if sh_degree is None else sh_degree,
        render_mode="RGB+ED" if depth else "RGB",
        absgrad=absgrad,
        **camera_arguments(view, antialiased),
    )
    # squeeze, whose gradient is a view; that of an index is a copy into zeros
    colors, alpha = colors.squeeze(0), alpha.squeeze(0)
    if not depth:
        return Rendered(colors, alpha, None, info)
    return Rendered(colors[..., :3], alpha, colors[..., 3:4], info)
