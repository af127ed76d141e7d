"""Render Gaussians from a camera. Only this module calls gsplat's rasterizer and our own."""

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
    """A render.

    Attributes:
        color: sum of colour times blending weight, plus the background that shows through if there is one, [H, W, 3].
        alpha: sum of the blending weights, [H, W, 1].
        depth: expected depth in world units, [H, W, 1]; None if it was not rendered.
        info: the rasterizer's data for densification.
    """

    color: Tensor
    alpha: Tensor
    depth: Optional[Tensor]
    info: dict[str, Any]

    def over(self, background: Tensor) -> Tensor:
        """Composite a render without background over a colour [3]; return colours in [0, 1], [H, W, 3]."""
        return torch.clamp(self.color + (1 - self.alpha) * background, 0.0, 1.0)


def rasterizer_for(device: torch.device) -> Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]:
    """Return the device's `rasterization`: gsplat's on CUDA, elsewhere our own with the same signature.

    The first call compiles or loads the kernels, which can take minutes. Make it in the main thread.

    Raises:
        ValueError: if gsplat's kernels can be neither loaded nor compiled.
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
    """Return the coefficients for a rasterizer: for our own the two stored tensors, for gsplat's one joined tensor."""
    ours = rasterizer.__module__.startswith("distilled_splat.")
    return (gaussians.sh_dc, gaussians.sh_rest) if ours else gaussians.sh


def camera_arguments(view: View, antialiased: bool) -> dict[str, Any]:
    """Return a rasterizer's arguments for a camera: pose, intrinsics, size, splatfacto's clipping planes, and mode."""
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
    """Render Gaussians from one view. Differentiable with respect to all tensors of the Gaussians and the view.

    Args:
        gaussians: what to render.
        view: the camera.
        background: colour [3] behind everything; None: black, for compositing later.
        sh_degree: highest degree of spherical harmonics to evaluate; None: all.
        opacity_factors: factors of the opacities, [N]; a product above 1 saturates in the Gaussian's middle.
        depth: also render the expected depth.
        antialiased: compensate the opacities for the 0.3 pixel blur (Mip-Splatting's 2D filter).
        absgrad: after the backward pass `info["means2d"].absgrad` has the sums of absolute gradients.
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
    # the gradient of squeeze is a view; the gradient of an index is a copy into zeros
    colors, alpha = colors.squeeze(0), alpha.squeeze(0)
    if not depth:
        return Rendered(colors, alpha, None, info)
    return Rendered(colors[..., :3], alpha, colors[..., 3:4], info)
