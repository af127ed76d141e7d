"""The importance of each Gaussian for the pictures of views: by one backward pass, with any rasterizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Optional

import torch
from torch import Tensor

from distilled_splat.ops.render import camera_arguments, rasterizer_for, render
from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians


def removal_effects(
    gaussians: Gaussians, view: View, signs: Tensor, background: Optional[Tensor] = None, antialiased: bool = False
) -> Tensor:
    """Estimate the squared change of the picture if each Gaussian were removed, [N].

    A picture is linear in the opacity of a single Gaussian. So opacity times gradient is the change of each pixel when
    the Gaussian is removed. What is behind the Gaussian counts: one before others of its own colour has no effect.
    With random signs s, the expectation of (s . difference)^2 is the sum of the squared differences over pixels and
    channels.

    Args:
        gaussians: the splat.
        view: the camera.
        signs: independent random numbers -1 and 1, [H, W, 3].
        background: colour [3] behind everything, black if None. A Gaussian of this colour has no effect where nothing
            else is behind it.
        antialiased: see `render`.
    """
    still = gaussians.detach()
    factors = torch.ones(len(gaussians), device=still.means.device, requires_grad=True)
    with torch.enable_grad():
        rendered = render(still, view, background=background, opacity_factors=factors, antialiased=antialiased)
        (differences,) = torch.autograd.grad((rendered.color * signs).sum(), factors)
    return differences**2


def blending_weights(gaussians: Gaussians, view: View, antialiased: bool = False) -> Tensor:
    """Sum each Gaussian's blending weight over all pixels of a view, [N] (Mini-Splatting's importance).

    A pixel's colour is linear in the Gaussians' colours, with the blending weights as factors. So this sum is the
    gradient of the summed image with respect to one colour per Gaussian, with any rasterizer.
    """
    still = gaussians.detach()
    colors = torch.ones(len(still), 1, device=still.means.device, requires_grad=True)
    with torch.enable_grad():
        image, _, _ = rasterizer_for(colors.device)(
            means=still.means,
            quats=still.quats,
            scales=torch.exp(still.log_scales),
            opacities=torch.sigmoid(still.logit_opacities),
            colors=colors,
            **camera_arguments(view, antialiased),
        )
        (weights,) = torch.autograd.grad(image.sum(), colors)
    return weights[:, 0]


Measure = Literal["removal", "weight"]


def importance(
    gaussians: Gaussians,
    views: Iterable[View],
    background: Callable[[], Tensor],
    measure: Measure = "removal",
    antialiased: bool = False,
) -> Tensor:
    """Sum the importance of each Gaussian over views, [N].

    Args:
        gaussians: the splat.
        views: the training views.
        background: returns the colour [3] behind everything; called for each view, because the colour may be random.
        measure: "removal", the squared change of the pictures if the Gaussian were removed; or "weight", the
            accumulated blending weight (Mini-Splatting, the paper).
        antialiased: see `render.render`.
    """
    total = torch.zeros(len(gaussians), device=gaussians.means.device)
    for view in views:
        if measure == "weight":
            total += blending_weights(gaussians, view, antialiased)
        else:
            signs = 2.0 * torch.randint(2, (view.height, view.width, 3), device=total.device) - 1
            total += removal_effects(gaussians, view, signs, background(), antialiased)
    return total
