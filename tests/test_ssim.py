"""The fused L1 and SSIM against pytorch_msssim in float64."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import pytorch_msssim
import torch
from torch import Tensor

from distilled_splat.cpu.ssim import l1_and_ssim

SIZES = [(11, 11), (12, 300), (301, 11), (29, 43), (27, 65), (64, 401)]


def noise(height: int, width: int, seed: int) -> Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


def smooth(height: int, width: int, seed: int) -> Tensor:
    coarse = noise(height // 8 + 2, width // 8 + 2, seed).permute(2, 0, 1)[None]
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine[0].permute(1, 2, 0).contiguous()


def pair(kind: str, height: int, width: int) -> tuple[Tensor, Tensor]:
    """A rendered image and its target: two noises, or a smooth or flat bright target and small errors."""
    if kind == "noise":
        return noise(height, width, 1), noise(height, width, 2)
    target = smooth(height, width, 3) if kind == "smooth" else torch.full((height, width, 3), 0.97)
    return target + 0.02 * (noise(height, width, 4) - 0.5), target


def reference(rendered: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L1 and SSIM as splatfacto has them, but in float64 with a float64 window.

    The float32 window that pytorch_msssim makes sums to 1 - 3e-8. On flat bright images that alone moves its
    gradients by 1e-4, in float64 as well.
    """
    offsets = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(3, 1, 1, 11)
    x, y = rendered.double(), target.double()
    images = (image.permute(2, 0, 1)[None] for image in (y, x))
    return (x - y).abs().mean(), pytorch_msssim.ssim(*images, data_range=1.0, win=window)


