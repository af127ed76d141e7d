"""gsplat's own rasterization on the sham device, against the plugin's on the CPU, through distilled_splat.ops.render.

The scenes have pixels whose alpha lies on a cutoff to within rounding, which one of the two draws and the other does
not. Where the two disagree about a pixel it is left out, and there may be very few of them.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple, Optional

import pytest
import torch
from scenes import dense_scene, splat_and_view
from torch import Tensor

from distilled_splat.ops.importance import blending_weights, removal_effects
from distilled_splat.ops.render import Rendered, rasterizer_for, render
from distilled_splat.ops.views import View
from distilled_splat.splat.gaussians import Gaussians
from sham_cuda.device import CPU, CUDA, ShamTensor

TOLERANCE = 1e-5
CUTOFF = 1e-3
"""A pixel's colours differ by more than this only where a Gaussian at a cutoff is drawn by one of the two."""
NAMES = tuple(field.name for field in fields(Gaussians))
BACKGROUND = (0.2, 0.5, 0.8)


class Seen(NamedTuple):
    """A render with every gradient, back on the CPU."""

    images: dict[str, Tensor]
    gradients: dict[str, Optional[Tensor]]
    info: dict[str, Any]


def leaves_on(gaussians: Gaussians, device: torch.device) -> Gaussians:
    return Gaussians(*(getattr(gaussians, name).to(device).detach().clone().requires_grad_() for name in NAMES))


def view_on(view: View, device: torch.device) -> View:
    return replace(view, viewmat=view.viewmat.to(device), K=view.K.to(device))


def of_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    return replace(gaussians, sh_rest=gaussians.sh_rest[:, : (degree + 1) ** 2 - 1])


def images_of(rendered: Rendered) -> dict[str, Tensor]:
    images = {"color": rendered.color, "alpha": rendered.alpha}
    return images if rendered.depth is None else {**images, "depth": rendered.depth}


def draw(gaussians: Gaussians, view: View, device: torch.device, counted: Tensor, **options: Any) -> Seen:
    """Render on a device and pull random cotangents back from the pixels that count [H, W, 1]."""
    splat, view = leaves_on(gaussians, device), view_on(view, device)
    viewmat = view.viewmat.detach().clone().requires_grad_()
    given: dict[str, Any] = {
        name: value.to(device) if isinstance(value, Tensor) else value for name, value in options.items()
    }
    rendered = render(splat, replace(view, viewmat=viewmat), **given)
    rendered.info["means2d"].retain_grad()
    images = images_of(rendered)
    generator = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(image.shape, generator=generator) * counted for name, image in images.items()}
    torch.autograd.backward(list(images.values()), [weights[name].to(device) for name in images])
    gradients = {name: getattr(splat, name).grad for name in NAMES}
    means2d = rendered.info["means2d"]
    gradients |= {"viewmat": viewmat.grad, "means2d": means2d.grad, "absgrad": getattr(means2d, "absgrad", None)}
    return Seen(
        {name: image.detach().cpu() for name, image in images.items()},
        {name: None if gradient is None else gradient.cpu() for name, gradient in gradients.items()},
        {name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in rendered.info.items()},
    )


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-12))


def compare(gaussians: Gaussians, view: View, **options: Any) -> None:
    """Assert that images, radii, every gradient and absgrad agree."""
    everything = torch.ones(view.height, view.width, 1)
    ours, theirs = (draw(gaussians, view, device, everything, **options).images for device in (CPU, CUDA))
    agree = (ours["color"] - theirs["color"]).abs().amax(dim=-1, keepdim=True) < CUTOFF
    assert agree.float().mean() > 0.99
    ours, theirs = (draw(gaussians, view, device, agree, **options) for device in (CPU, CUDA))
    for name, expected in ours.images.items():
        trusted = agree if name != "depth" else agree & (ours.images["alpha"] > 0.05)
        assert relative(theirs.images[name] * trusted, expected * trusted) < TOLERANCE, name
    assert torch.equal(theirs.info["radii"], ours.info["radii"])
    assert (ours.gradients["absgrad"] is not None) == bool(options.get("absgrad"))
    for name, expected in ours.gradients.items():
        actual = theirs.gradients[name]
        assert (actual is None) == (expected is None), name
        if actual is not None and expected is not None:
            assert actual.isfinite().all(), name
            assert relative(actual, expected) < TOLERANCE, (name, relative(actual, expected))


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("depth", [False, True])
def test_every_mode_agrees(depth: bool, antialiased: bool) -> None:
    background = torch.tensor(BACKGROUND)
    compare(*splat_and_view(1), depth=depth, antialiased=antialiased, background=background, absgrad=True)


