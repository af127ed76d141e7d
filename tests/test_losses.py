"""Photometric and structural losses against independent references."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_msssim import SSIM

from distilled_splat.ops.losses import l1_and_ssim, photometric_losses
from distilled_splat.ops.voxels import VoxelGrid
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.structure import Structure, depth_loss, structural_loss


def images(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(37, 41, 3, generator=generator)
    return (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(0, 1), target


def test_photometric_loss_is_splatfactos() -> None:
    rendered, target = images()
    ssim = SSIM(data_range=1.0, size_average=True, channel=3)(
        target.permute(2, 0, 1)[None], rendered.permute(2, 0, 1)[None]
    )
    expected = 0.8 * (rendered - target).abs().mean() + 0.2 * (1 - ssim)
    assert photometric_losses(rendered, target)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_paths_for_cpu_and_for_other_devices_agree() -> None:
    rendered, target = images(1)
    fused = l1_and_ssim(rendered, target)
    general = l1_and_ssim(rendered.double(), target.double())
    assert [float(value) for value in fused] == pytest.approx([float(value) for value in general], rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_by_two_targets_are_the_losses_by_each(dtype: torch.dtype) -> None:
    rendered, photo = (image.to(dtype) for image in images(1))
    label = (0.5 * (rendered + photo)).flip(0)
    together, apart = rendered.clone().requires_grad_(), rendered.clone().requires_grad_()
    both = photometric_losses(together, photo, label)
    single = [photometric_losses(apart, target)[0] for target in (photo, label)]
    (both[0] + 0.3 * both[1]).backward()
    (single[0] + 0.3 * single[1]).backward()
    torch.testing.assert_close(both, single)
    torch.testing.assert_close(together.grad, apart.grad)


def histogram_by_loops(means: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Trilinear counts one centre and one corner at a time, in float64."""
    counts = np.zeros((grid.resolution,) * 3)
    lowest, spacing = grid.lowest.double().numpy(), grid.spacing.double().numpy()
    for mean in means:
        position = np.clip((mean - lowest) / spacing, 0, grid.resolution - 1)
        for x in range(grid.resolution):
            for y in range(grid.resolution):
                for z in range(grid.resolution):
                    counts[x, y, z] += np.prod(np.maximum(0, 1 - np.abs(position - np.array([x, y, z]))))
    return counts


@pytest.fixture
def cloud() -> torch.Tensor:
    return torch.randn(60, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * torch.tensor(
        [1.0, 3.0, 0.2]
    )


def test_histogram_agrees_with_plain_loops(cloud: torch.Tensor) -> None:
    grid = VoxelGrid.around(cloud, resolution=7)
    counts = grid.histogram(cloud).reshape(7, 7, 7)
    np.testing.assert_allclose(counts.numpy(), histogram_by_loops(cloud.numpy(), grid), atol=1e-9)


def test_a_histogram_of_mass_counts_each_centre_so_often(cloud: torch.Tensor) -> None:
    grid = VoxelGrid.around(cloud, resolution=7)
    times = torch.arange(1, len(cloud) + 1)
    repeated = grid.histogram(cloud.repeat_interleave(times, dim=0))
    torch.testing.assert_close(grid.histogram(cloud, times.double()), repeated)


def gaussians_at(means: torch.Tensor) -> Gaussians:
    """Return Gaussians of random shapes at centres [N, 3], in float64."""
    generator = torch.Generator().manual_seed(7)
    count = len(means)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator, dtype=torch.float64)

    return Gaussians(means, random(4), 0.3 * random(3) - 2, random(), random(3), random(0, 3))


def test_a_gaussian_that_is_split_leaves_the_mass_where_it_was(cloud: torch.Tensor) -> None:
    """Two of half the area each cover what one did; the paper's histogram of centres sees twice as many."""
    teacher = gaussians_at(cloud)
    halved = {**vars(teacher), "log_scales": teacher.log_scales - 0.5 * math.log(2)}
    pair = Gaussians(**{name: torch.cat((value, value)) for name, value in halved.items()})
    some = Gaussians(**{name: value[:20] for name, value in vars(pair).items()})
    rest = Gaussians(**{name: value[20:] for name, value in vars(teacher).items()})
    split = Gaussians(**{
        name: torch.cat((value, vars(rest)[name], value)) for name, value in vars(some).items()
    })  # fmt: skip
    losses = {}
    for of in ("mass", "centres"):
        structure = Structure(teacher, 1.0, 1, (8, 16), of)
        losses[of] = float(structure.loss(split))
        assert float(structure.loss(teacher)) == pytest.approx(0, abs=1e-12)
    assert losses["mass"] == pytest.approx(0, abs=1e-12) and losses["centres"] > 0.01


