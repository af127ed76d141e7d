"""The one way to a picture: cameras, backgrounds, blending weights, and whose rasterizer is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from reference import rasterize
from scenes import splat_and_view
from torch import Tensor

from distilled_splat.ops.importance import blending_weights, removal_effects
from distilled_splat.ops.render import rasterizer_for, render
from distilled_splat.ops.views import View, view_of, world_to_camera
from distilled_splat.splat.gaussians import Gaussians


def dense_render(gaussians: Gaussians, view: View, colors: Tensor, mode: str = "classic") -> Tensor:
    """Render colours [N, D] with the float64 reference, over black; [H, W, D]."""
    rendered = rasterize(
        means=gaussians.means.double(),
        quats=gaussians.quats.double(),
        scales=torch.exp(gaussians.log_scales.double()),
        opacities=torch.sigmoid(gaussians.logit_opacities.double()),
        colors=colors,
        viewmats=view.viewmat.double()[None],
        Ks=view.K.double()[None],
        width=view.width,
        height=view.height,
        rasterize_mode=mode,
    )
    return rendered.image[0]


def camera_at(pose: np.ndarray, camera_type: CameraType = CameraType.PERSPECTIVE, **options: Any) -> Cameras:
    return Cameras(
        camera_to_worlds=torch.from_numpy(pose)[None].float(),
        fx=50.0, fy=60.0, cx=33.0, cy=21.0, width=67, height=45, camera_type=camera_type, **options,
    )  # fmt: skip


def some_pose(seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    return np.concatenate((rotation, generator.normal(size=(3, 1))), axis=1)


def test_world_to_camera_is_the_inverse_with_flipped_axes() -> None:
    for seed in range(5):
        pose = some_pose(seed)
        whole = np.concatenate((pose, [[0, 0, 0, 1]]))
        expected = np.diag([1.0, -1.0, -1.0, 1.0]) @ np.linalg.inv(whole)
        for given in (pose, whole):
            np.testing.assert_allclose(world_to_camera(torch.from_numpy(given)).numpy(), expected, atol=1e-12)


def test_gradients_reach_an_optimised_pose() -> None:
    gaussians, _ = splat_and_view()
    pose = torch.from_numpy(np.concatenate((np.diag([1.0, -1, -1]), np.zeros((3, 1))), axis=1)).float()
    pose.requires_grad_()
    render(gaussians, view_of(camera_at(some_pose()), pose)).color.sum().backward()
    assert pose.grad is not None and bool(pose.grad[:, 3].abs().min() > 0)


def test_a_smaller_view_sees_the_same_field() -> None:
    camera = camera_at(some_pose())
    view = view_of(camera, downscale=4)
    assert (view.width, view.height) == (16, 11)
    expected = torch.tensor([[12.5, 0, 8.25], [0, 15, 5.25], [0, 0, 1]])
    torch.testing.assert_close(view.K, expected)
    torch.testing.assert_close(view.viewmat, view_of(camera).viewmat)


@pytest.mark.parametrize("kind", [CameraType.FISHEYE, CameraType.EQUIRECTANGULAR, CameraType.ORTHOPHOTO])
def test_a_camera_that_is_no_pinhole_is_refused_by_name(kind: CameraType) -> None:
    with pytest.raises(ValueError, match=kind.name):
        view_of(camera_at(some_pose(), kind))


def test_background_shows_through_exactly_what_is_transparent() -> None:
    gaussians, view = splat_and_view()
    rendered = render(gaussians, view)
    assert float(rendered.alpha.min()) >= 0 and float(rendered.alpha.max()) <= 1
    colour = torch.tensor([0.2, 0.5, 0.8])
    expected = (rendered.color + (1 - rendered.alpha) * colour).clamp(0, 1)
    torch.testing.assert_close(rendered.over(colour), expected)
    torch.testing.assert_close(render(gaussians, view, background=colour).color.clamp(0, 1), expected)
    nothing = render(gaussians[torch.zeros(len(gaussians), dtype=torch.bool)], view)
    assert torch.equal(nothing.over(colour), colour.expand(view.height, view.width, 3))


def test_grey_gaussians_before_the_same_grey_are_invisible() -> None:
    gaussians, view = splat_and_view()
    grey = Gaussians(
        gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.logit_opacities,
        torch.zeros_like(gaussians.sh_dc), torch.zeros_like(gaussians.sh_rest),
    )  # fmt: skip
    image = render(grey, view).over(torch.full((3,), 0.5))
    torch.testing.assert_close(image, torch.full_like(image, 0.5), atol=1e-6, rtol=0)


def test_opacity_factors_multiply_opacities() -> None:
    gaussians, view = splat_and_view()
    kept = torch.rand(len(gaussians), generator=torch.Generator().manual_seed(0)) < 0.5
    dropped = render(gaussians, view, opacity_factors=kept.float())
    torch.testing.assert_close(dropped.color, render(gaussians[kept], view).color, atol=1e-5, rtol=0)


def test_depth_is_that_of_a_wall() -> None:
    gaussians, view = splat_and_view()
    wall = Gaussians(
        torch.cat((gaussians.means[:, :2], torch.full((len(gaussians), 1), 3.0)), dim=1),
        gaussians.quats, gaussians.log_scales, gaussians.logit_opacities, gaussians.sh_dc, gaussians.sh_rest,
    )  # fmt: skip
    rendered = render(wall, view, depth=True)
    assert rendered.depth is not None
    seen = rendered.alpha > 0.01
    assert int(seen.sum()) > 500
    torch.testing.assert_close(rendered.depth[seen], torch.full((int(seen.sum()),), 3.0))


@pytest.mark.parametrize("antialiased", [False, True])
def test_blending_weights_are_the_references_gradient(antialiased: bool) -> None:
    gaussians, view = splat_and_view()
    colors = torch.ones(len(gaussians), 1, dtype=torch.float64, requires_grad=True)
    dense_render(gaussians, view, colors, "antialiased" if antialiased else "classic").sum().backward()
    assert colors.grad is not None
    weights = blending_weights(gaussians, view, antialiased)
    torch.testing.assert_close(weights.double(), colors.grad[:, 0], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(
        weights.sum(), render(gaussians, view, antialiased=antialiased).alpha.sum(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("background", [None, torch.tensor([0.9, 0.2, 0.6])])
@pytest.mark.parametrize("antialiased", [False, True])
def test_removal_effects_are_what_a_picture_loses(antialiased: bool, background: Optional[Tensor]) -> None:
    gaussians, view = splat_and_view()
    # an alpha that is capped would hide what is above the cap
    gaussians = replace(gaussians, logit_opacities=gaussians.logit_opacities.clamp(max=3))
    signs = 2.0 * torch.randint(2, (view.height, view.width, 3), generator=torch.Generator().manual_seed(0)) - 1
    effects = removal_effects(gaussians, view, signs, background, antialiased)
    options: Any = {"background": background, "antialiased": antialiased}
    whole = render(gaussians, view, **options).color
    for removed in range(20, len(gaussians), 9):
        others = torch.arange(len(gaussians)) != removed
        lost = ((whole - render(gaussians[others], view, **options).color) * signs).sum() ** 2
        # a pixel that is nearly opaque may end at another Gaussian
        assert float(effects[removed]) == pytest.approx(float(lost), rel=0.01, abs=0.01)
    assert not gaussians.means.requires_grad and not effects.requires_grad


def test_the_mean_of_removal_effects_is_the_squared_difference() -> None:
    gaussians, view = splat_and_view()
    generator = torch.Generator().manual_seed(0)
    draws = [2.0 * torch.randint(2, (view.height, view.width, 3), generator=generator) - 1 for _ in range(300)]
    mean = torch.stack([removal_effects(gaussians, view, signs) for signs in draws]).mean(dim=0)
    whole = render(gaussians, view).color
    for removed in mean.topk(5).indices.tolist():
        others = torch.arange(len(gaussians)) != removed
        lost = ((whole - render(gaussians[others], view).color) ** 2).sum()
        assert float(mean[removed]) == pytest.approx(float(lost), rel=0.4)


def test_blending_weights_leave_no_gradient_behind() -> None:
    gaussians, view = splat_and_view()
    gaussians.means.requires_grad_()
    with torch.no_grad():
        weights = blending_weights(gaussians, view)
    assert gaussians.means.grad is None and not weights.requires_grad


def test_tensors_of_a_cpu_go_to_our_own() -> None:
    """Those of a CUDA device go to gsplat: see test_cuda_rasterization."""
    from distilled_splat.cpu import rasterization

    assert rasterizer_for(torch.device("cpu")) is rasterization