def gradient(function, rendered: Tensor, target: Tensor, v_l1: float, v_ssim: float) -> Tensor:
    leaf = rendered.clone().requires_grad_()
    l1, ssim = function(leaf, target)
    (v_l1 * l1 + v_ssim * ssim).backward()
    assert leaf.grad is not None
    return leaf.grad


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("kind", ["noise", "smooth", "flat"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_values_equal_the_reference(height: int, width: int, kind: str) -> None:
    rendered, target = pair(kind, height, width)
    l1, ssim = l1_and_ssim(rendered, target)
    expected_l1, expected_ssim = reference(rendered, target)
    assert l1.dtype == ssim.dtype == torch.float32 and l1.shape == ssim.shape == ()
    assert l1.item() == pytest.approx(expected_l1.item(), rel=1e-6)
    assert ssim.item() == pytest.approx(expected_ssim.item(), rel=1e-6, abs=3e-7)


@pytest.mark.parametrize("kind", ["noise", "smooth", "flat"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_gradients_equal_the_reference(height: int, width: int, kind: str) -> None:
    rendered, target = pair(kind, height, width)
    generator = np.random.default_rng(height * width)
    for v_l1, v_ssim in [(1.0, 0.0), (0.0, 1.0), tuple(generator.normal(size=2))]:
        actual = gradient(l1_and_ssim, rendered, target, v_l1, v_ssim)
        expected = gradient(reference, rendered, target, v_l1, v_ssim)
        assert relative_error(actual, expected) < 1e-6


def test_splatfactos_own_loss_is_reproduced() -> None:
    rendered, target = pair("smooth", 120, 161)
    stock = pytorch_msssim.SSIM(data_range=1.0, size_average=True, channel=3)

    def splatfacto(rendered: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        images = (image.permute(2, 0, 1)[None] for image in (target, rendered))
        return (target - rendered).abs().mean(), stock(*images)

    for actual, expected in zip(l1_and_ssim(rendered, target), splatfacto(rendered, target)):
        assert actual.item() == pytest.approx(expected.item(), rel=1e-5)
    actual = gradient(l1_and_ssim, rendered, target, 0.8, -0.2)
    assert relative_error(actual, gradient(splatfacto, rendered, target, 0.8, -0.2)) < 1e-4


def test_identical_images_are_alike_and_at_rest() -> None:
    image = noise(40, 150, 5)
    l1, ssim = l1_and_ssim(image, image)
    assert l1.item() == 0 and ssim.item() == 1
    assert torch.all(gradient(l1_and_ssim, image, image.clone(), 1.0, 1.0) == 0)


@pytest.mark.parametrize(("x", "y"), [(0.0, 1.0), (0.25, 0.5), (1.0, 1.0), (0.0, 0.0)])
def test_constant_images_differ_in_luminance_alone(x: float, y: float) -> None:
    l1, ssim = l1_and_ssim(torch.full((20, 140, 3), x), torch.full((20, 140, 3), y))
    assert l1.item() == pytest.approx(abs(x - y), rel=1e-6)
    assert ssim.item() == pytest.approx((2 * x * y + 1e-4) / (x * x + y * y + 1e-4), abs=3e-7)


@pytest.mark.parametrize("row, column", [(0, 0), (25, 149), (12, 70)])
def test_nan_reaches_both_values_and_the_gradient(row: int, column: int) -> None:
    rendered, target = noise(26, 150, 6), noise(26, 150, 7)
    rendered[row, column, 1] = float("nan")
    l1, ssim = l1_and_ssim(rendered, target)
    assert l1.isnan() and ssim.isnan()
    assert gradient(l1_and_ssim, rendered, target, 1.0, 1.0)[row, column, 1].isnan()
    clean = noise(26, 150, 8)
    assert all(value.isfinite() for value in l1_and_ssim(clean, target))


def test_repeats_are_bit_identical_and_leave_earlier_results_alone() -> None:
    rendered, target = pair("smooth", 70, 300)
    first = gradient(l1_and_ssim, rendered, target, 0.8, -0.2)
    kept = first.clone()
    gradient(l1_and_ssim, target, rendered, 1.0, 1.0)
    assert torch.equal(first, kept)
    assert torch.equal(gradient(l1_and_ssim, rendered, target, 0.8, -0.2), kept)


def test_value_does_not_depend_on_whether_a_gradient_is_wanted() -> None:
    rendered, target = pair("smooth", 50, 200)
    plain = l1_and_ssim(rendered, target)
    tracked = l1_and_ssim(rendered.clone().requires_grad_(), target)
    assert [value.item() for value in plain] == [value.item() for value in tracked]
    with torch.no_grad():
        untracked = l1_and_ssim(rendered.clone().requires_grad_(), target)
    assert [value.item() for value in plain] == [value.item() for value in untracked]
    assert all(value.requires_grad for value in tracked)
    assert not any(value.requires_grad for value in plain + untracked)


def test_a_retained_graph_gives_the_gradient_twice() -> None:
    rendered, target = pair("noise", 20, 20)
    rendered.requires_grad_()
    _, ssim = l1_and_ssim(rendered, target)
    (once,) = torch.autograd.grad(ssim, rendered, retain_graph=True)
    (twice,) = torch.autograd.grad(2 * ssim, rendered)
    assert torch.equal(2 * once, twice)


def test_two_targets_add_their_gradients() -> None:
    rendered, photo = pair("smooth", 40, 60)
    label = smooth(40, 60, 9)
    leaf = rendered.clone().requires_grad_()
    loss = l1_and_ssim(leaf, photo)[1] + 3 * l1_and_ssim(leaf, label)[0]
    loss.backward()
    assert leaf.grad is not None
    separate = gradient(reference, rendered, photo, 0, 1) + gradient(reference, rendered, label, 3, 0)
    assert relative_error(leaf.grad, separate) < 1e-6


def test_views_of_other_layouts_are_taken() -> None:
    rendered, target = pair("smooth", 30, 50)
    planar = rendered.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    with_alpha = torch.cat([target, torch.ones(30, 50, 1)], dim=-1)[..., :3]
    assert not planar.is_contiguous() and not with_alpha.is_contiguous()
    actual = gradient(l1_and_ssim, planar, with_alpha, 1.0, 2.0)
    assert torch.equal(actual, gradient(l1_and_ssim, rendered, target, 1.0, 2.0))


def test_python_threads_do_not_disturb_each_other() -> None:
    pairs = [pair("smooth", 90, 280), pair("noise", 120, 270)]
    expected = [gradient(l1_and_ssim, *images, 0.8, -0.2) for images in pairs]
    wrong = []

    def work(index: int) -> None:
        for _ in range(20):
            if not torch.equal(gradient(l1_and_ssim, *pairs[index], 0.8, -0.2), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("rendered", "target", "message"),
    [
        (torch.zeros(20, 20, 3, dtype=torch.float64), torch.zeros(20, 20, 3), r"rendered is torch\.float64"),
        (torch.zeros(20, 20, 3), torch.zeros(20, 20, 3, dtype=torch.uint8), r"target is torch\.uint8"),
        (torch.zeros(20, 20, 3), torch.zeros(20, 21, 3), r"\(20, 20, 3\).*\(20, 21, 3\)"),
        (torch.zeros(10, 20, 3), torch.zeros(10, 20, 3), r"\(10, 20, 3\).*at least 11"),
        (torch.zeros(20, 10, 3), torch.zeros(20, 10, 3), r"\(20, 10, 3\).*at least 11"),
        (torch.zeros(20, 20, 4), torch.zeros(20, 20, 4), r"\(20, 20, 4\)"),
        (torch.zeros(20, 20), torch.zeros(20, 20), r"\(20, 20\)"),
        (torch.zeros(20, 20, 3), torch.zeros(20, 20, 3, requires_grad=True), "detach the target"),
    ],
)
def test_unsuitable_images_are_refused(rendered: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        l1_and_ssim(rendered, target)