@pytest.mark.parametrize("degree", range(4))
def test_every_degree_of_harmonics_agrees(degree: int) -> None:
    gaussians, view = splat_and_view(2)
    compare(of_degree(gaussians, degree), view)
    compare(gaussians, view, sh_degree=degree)


def test_opacity_factors_agree() -> None:
    gaussians, view = splat_and_view(3)
    factors = (torch.rand(len(gaussians), generator=torch.Generator().manual_seed(0)) > 0.2).float()
    compare(gaussians, view, opacity_factors=factors)
    compare(gaussians, view, opacity_factors=1.25 * factors, absgrad=True)


@pytest.mark.parametrize("antialiased", [False, True])
def test_blending_weights_agree(antialiased: bool) -> None:
    gaussians, view = splat_and_view(4)
    ours = blending_weights(gaussians, view, antialiased)
    theirs = blending_weights(gaussians.to(CUDA), view_on(view, CUDA), antialiased)
    assert relative(theirs.cpu(), ours) < TOLERANCE


@pytest.mark.parametrize("background", [None, BACKGROUND])
def test_removal_effects_agree(background: Optional[tuple[float, ...]]) -> None:
    gaussians, view = splat_and_view(5)
    signs = torch.randint(2, (view.height, view.width, 3), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    behind = None if background is None else torch.tensor(background)
    ours = removal_effects(gaussians, view, signs, behind)
    behind = None if behind is None else behind.to(CUDA)
    theirs = removal_effects(gaussians.to(CUDA), view_on(view, CUDA), signs.to(CUDA), behind)
    assert relative(theirs.cpu(), ours) < 3 * TOLERANCE


def test_one_channel_agrees() -> None:
    scene = dense_scene(6)
    colors = torch.rand(len(scene.means), 1, generator=torch.Generator().manual_seed(0))
    images = []
    for device in (CPU, CUDA):
        on_device = {name: value.to(device) for name, value in scene.with_(colors=colors).tensors().items()}
        arguments = scene.arguments(**on_device, Ks=scene.Ks.to(device), packed=False)
        images.append(rasterizer_for(device)(**arguments)[0].cpu())
    assert images[0].shape == images[1].shape == (1, scene.height, scene.width, 1)
    assert relative(images[1], images[0]) < TOLERANCE


@pytest.mark.parametrize("shift", [None, -100.0])
def test_nothing_to_see_is_the_background(shift: Optional[float]) -> None:
    """Without any Gaussian, and with all of them behind the camera."""
    gaussians, view = splat_and_view(7)
    gaussians = gaussians[:0] if shift is None else replace(gaussians, means=gaussians.means + shift)  # type: ignore[index]
    background = torch.tensor(BACKGROUND)
    compare(gaussians, view, depth=True, background=background)
    rendered = render(gaussians.to(CUDA), view_on(view, CUDA), background=background.to(CUDA))
    assert torch.equal(rendered.color.cpu(), background.expand(view.height, view.width, 3))
    assert float(rendered.alpha.max()) == 0


def test_a_splat_on_the_device_is_not_drawn_through_a_camera_of_the_host() -> None:
    gaussians, view = splat_and_view(8)
    with pytest.raises(RuntimeError, match="CUDA tensor"):
        render(gaussians.to(CUDA), view)
    with pytest.raises(RuntimeError, match="device"):
        render(gaussians.to(CUDA), view_on(view, CUDA), opacity_factors=torch.ones(len(gaussians)))


def test_what_is_rendered_is_on_the_device() -> None:
    gaussians, view = splat_and_view(9)
    rendered = render(gaussians.to(CUDA), view_on(view, CUDA), depth=True)
    assert all(isinstance(image, ShamTensor) for image in images_of(rendered).values())
    assert rasterizer_for(CUDA).__module__ == "gsplat.rendering"
