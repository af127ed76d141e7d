"""The CPU rasterizer's images and gradients against a dense float64 reference.

A pixel whose alpha lies on a cutoff to within rounding is drawn by one and not by the other: such pixels (`safe` is
false) are left out of images, and their cotangents are zero.
"""

from __future__ import annotations

from typing import Any, Optional

import pytest
import reference
import torch
from scenes import Scene, dense_scene, radii_of, smooth_scene
from torch import Tensor

from distilled_splat.cpu.rasterize import rasterization

IMAGE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


def relative(actual: Tensor, expected: Tensor) -> float:
    """Relative error in the L2 norm."""
    return float((actual.double() - expected).norm() / expected.norm().clamp_min(1e-12))


def gradient(tensor: Optional[Tensor]) -> Tensor:
    """Give the gradient that a tensor must have got."""
    assert tensor is not None and tensor.grad is not None
    return tensor.grad


def compare(scene: Scene, background: Optional[Tensor] = None, **settings: Any) -> None:
    """Assert that image, alphas, radii, every gradient and absgrad agree with the reference."""
    ours, theirs = scene.leaves(), scene.leaves(torch.float64)
    backgrounds = None if background is None else background.clone().requires_grad_()
    backgrounds64 = None if background is None else background.double().requires_grad_()
    image, alphas, info = rasterization(**scene.arguments(**ours), backgrounds=backgrounds, absgrad=True, **settings)
    arguments = scene.arguments(**theirs, Ks=scene.Ks.double())
    expected = reference.rasterize(**arguments, backgrounds=backgrounds64, **settings)

    trusted = expected.safe[..., None]
    if "ED" in settings.get("render_mode", "RGB"):
        trusted = trusted & (expected.alphas > 0.05)  # where depth / alpha does not magnify rounding
    assert trusted.float().mean() > 0.9
    scale = expected.image.abs().clamp_min(1.0)
    assert ((((image - expected.image) / scale).abs() * trusted) < IMAGE_TOLERANCE).all()
    assert (((alphas - expected.alphas).abs() * trusted) < IMAGE_TOLERANCE).all()
    assert torch.equal(radii_of(info).double(), expected.radii)

    generator = torch.Generator().manual_seed(1)
    v_image = torch.randn(image.shape, generator=generator) * trusted
    v_alphas = torch.randn(alphas.shape, generator=generator) * trusted
    info["means2d"].retain_grad()
    torch.autograd.backward([image, alphas], [v_image, v_alphas])
    torch.autograd.backward([expected.image, expected.alphas], [v_image.double(), v_alphas.double()])
    for name, tensor in theirs.items():
        if tensor.grad is None:
            assert ours[name].grad is None, name
        else:
            assert relative(gradient(ours[name]), gradient(tensor)) < GRADIENT_TOLERANCE, name
    if backgrounds is not None and "RGB" in settings.get("render_mode", "RGB"):
        assert relative(gradient(backgrounds), gradient(backgrounds64)) < GRADIENT_TOLERANCE
    per_pixel = [gradient(offsets) for offsets in expected.offsets]
    assert relative(info["means2d"].grad, torch.stack([g.sum(0) for g in per_pixel])) < GRADIENT_TOLERANCE
    assert relative(info["means2d"].absgrad, torch.stack([g.abs().sum(0) for g in per_pixel])) < GRADIENT_TOLERANCE


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("render_mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_every_mode_agrees_with_the_reference(render_mode: str, rasterize_mode: str) -> None:
    scene = dense_scene(seed=3, cameras=2)
    background = torch.rand(2, 3)
    compare(scene, background, sh_degree=3, render_mode=render_mode, rasterize_mode=rasterize_mode)


@pytest.mark.parametrize("seed", range(4))
def test_random_scenes_agree_with_the_reference(seed: int) -> None:
    sizes = [(16, 16), (33, 50), (90, 17), (64, 64)]
    width, height = sizes[seed]
    compare(dense_scene(seed=10 + seed, count=250, width=width, height=height), sh_degree=2)


@pytest.mark.parametrize("degree", range(5))
def test_every_degree_of_harmonics_agrees(degree: int) -> None:
    compare(dense_scene(seed=degree, count=80, width=24, height=20, degree=4), sh_degree=degree)


def test_harmonics_of_each_camera_agree() -> None:
    scene = dense_scene(seed=5, count=80, width=24, height=20, cameras=2)
    compare(scene.with_(colors=torch.stack([scene.colors, scene.colors.flip(0)])), sh_degree=3)


@pytest.mark.parametrize("settings", [{"eps2d": 0.05}, {"near_plane": 2.0, "far_plane": 3.5}, {"radius_clip": 6.0}])
def test_blur_and_culling_agree(settings: dict) -> None:
    compare(dense_scene(seed=6, count=200), sh_degree=1, **settings)


def test_field_of_view_is_clamped_in_the_jacobian() -> None:
    scene = dense_scene(seed=7, count=120)
    aside = scene.means.clone()
    aside[:, 0] = aside[:, 2] * torch.linspace(0.8, 1.4, 120)
    compare(scene.with_(means=aside, scales=5 * scene.scales), sh_degree=0)


def test_opaque_gaussians_stop_the_light() -> None:
    scene = dense_scene(seed=8, count=150)
    opaque = torch.where(torch.arange(150) % 2 == 0, torch.ones(150), scene.opacities)
    compare(scene.with_(opacities=opaque, scales=3 * scene.scales), torch.rand(1, 3), sh_degree=1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("per_camera", [False, True])
def test_any_number_of_channels_agrees(channels: int, per_camera: bool) -> None:
    scene = dense_scene(seed=9, count=100, width=30, height=20, cameras=2)
    colors = torch.rand(2, 100, channels) if per_camera else torch.rand(100, channels)
    scene, background = scene.with_(colors=colors), torch.rand(2, channels)
    ours, theirs = scene.leaves(), scene.leaves(torch.float64)
    image, alphas, _ = rasterization(**scene.arguments(**ours), backgrounds=background, render_mode="RGB+D")
    expected = reference.rasterize(
        **scene.arguments(**theirs, Ks=scene.Ks.double()), backgrounds=background.double(), render_mode="RGB+D"
    )
    trusted = expected.safe[..., None]
    scale = expected.image.abs().clamp_min(1.0)
    assert ((((image - expected.image) / scale).abs() * trusted) < IMAGE_TOLERANCE).all()
    v_image, v_alphas = torch.randn(image.shape) * trusted, torch.randn(alphas.shape) * trusted
    torch.autograd.backward([image, alphas], [v_image, v_alphas])
    torch.autograd.backward([expected.image, expected.alphas], [v_image.double(), v_alphas.double()])
    for name, tensor in theirs.items():
        assert relative(gradient(ours[name]), gradient(tensor)) < GRADIENT_TOLERANCE, name


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "viewmats"])
def test_gradients_agree_with_finite_differences(name: str, rasterize_mode: str) -> None:
    scene = smooth_scene(seed=11)
    settings = {"sh_degree": 3, "render_mode": "RGB+D", "rasterize_mode": rasterize_mode}
    leaves = scene.leaves()
    image, _, _ = rasterization(**scene.arguments(**leaves), **settings)
    cotangent = torch.randn(image.shape, generator=torch.Generator().manual_seed(12))
    image.backward(cotangent)
    direction = torch.randn(leaves[name].shape, generator=torch.Generator().manual_seed(13))
    if name == "viewmats":
        direction[:, 3] = 0

    def loss(step: float) -> float:
        moved = scene.tensors()[name] + step * direction
        with torch.no_grad():
            render, _, _ = rasterization(**scene.arguments(**{name: moved}), **settings)
        return float((render.double() * cotangent).sum())

    step = 2e-3
    numerical = (8 * (loss(step) - loss(-step)) - (loss(2 * step) - loss(-2 * step))) / (12 * step)
    analytical = float((gradient(leaves[name]).double() * direction).sum())
    assert analytical == pytest.approx(numerical, rel=1e-2, abs=1e-2)
