"""Render Gaussians from a camera: the only file that knows gsplat's rasterizer or our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Optional

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from distilled_splat.gaussians import Gaussians

NEAR_PLANE, FAR_PLANE = 0.01, 1e10
"""splatfacto's clipping planes, in world units."""


@dataclass(frozen=True)
class View:
    """One pinhole camera at one resolution.

    Attributes:
        viewmat: world-to-camera matrix, OpenCV axes (x right, y down, z forward), [4, 4].
        K: intrinsics in pixels, [3, 3].
        width: image width in pixels.
        height: image height in pixels.
    """

    viewmat: Tensor
    K: Tensor
    width: int
    height: int


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


def world_to_camera(camera_to_world: Tensor) -> Tensor:
    """Invert nerfstudio's camera-to-world (OpenGL axes, [3, 4] or [4, 4]) into an OpenCV world-to-camera [4, 4]."""
    flip_y_and_z = camera_to_world.new_tensor([1.0, -1.0, -1.0])
    world_to_camera_rotation = (camera_to_world[:3, :3] * flip_y_and_z).T
    translation = -world_to_camera_rotation @ camera_to_world[:3, 3:4]
    last_row = camera_to_world.new_tensor([[0.0, 0.0, 0.0, 1.0]])
    return torch.cat((torch.cat((world_to_camera_rotation, translation), dim=1), last_row))


def downscaled(view: View, factor: int) -> View:
    """Return the view at a resolution `factor` times smaller, as nerfstudio averages photos down."""
    if factor == 1:
        return view
    K = torch.cat((view.K[:2] / factor, view.K[2:]))
    return View(view.viewmat, K, view.width // factor, view.height // factor)


def view_of(camera: Cameras, camera_to_world: Optional[Tensor] = None, downscale: int = 1) -> View:
    """Turn one nerfstudio camera into a View.

    Args:
        camera: nerfstudio cameras of shape [1].
        camera_to_world: a pose to use instead of the camera's own (an optimised one), [3, 4].
        downscale: integer factor by which the image is smaller than the photo.

    Raises:
        ValueError: if the camera is neither a perspective one nor a fisheye whose photos nerfstudio undistorts.
    """
    kind = int(camera.camera_type.flatten()[0])
    if kind != CameraType.PERSPECTIVE.value and not is_undistorted_fisheye(camera):
        raise ValueError(
            f"This camera is of type {CameraType(kind).name}, and Gaussians are rendered through pinhole cameras only: "
            "undistort the images (ns-process-data does) or leave these cameras out."
        )
    pose = camera.camera_to_worlds[0] if camera_to_world is None else camera_to_world
    K = camera.get_intrinsics_matrices()[0].to(pose.device)
    return downscaled(View(world_to_camera(pose), K, int(camera.width), int(camera.height)), downscale)


def is_undistorted_fisheye(camera: Cameras) -> bool:
    """Tell whether nerfstudio's datamanager has made a pinhole of a fisheye; the camera's type stays what it was."""
    kinds = (CameraType.FISHEYE.value, CameraType.FISHEYE624.value)
    distortion = camera.distortion_params
    return int(camera.camera_type.flatten()[0]) in kinds and distortion is not None and bool(distortion.any())


def rasterizer_for(device: torch.device) -> Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]:
    """Return gsplat's `rasterization` on a CUDA device, and on any other our own of the same signature."""
    if device.type == "cuda":
        from gsplat.rendering import rasterization
    else:
        from distilled_splat.cpu.rasterization import rasterization
    return rasterization


def stored_or_joined(gaussians: Gaussians, rasterizer: Callable[..., Any]) -> Tensor | tuple[Tensor, Tensor]:
    """Return the coefficients as a rasterizer takes them: our own as they are stored, gsplat's joined in one tensor."""
    ours = rasterizer.__module__.startswith("distilled_splat.")
    return (gaussians.sh_dc, gaussians.sh_rest) if ours else gaussians.sh


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
        viewmats=view.viewmat[None],
        Ks=view.K[None],
        width=view.width,
        height=view.height,
        near_plane=NEAR_PLANE,
        far_plane=FAR_PLANE,
        packed=False,
        backgrounds=None if background is None else background[None],
        sh_degree=gaussians.sh_degree if sh_degree is None else sh_degree,
        render_mode="RGB+ED" if depth else "RGB",
        absgrad=absgrad,
        rasterize_mode="antialiased" if antialiased else "classic",
    )
    # squeeze, whose gradient is a view; that of an index is a copy into zeros
    colors, alpha = colors.squeeze(0), alpha.squeeze(0)
    if not depth:
        return Rendered(colors, alpha, None, info)
    return Rendered(colors[..., :3], alpha, colors[..., 3:4], info)


def removal_effects(
    gaussians: Gaussians, view: View, signs: Tensor, background: Optional[Tensor] = None, antialiased: bool = False
) -> Tensor:
    """Estimate by how much the picture would change without each Gaussian: its squared difference, [N].

    A picture is linear in the opacity of any one Gaussian; so opacity times gradient is what its removal takes away,
    pixel by pixel, seen from behind as well (a Gaussian before others of its own colour is not missed). Under random
    signs s the expectation of (s . difference)^2 is the sum of the squared differences over pixels and channels.

    Args:
        gaussians: the splat.
        view: the camera.
        signs: independent random numbers -1 and 1, [H, W, 3].
        background: colour [3] behind everything, black if None: what is of that colour is not missed where nothing is
            behind it.
        antialiased: see `render`.
    """
    still = Gaussians(*(getattr(gaussians, field.name).detach() for field in fields(gaussians)))
    factors = torch.ones(len(gaussians), device=still.means.device, requires_grad=True)
    with torch.enable_grad():
        rendered = render(still, view, background=background, opacity_factors=factors, antialiased=antialiased)
        (differences,) = torch.autograd.grad((rendered.color * signs).sum(), factors)
    return differences**2


def blending_weights(gaussians: Gaussians, view: View, antialiased: bool = False) -> Tensor:
    """Sum each Gaussian's blending weight over all pixels of a view, [N] (Mini-Splatting's importance).

    A pixel's colour is linear in the Gaussians' colours with the blending weights as factors; so the gradient of
    the summed image with respect to one colour per Gaussian is that sum, with any rasterizer.
    """
    colors = torch.ones(len(gaussians), 1, device=gaussians.means.device, requires_grad=True)
    with torch.enable_grad():
        image, _, _ = rasterizer_for(colors.device)(
            means=gaussians.means.detach(),
            quats=gaussians.quats.detach(),
            scales=torch.exp(gaussians.log_scales.detach()),
            opacities=torch.sigmoid(gaussians.logit_opacities.detach()),
            colors=colors,
            viewmats=view.viewmat[None],
            Ks=view.K[None],
            width=view.width,
            height=view.height,
            near_plane=NEAR_PLANE,
            far_plane=FAR_PLANE,
            packed=False,
            rasterize_mode="antialiased" if antialiased else "classic",
        )
        (weights,) = torch.autograd.grad(image.sum(), colors)
    return weights[:, 0]
