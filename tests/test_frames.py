"""Gaussians that move with their cameras look the same."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import cloud, same, with_y_up
from gsplat.cuda._torch_impl import _eval_sh_bases_fast
from gsplat.utils import normalized_quat_to_rotmat
from scenes import dense_scene

from distilled_splat.ops.render import render
from distilled_splat.ops.views import View
from distilled_splat.splat.frames import LEFT_UP_FRONT, UPRIGHT, DataFrame, half_turned, moved
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.harmonics import harmonics, harmonics_rotation
from distilled_splat.training.data_frame import applied_in, without


def rotation(seed: int) -> torch.Tensor:
    """A random rotation, [3, 3]."""
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r))
    return q * torch.linalg.det(q)


def transform_of(seed: int, stretch: float = 1.0) -> torch.Tensor:
    offset = torch.randn(3, 1, generator=torch.Generator().manual_seed(seed + 50), dtype=torch.float64)
    return torch.cat((stretch * rotation(seed), 3 * offset), dim=1)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("seed", "scale", "stretch"), [(1, 1.0, 1.0), (2, 0.3, 1.0), (3, 2.0, 1.7)])
def test_the_same_view_before_and_after_is_the_same_picture(
    degree: int, seed: int, scale: float, stretch: float
) -> None:
    scene = dense_scene(degree=degree, seed=seed)
    gaussians = Gaussians(
        scene.means, scene.quats, scene.scales.log(), torch.logit(scene.opacities), scene.colors[:, 0],
        scene.colors[:, 1:],
    )  # fmt: skip
    transform = transform_of(seed, stretch)
    turn = transform[:, :3] / stretch
    # a camera at p looking along R stands at scale (A p + t) and looks along A R / stretch
    viewmat = scene.viewmats[0].double()
    place = scale * (transform[:, :3] @ (-viewmat[:3, :3].T @ viewmat[:3, 3]) + transform[:, 3])
    after = torch.eye(4, dtype=torch.float64)
    after[:3, :3] = viewmat[:3, :3] @ turn.T
    after[:3, 3] = -after[:3, :3] @ place
    views = [View(matrix.float(), scene.Ks[0], scene.width, scene.height) for matrix in (viewmat, after)]
    first = render(gaussians, views[0])
    second = render(moved(gaussians, transform, scale), views[1])
    unturned = render(moved(gaussians, torch.eye(3, 4), 1.0), views[1])
    difference = (first.color - second.color).abs()
    # where an alpha sits on the 1/255 cutoff, rounding decides
    assert float(difference.mean()) < 1e-5 and float(difference.max()) < 0.01
    assert float((first.color - unturned.color).abs().mean()) > 0.01


@pytest.mark.parametrize("degree", range(5))
def test_half_a_turn_is_a_turn_without_rounding(degree: int) -> None:
    gaussians = cloud(40, degree)
    half = half_turned(gaussians)
    assert same(half, moved(gaussians, LEFT_UP_FRONT, 1.0), 1e-5)
    assert same(half_turned(half), replace(gaussians, quats=-gaussians.quats))  # the same rotations
    if degree <= 3:
        assert same(half, with_y_up(gaussians))


def test_upright_takes_up_from_z_to_minus_y() -> None:
    up, ahead, right = torch.eye(3).flip(0)
    for before, after in ((up, -ahead), (ahead, up), (right, right)):
        gaussian = replace(cloud(1), means=before[None])
        assert torch.equal(moved(gaussian, UPRIGHT, 1.0).means[0], after)


@pytest.mark.parametrize("degree", range(5))
def test_harmonics_are_the_basis_of_gsplat(degree: int) -> None:
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(3)), dim=-1)
    theirs = _eval_sh_bases_fast((degree + 1) ** 2, directions.double())
    assert torch.allclose(harmonics(degree, directions.double()), theirs, rtol=0, atol=1e-7)


def test_harmonics_are_orthonormal_on_the_sphere() -> None:
    """By a quadrature that is exact for products of two harmonics of degree 4: polynomials of degree 8."""
    heights, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(6))
    angles = torch.arange(12, dtype=torch.float64) * (2 * math.pi / 12)
    z, angle = (grid.flatten() for grid in torch.meshgrid(heights, angles, indexing="ij"))
    circle = (1 - z**2).sqrt()
    values = harmonics(4, torch.stack((circle * angle.cos(), circle * angle.sin(), z), dim=-1))
    areas = (weights[:, None] * (2 * math.pi / 12)).expand(6, 12).flatten()
    assert torch.allclose(values.T @ (areas[:, None] * values), torch.eye(25, dtype=torch.float64), atol=1e-12)


def test_harmonics_turn_as_a_group_and_keep_their_length() -> None:
    one, other = rotation(1), rotation(2)
    product = harmonics_rotation(one, 4) @ harmonics_rotation(other, 4)
    assert torch.allclose(harmonics_rotation(one @ other, 4), product, atol=1e-5)
    assert torch.allclose(product @ product.T, torch.eye(25), atol=1e-5)
    assert torch.allclose(harmonics_rotation(torch.eye(3, dtype=torch.float64), 4), torch.eye(25), atol=1e-5)


def test_moving_back_changes_nothing() -> None:
    gaussians, transform, scale = cloud(50, degree=4), transform_of(4), 0.4
    turn, offset = transform[:, :3], transform[:, 3:]
    back = torch.cat((turn.T, -scale * turn.T @ offset), dim=1)
    again = moved(moved(gaussians, transform, scale), back, 1 / scale)
    sign = torch.sign((again.quats * gaussians.quats).sum(-1, keepdim=True))
    assert same(Gaussians(again.means, again.quats * sign, *list(vars(again).values())[2:]), gaussians, 2e-5)


def test_a_mirrored_frame_mirrors_ellipsoids_and_colours() -> None:
    gaussians = cloud(20, degree=3)
    mirror = torch.diag(torch.tensor([1.0, -1.0, 1.0])).double()
    other = moved(gaussians, torch.cat((mirror, torch.zeros(3, 1)), dim=1), 1.0)

    def covariance(of: Gaussians) -> torch.Tensor:
        axes = normalized_quat_to_rotmat(torch.nn.functional.normalize(of.quats, dim=-1)) * of.log_scales.exp()[:, None]
        return axes @ axes.transpose(1, 2)

    assert torch.allclose(covariance(other), mirror.float() @ covariance(gaussians) @ mirror.float(), rtol=1e-4)
    # in 3DGS's basis the orders below zero are odd in y
    odd = torch.cat([torch.arange(-band, band + 1) for band in range(1, 4)]) < 0
    assert torch.allclose(other.sh_rest, gaussians.sh_rest * torch.where(odd, -1.0, 1.0)[:, None], atol=1e-5)


def test_a_frame_that_distorts_is_refused() -> None:
    for matrix in (torch.diag(torch.tensor([1.0, 1.0, 2.0])), torch.zeros(3, 3), torch.full((3, 3), math.nan)):
        with pytest.raises(ValueError, match="it distorts shapes"):
            moved(cloud(), torch.cat((matrix, torch.zeros(3, 1)), dim=1), 1.0)
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="is not a change of frame"):
            moved(cloud(), torch.eye(3, 4), scale)


@pytest.mark.parametrize(
    "meta",
    [
        "{}",
        "[]",
        "no json",
        '{"applied_transform": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]}',
        '{"applied_transform": [[1, 0], [0, 1]]}',
        '{"applied_transform": "turned"}',
        '{"applied_transform": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]}',
        '{"applied_transform": [[NaN, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]}',
        '{"applied_scale": 0}',
    ],
)
def test_what_was_not_applied_or_cannot_be_undone_is_nothing(tmp_path: Path, meta: str) -> None:
    (tmp_path / "transforms.json").write_text(meta)
    assert torch.equal(applied_in(tmp_path)[0], torch.eye(4)[:3]) and applied_in(tmp_path)[1] == 1
    capture = (torch.tensor([[0.0, 1, 0, 3], [1, 0, 0, 0], [0, 0, -1, 2]]), 0.25)
    assert DataFrame(capture, without(capture, *applied_in(tmp_path))).worlds == ("nerfstudio", "capture")


def test_a_capture_of_colmap_that_notes_nothing_was_turned_as_nerfstudio_takes_it_to_be(tmp_path: Path) -> None:
    (tmp_path / "colmap" / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "transforms.json").write_text("{}")
    applied, scale = applied_in(tmp_path)
    assert applied.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]] and scale == 1
    noted = '{"applied_transform": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2]], "applied_scale": 2}'
    (tmp_path / "transforms.json").write_text(noted)
    applied, scale = applied_in(tmp_path / "transforms.json")
    assert applied[:, 3].tolist() == [0, 0, 2] and scale == 2