def test_gradients_of_the_loss_by_mass_reach_all_that_covers(cloud: torch.Tensor) -> None:
    structure = Structure(gaussians_at(cloud), 0.5, 1, (6, 9), "mass")
    start = gaussians_at(cloud + 0.07)
    scales, logits = start.log_scales + 0.2, start.logit_opacities - 0.3

    def loss(log_scales: torch.Tensor, logit_opacities: torch.Tensor) -> torch.Tensor:
        return structure.loss(replace(start, log_scales=log_scales, logit_opacities=logit_opacities))

    assert torch.autograd.gradcheck(loss, (scales.requires_grad_(), logits.requires_grad_()), eps=1e-6)


def test_an_error_of_depth_counts_by_how_much_it_is_believed() -> None:
    depth = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64, requires_grad=True)
    true, belief = torch.tensor([2.0, 2.0, 0.0]).double(), torch.tensor([1.0, 0.5, 0.0]).double()
    loss = depth_loss(depth, true, belief)
    assert loss.item() == pytest.approx((0.5 + 0.25 + 0) / 3)
    (gradient,) = torch.autograd.grad(loss, depth)
    assert gradient.tolist() == pytest.approx([-0.5 / 3, 0.25 / 3, 0])


def test_histogram_keeps_the_mass_of_every_centre(cloud: torch.Tensor) -> None:
    grid = VoxelGrid.around(cloud, resolution=16, outliers=0.1)
    far = torch.cat((cloud, cloud * 1000, cloud[:1] * 0 + 1e9))
    assert grid.histogram(far).sum().item() == pytest.approx(len(far))


def test_grid_is_not_stretched_by_floaters(cloud: torch.Tensor) -> None:
    many = cloud.repeat(20, 1)
    with_floaters = torch.cat((many, torch.full((4, 3), 1e4, dtype=torch.float64)))
    assert torch.allclose(VoxelGrid.around(with_floaters).spacing, VoxelGrid.around(many).spacing, rtol=0.2)


def test_structural_loss_tells_a_line_from_a_cube() -> None:
    """Three 1-D marginals cannot tell them apart; a joint histogram must."""
    axis = torch.linspace(0, 1, 8, dtype=torch.float64)
    cube = torch.cartesian_prod(axis, axis, axis)
    line = axis[:, None].repeat(64, 3)
    grid = VoxelGrid.around(cube, resolution=8, outliers=0, margin=0)
    assert structural_loss(grid.histogram(cube), grid.histogram(cube)).item() == pytest.approx(0, abs=1e-12)
    assert structural_loss(grid.histogram(line), grid.histogram(cube)).item() > 0.5


def test_structural_loss_does_not_depend_on_the_number_of_gaussians(cloud: torch.Tensor) -> None:
    grid = VoxelGrid.around(cloud, resolution=16)
    loss = structural_loss(grid.histogram(cloud.repeat(5, 1)), grid.histogram(cloud))
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_gradient_of_the_structural_loss_by_finite_differences(cloud: torch.Tensor) -> None:
    grid = VoxelGrid.around(cloud, resolution=9, outliers=0)
    teacher = grid.histogram(cloud)
    moved = cloud + 0.1 * torch.randn(cloud.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    # the histogram has a kink where a centre passes a voxel centre: stay away from those
    position = (moved - grid.lowest) / grid.spacing
    moved = grid.lowest + grid.spacing * (position.floor() + (position % 1).clamp(0.05, 0.95))
    moved.requires_grad_()
    assert torch.autograd.gradcheck(lambda means: structural_loss(grid.histogram(means), teacher), moved, eps=1e-6)


def test_centres_are_drawn_towards_the_teachers(cloud: torch.Tensor) -> None:
    grid = VoxelGrid.around(cloud, resolution=12)
    teacher = grid.histogram(cloud)
    student = torch.nn.Parameter(cloud + 0.3 * grid.spacing)
    before = structural_loss(grid.histogram(student), teacher)
    before.backward()
    assert student.grad is not None
    with torch.no_grad():
        after = structural_loss(grid.histogram(student - 0.05 * student.grad / student.grad.abs().max()), teacher)
    assert after < before
