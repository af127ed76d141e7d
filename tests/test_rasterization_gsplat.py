"""The CPU's projection and harmonics against gsplat's own torch reference, written by others, in float64."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pytest
import torch
from gsplat.cuda import _torch_impl as gsplat
from scenes import Scene, dense_scene
from torch import Tensor

from distilled_splat.cpu.harmonics import shade
from distilled_splat.cpu.projection import Projection, camera_array, project

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
EPS2D, NEAR, FAR = 0.3, 0.01, 1e10
NAMES = ("means", "quats", "scales", "viewmats")


def relative(actual: Tensor, expected: Tensor) -> float:
    """Relative error in the L2 norm."""
    actual, expected = actual.detach().double(), expected.detach()
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-12))


def gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def ours(scene: Scene, leaves: dict[str, Tensor], antialiased: bool) -> Projection:
    settings = (scene.width, scene.height, NEAR, FAR, EPS2D, 0.0)
    cameras = [camera_array(v.numpy(), K.numpy(), *settings) for v, K in zip(scene.viewmats, scene.Ks)]
    return project(*(leaves[name] for name in NAMES), np.stack(cameras), antialiased)  # type: ignore[arg-type]


def theirs(scene: Scene, leaves: dict[str, Tensor], antialiased: bool) -> Projection:
    covariances, _ = gsplat._quat_scale_to_covar_preci(leaves["quats"], leaves["scales"], compute_preci=False)
    assert covariances is not None
    radii, means2d, depths, conics, compensations = gsplat._fully_fused_projection(
        leaves["means"],
        covariances,
        leaves["viewmats"],
        scene.Ks.double(),
        scene.width,
        scene.height,
        EPS2D,
        NEAR,
        FAR,
        antialiased,
    )
    return Projection(means2d, depths, conics, torch.empty(0) if compensations is None else compensations, radii)


def compare_projections(scene: Scene, antialiased: bool) -> None:
    """Assert that the projections of the visible Gaussians agree, and the gradients that come through them."""
    our_leaves, their_leaves = scene.leaves(), scene.leaves(torch.float64)
    actual, expected = ours(scene, our_leaves, antialiased), theirs(scene, their_leaves, antialiased)
    visible = actual.radii > 0
    if expected.radii.dim() == 2:
        assert torch.equal(actual.radii, expected.radii)
    else:  # from gsplat 1.5 on a radius for each axis, with which others are left out at the borders
        visible &= (expected.radii > 0).all(-1)
    assert 0 < visible.sum() < visible.numel()
    generator = torch.Generator().manual_seed(0)
    sums = [torch.zeros(()), torch.zeros((), dtype=torch.float64)]
    for name in ("means2d", "depths", "conics", "compensations") if antialiased else ("means2d", "depths", "conics"):
        here, there = getattr(actual, name)[visible], getattr(expected, name)[visible]
        assert relative(here, there) < TOLERANCE, name
        cotangent = torch.randn(here.shape, generator=generator)
        sums = [sums[0] + (here * cotangent).sum(), sums[1] + (there * cotangent).sum()]
    for total in sums:
        total.backward()
    for name in NAMES:
        assert relative(gradient(our_leaves[name]), gradient(their_leaves[name])) < GRADIENT_TOLERANCE, name


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_projections_and_their_gradients_agree(seed: int, antialiased: bool) -> None:
    compare_projections(dense_scene(seed=20 + seed, cameras=2), antialiased)


def test_projections_far_beside_the_image_agree() -> None:
    """There the Jacobian is clamped to a slope."""
    scene = dense_scene(seed=23, count=120)
    aside = scene.means.clone()
    aside[:, 0] = aside[:, 2] * torch.linspace(0.8, 2.0, 120)
    compare_projections(scene.with_(means=aside, scales=5 * scene.scales), antialiased=False)


def colors_of_gsplat(scene: Scene, leaves: dict[str, Tensor], centres: Tensor, degree: int) -> Tensor:
    directions = leaves["means"][None] - centres[:, None]
    coefficients = leaves["colors"].expand(len(centres), -1, -1, -1)
    return (gsplat._spherical_harmonics(degree, directions, coefficients) + 0.5).clamp_min(0)


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("apart", [False, True], ids=["joined", "apart"])
def test_harmonics_and_their_gradients_agree(degree: int, apart: bool) -> None:
    """With the coefficients of degree 0 beside the others, and apart from them as a splat stores them."""
    scene = dense_scene(seed=degree, cameras=2, degree=4)
    our_leaves, their_leaves = scene.leaves(), scene.leaves(torch.float64)
    visible = torch.rand(2, len(scene.means), generator=torch.Generator().manual_seed(1)) > 0.1
    centres = torch.tensor([[0.0, 0.0, -0.5], [0.3, -0.2, -0.1]])
    our_centres, their_centres = centres.clone().requires_grad_(), centres.double().requires_grad_()
    colors = our_leaves["colors"]
    rest: Optional[Tensor] = None
    if apart:
        colors, rest = colors[:, 0].contiguous(), colors[:, 1:].contiguous()
    actual = shade(our_leaves["means"], our_centres, colors, rest, degree, visible.int())
    expected = colors_of_gsplat(scene, their_leaves, their_centres, degree)
    assert relative(actual[visible], expected[visible]) < TOLERANCE
    assert (actual[~visible] == 0).all()
    cotangent = torch.randn(actual.shape, generator=torch.Generator().manual_seed(2)) * visible[..., None]
    actual.backward(cotangent)
    expected.backward(cotangent.double())
    assert relative(gradient(our_leaves["colors"]), gradient(their_leaves["colors"])) < GRADIENT_TOLERANCE
    if degree > 0:
        assert relative(gradient(our_leaves["means"]), gradient(their_leaves["means"])) < GRADIENT_TOLERANCE
        assert relative(gradient(our_centres), gradient(their_centres)) < GRADIENT_TOLERANCE
