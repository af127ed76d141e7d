"""The CPU rasterizer on what is degenerate, not finite, or not supported, and the physical laws its images obey."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import Scene, dense_scene, radii_of, smooth_scene

from distilled_splat.cpu.rasterize import _radii_have_two_axes, rasterization

PARAMETERS = ("means", "quats", "scales", "opacities", "colors")


def render_with_gradients(scene: Scene, **changes: Any) -> tuple[torch.Tensor, torch.Tensor, dict, dict]:
    leaves = scene.leaves()
    image, alphas, info = rasterization(**scene.arguments(**leaves), **{"sh_degree": 1, "absgrad": True, **changes})
    torch.autograd.backward([image, alphas], [torch.ones_like(image), torch.ones_like(alphas)])
    return image.detach(), alphas.detach(), info, {name: leaf.grad for name, leaf in leaves.items()}


def only(scene: Scene, kept: torch.Tensor) -> Scene:
    return scene.with_(**{name: getattr(scene, name)[kept] for name in PARAMETERS})


def test_no_gaussian_gives_the_background() -> None:
    scene = only(dense_scene(), torch.zeros(300, dtype=torch.bool))
    background = torch.tensor([[0.1, 0.2, 0.3]])
    image, alphas, info, gradients = render_with_gradients(scene, backgrounds=background)
    assert torch.equal(image, background.expand(1, 45, 70, 3))
    assert not alphas.any()
    assert radii_of(info).shape == (1, 0)
    assert gradients["means"].shape == (0, 3)


@pytest.mark.parametrize("move", ["behind", "beside", "too far", "transparent"])
def test_gaussians_that_are_not_visible_give_nothing(move: str) -> None:
    scene = dense_scene()
    means, opacities = scene.means.clone(), scene.opacities
    if move == "behind":
        means[:, 2] = -means[:, 2].abs() - 1
    elif move == "beside":
        means[:, 0] += 1e4
    elif move == "too far":
        means[:, 2] = 1e11
    else:
        opacities = torch.full_like(opacities, 0.5 / 255)
    image, alphas, info, gradients = render_with_gradients(scene.with_(means=means, opacities=opacities))
    assert not image.any() and not alphas.any()
    if move != "transparent":
        assert not info["radii"].any() and not info["means2d"].any()
    for name, gradient in gradients.items():
        assert not gradient.any(), name


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (17, 1), (15, 33), (40, 31)])
def test_images_that_are_no_multiple_of_a_tile_agree_with_the_reference(size: tuple[int, int]) -> None:
    scene = smooth_scene(width=size[0], height=size[1])
    image, alphas, _ = rasterization(**scene.arguments(), sh_degree=3)
    doubles = {name: tensor.double() for name, tensor in scene.tensors().items()}
    expected = reference.rasterize(**scene.arguments(**doubles, Ks=scene.Ks.double()), sh_degree=3)
    assert image.shape == (2, size[1], size[0], 3) and alphas.shape == (2, size[1], size[0], 1)
    assert torch.allclose(image.double(), expected.image, atol=1e-6)
    assert torch.allclose(alphas.double(), expected.alphas, atol=1e-6)


def break_parameters(scene: Scene, broken: torch.Tensor, name: str, value: float) -> Scene:
    tensor = getattr(scene, name).clone()
    tensor.reshape(len(tensor), -1)[broken, 0] = value
    return scene.with_(**{name: tensor})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities"])
def test_gaussians_that_are_not_finite_are_left_out_and_leave_the_others_alone(name: str, value: float) -> None:
    scene = dense_scene(count=100)
    broken = torch.arange(100) % 7 == 3
    image, alphas, info, gradients = render_with_gradients(break_parameters(scene, broken, name, value))
    image_without, alphas_without, _, gradients_without = render_with_gradients(only(scene, ~broken))
    assert torch.equal(image, image_without) and torch.equal(alphas, alphas_without)
    for parameter in PARAMETERS:
        assert torch.equal(gradients[parameter][~broken], gradients_without[parameter]), parameter
        assert not gradients[parameter][broken].any(), parameter
    assert info["means2d"].isfinite().all() and info["conics"].isfinite().all()


def test_a_zero_quaternion_has_no_rotation_and_is_left_out() -> None:
    scene = dense_scene(count=50)
    quats = scene.quats.clone()
    quats[::5] = 0
    image, _, info, gradients = render_with_gradients(scene.with_(quats=quats))
    assert not radii_of(info)[0, ::5].any()
    assert image.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("name", ["viewmats", "Ks"])
def test_a_camera_that_is_not_finite_sees_nothing(name: str) -> None:
    scene = dense_scene(count=50)
    tensor = getattr(scene, name).clone()
    tensor[0, 0, 2] = float("nan")
    image, alphas, _ = rasterization(**scene.arguments(**{name: tensor}), sh_degree=0)
    assert not image.any() and not alphas.any()


EXTREMES = st.sampled_from(
    [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e-45, -1e-40, 1e-20, 1e20, -1e20, 3e38, -3e38, 1.0, -1.0]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10), EXTREMES), min_size=1, max_size=12),
    st.sampled_from(["classic", "antialiased"]),
)
def test_no_value_corrupts_the_other_gaussians(changes: list[tuple[int, int, float]], mode: str) -> None:
    """Put extreme numbers into some of the eleven numbers of some of ten Gaussians; ten others must be drawn as before.

    What is drawn of the changed ten stays a picture: alphas from 0 to 1, no pixel that is not a number. What is not
    drawn gets no gradient, and what the others get is a number, whatever lies in front of them.
    """
    scene = smooth_scene(count=20, width=40, height=20)
    numbers = torch.cat([scene.means, scene.quats, scene.scales, scene.opacities[:, None]], -1)
    for gaussian, column, value in changes:
        numbers[gaussian, column] = value
    means, quats, scales, opacities = (part.contiguous() for part in numbers.split([3, 4, 3, 1], -1))
    changed = scene.with_(means=means, quats=quats, scales=scales, opacities=opacities[:, 0])
    image, alphas, info, gradients = render_with_gradients(changed, rasterize_mode=mode)
    assert ((alphas >= 0) & (alphas <= 1)).all()
    assert image.isfinite().all()
    drawn = (radii_of(info) > 0).any(0)
    assert drawn[10:].all()
    for name in ("means", "quats", "scales", "opacities"):
        assert gradients[name][10:].isfinite().all(), name
        assert not gradients[name][~drawn].any(), name


def test_light_adds_up() -> None:
    scene = dense_scene(seed=4)
    background = torch.tensor([[0.7, 0.2, 0.4]])
    black, alphas, _ = rasterization(**scene.arguments(), sh_degree=2)
    lit, _, _ = rasterization(**scene.arguments(), sh_degree=2, backgrounds=background)
    assert torch.allclose(lit, black + (1 - alphas) * background, atol=1e-6)
    dark = scene.with_(colors=torch.zeros(300, 3))
    unlit, _, _ = rasterization(**dark.arguments(), backgrounds=background)
    assert torch.allclose(unlit, (1 - alphas) * background, atol=1e-6)
    white = scene.with_(colors=torch.ones(300, 3))
    covered, _, _ = rasterization(**white.arguments())
    assert torch.allclose(covered, alphas.expand_as(covered), atol=1e-6)


def test_the_order_of_the_gaussians_does_not_matter() -> None:
    scene = dense_scene(seed=5)
    shuffled = only(scene, torch.randperm(300, generator=torch.Generator().manual_seed(1)))
    image, alphas, _ = rasterization(**scene.arguments(), sh_degree=2)
    image_shuffled, alphas_shuffled, _ = rasterization(**shuffled.arguments(), sh_degree=2)
    assert torch.equal(image, image_shuffled) and torch.equal(alphas, alphas_shuffled)


def test_a_larger_scene_seen_from_further_away_looks_the_same() -> None:
    scene = dense_scene(seed=6)
    larger = scene.with_(means=4 * scene.means, scales=4 * scene.scales)
    image, alphas, _ = rasterization(**scene.arguments(), sh_degree=2)
    image_larger, alphas_larger, _ = rasterization(**larger.arguments(), sh_degree=2)
    assert torch.allclose(image, image_larger, atol=1e-5) and torch.allclose(alphas, alphas_larger, atol=1e-5)


def test_the_length_of_a_quaternion_does_not_matter() -> None:
    scene = dense_scene(seed=7)
    longer = scene.with_(quats=8 * scene.quats)
    image, _, _ = rasterization(**scene.arguments(), sh_degree=2)
    image_longer, _, _ = rasterization(**longer.arguments(), sh_degree=2)
    assert torch.equal(image, image_longer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packed": True}, "packed=True"),
        ({"sparse_grad": True}, "sparse_grad=True"),
        ({"distributed": True}, "distributed=True"),
        ({"camera_model": "fisheye"}, "camera_model='fisheye'"),
        ({"covars": torch.eye(3).repeat(300, 1, 1)}, "covars=a tensor"),
        ({"tile_size": 8}, "tile_size=8"),
        ({"render_mode": "depth"}, "render_mode is 'depth'"),
        ({"rasterize_mode": "fancy"}, "rasterize_mode is 'fancy'"),
        ({"width": 0}, "0 by 45 pixels"),
        ({"sh_degree": 5}, "sh_degree is 5"),
        ({"sh_degree": 4}, "K at least 25"),
        ({"sh_degree": None}, r"colors has shape \[300, 16, 3\]"),
        ({"colors": (torch.zeros(300, 3), torch.zeros(300, 8, 3))}, "K at least 16 for sh_degree=3"),
        ({"colors": (torch.zeros(300, 3), torch.zeros(300, 15, 3)), "sh_degree": None}, "a pair of colors"),
        ({"means": torch.zeros(300, 3).double()}, "means is torch.float64"),
        ({"means": torch.zeros(300, 3, device="meta")}, "means is torch.float32 on meta"),
        ({"quats": torch.zeros(300, 3)}, r"quats has shape \[300, 3\]"),
        ({"opacities": torch.zeros(300, 1)}, r"opacities has shape \[300, 1\]"),
        ({"viewmats": torch.eye(4)}, "viewmats has shape"),
        ({"viewmats": torch.zeros(0, 4, 4), "Ks": torch.zeros(0, 3, 3)}, "no camera"),
        ({"Ks": torch.zeros(1, 3, 3)}, "focal lengths"),
        ({"backgrounds": torch.zeros(1, 4)}, r"backgrounds has shape \[1, 4\]"),
        ({"colors": torch.zeros(300, 5), "sh_degree": None, "absgrad": True}, "absgrad with 5 channels"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rasterization(**{**dense_scene().arguments(), "sh_degree": 3, **changes})


@pytest.mark.parametrize(("installed", "shape"), [("1.4.0", (1, 300)), ("1.5.3", (1, 300, 2))])
def test_radii_are_as_the_strategies_of_the_installed_gsplat_take_them(
    monkeypatch: pytest.MonkeyPatch, installed: str, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: installed)
    _radii_have_two_axes.cache_clear()
    try:
        scene = dense_scene()
        _, _, info = rasterization(**scene.arguments(), sh_degree=3)
        assert info["radii"].shape == shape and radii_of(info).any()
    finally:
        _radii_have_two_axes.cache_clear()
