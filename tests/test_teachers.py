"""The noise of the perturbed teacher and the dropout of the other."""

from __future__ import annotations

import pytest
import torch
from gsplat.utils import normalized_quat_to_rotmat

from distilled_splat.ops.quaternions import quaternion_product, small_random_rotation
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.teachers.kinds import dropout_factors, dropout_probability, perturbed


def cloud(count: int, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        means=random(count, 3),
        quats=random(count, 4),
        log_scales=random(count, 3) * 2 - 4,
        logit_opacities=random(count),
        sh_dc=random(count, 3),
        sh_rest=random(count, 15, 3),
    )


def test_dropout_rate_rises_linearly_as_in_the_paper() -> None:
    assert dropout_probability(500, 500, 15000, 0.2) == 0
    assert dropout_probability(7750, 500, 15000, 0.2) == pytest.approx(0.1)
    assert dropout_probability(15000, 500, 15000, 0.2) == pytest.approx(0.2)


def test_dropout_switches_off_that_fraction_and_keeps_the_mean_opacity() -> None:
    torch.manual_seed(0)
    opacities = torch.rand(200_000)
    factors = dropout_factors(opacities, 0.2, compensate=True)
    assert (factors == 0).float().mean().item() == pytest.approx(0.2, abs=0.005)
    assert (factors * opacities).mean().item() == pytest.approx(opacities.mean().item(), rel=0.01)
    assert set(dropout_factors(opacities, 0.2, compensate=False).unique().tolist()) == {0.0, 1.0}


def test_noise_on_centres_is_in_units_of_each_gaussians_own_axes() -> None:
    torch.manual_seed(0)
    gaussians = cloud(1)[torch.zeros(100_000, dtype=torch.long)]
    moved = perturbed(gaussians, position=0.3, rotation=0.0, log_scale=0.0, logit_opacity=0.0)
    rotation = normalized_quat_to_rotmat(torch.nn.functional.normalize(gaussians.quats[0], dim=-1))
    step = (moved.means - gaussians.means) @ rotation
    assert torch.allclose(step.std(dim=0) / torch.exp(gaussians.log_scales[0]), torch.tensor(0.3), rtol=0.02)
    assert torch.equal(moved.log_scales, gaussians.log_scales)


def test_no_noise_changes_nothing_but_the_length_of_quaternions() -> None:
    gaussians = cloud(50)
    same = perturbed(gaussians, 0.0, 0.0, 0.0, 0.0)
    assert torch.allclose(same.quats, torch.nn.functional.normalize(gaussians.quats, dim=-1), atol=1e-6)
    assert torch.equal(same.means, gaussians.means)


def test_small_rotations_are_the_orthonormalised_noisy_identity() -> None:
    torch.manual_seed(3)
    quats = small_random_rotation(5000, 0.2, torch.zeros(1))
    torch.manual_seed(3)
    first = torch.eye(3)[0] + 0.2 * torch.randn(5000, 3)
    second = torch.eye(3)[1] + 0.2 * torch.randn(5000, 3)
    q, r = torch.linalg.qr(torch.stack((first, second), dim=-1).double())
    q = q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[:, None, :]
    expected = torch.cat((q, torch.linalg.cross(q[..., 0], q[..., 1])[..., None]), dim=-1)
    assert torch.allclose(normalized_quat_to_rotmat(quats).double(), expected, atol=1e-5)


def test_quaternion_product_composes_rotations() -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(100, 4), dim=-1) for _ in range(2))
    composed = normalized_quat_to_rotmat(a) @ normalized_quat_to_rotmat(b)
    assert torch.allclose(normalized_quat_to_rotmat(quaternion_product(a, b)), composed, atol=1e-5)
