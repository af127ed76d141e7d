"""The cap on densification."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
import torch
from gsplat.strategy import DefaultStrategy

from distilled_splat.ops.densify import CappedStrategy

GSPLAT = tuple(int(part) for part in version("gsplat").split(".")[:2])
SHAPES: dict[str, tuple[int, ...]] = {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (1,)}


def splat(count: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Gaussians that are small and opaque, each of which gets the gradient of its index."""
    generator = torch.Generator().manual_seed(0)
    parameters = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(torch.randn(count, *shape, generator=generator)) for name, shape in SHAPES.items()}
    )
    parameters["scales"].data.fill_(-6)
    parameters["opacities"].data.fill_(3)
    optimizers = {name: torch.optim.Adam([parameter]) for name, parameter in parameters.items()}
    state = {"grad2d": torch.arange(count) * 1e-2, "count": torch.ones(count), "scene_scale": 1.0}
    return parameters, optimizers, state


@pytest.mark.parametrize(("cap", "expected"), [(None, 19), (100, 19), (15, 15), (11, 11), (10, 10), (5, 10)])
def test_growth_stops_at_the_cap(cap: int | None, expected: int) -> None:
    parameters, optimizers, state = splat(10)
    strategy = CappedStrategy(grow_grad2d=1e-3, max_gaussians=cap)
    strategy._grow_gs(parameters, optimizers, state, step=1000)
    assert len(parameters["means"]) == expected
    assert strategy.grow_grad2d == 1e-3


def test_the_largest_gradients_are_grown_first() -> None:
    parameters, optimizers, state = splat(10)
    before = parameters["means"].detach().clone()
    CappedStrategy(grow_grad2d=1e-3, max_gaussians=13)._grow_gs(parameters, optimizers, state, step=1000)
    assert torch.equal(parameters["means"][10:], before[7:])


def test_splits_for_size_do_not_break_the_cap() -> None:
    parameters, optimizers, state = splat(10)
    state["radii"] = torch.ones(10)
    strategy = CappedStrategy(grow_grad2d=1e-3, max_gaussians=12, refine_scale2d_stop_iter=10_000)
    strategy._grow_gs(parameters, optimizers, state, step=1000)
    assert len(parameters["means"]) == 12


@pytest.mark.parametrize("at_start", [True, False])
def test_opacities_are_reset_after_the_first_step_only_if_wanted(at_start: bool) -> None:
    strategy = CappedStrategy(prune_opa=0.005, reset_every=3000, reset_at_start=at_start)
    for step, is_reset in ((0, at_start), (1, False), (3000, True)):
        parameters, optimizers, _ = splat(10)
        means2d = torch.zeros(1, 10, 2, requires_grad=True)
        means2d.grad = torch.zeros(1, 10, 2)
        info = {"means2d": means2d, "radii": torch.ones(1, 10), "width": 8, "height": 8, "n_cameras": 1}
        state = strategy.initialize_state(scene_scale=1.0)
        strategy.step_post_backward(parameters, optimizers, state, step, info)
        opacities = torch.sigmoid(parameters["opacities"].detach())
        assert torch.allclose(opacities, torch.full_like(opacities, 0.01 if is_reset else 0.9526), atol=1e-3)


@pytest.mark.parametrize("absgrad", [False, True])
@pytest.mark.parametrize("until", [0, 4000])
def test_statistics_are_gsplats(absgrad: bool, until: int) -> None:
    generator = torch.Generator().manual_seed(0)
    strategies = [kind(absgrad=absgrad, refine_scale2d_stop_iter=until) for kind in (DefaultStrategy, CappedStrategy)]
    states = [strategy.initialize_state() for strategy in strategies]
    parameters: Any = {"means": torch.zeros(300, 3)}
    cameras = 1 if until else 2  # of several cameras' radii gsplat keeps the last, not the largest
    for _ in range(3):
        means2d = torch.zeros(cameras, 300, 2, requires_grad=True)
        means2d.grad = torch.randn(cameras, 300, 2, generator=generator)
        means2d.absgrad = means2d.grad.abs() * 2  # type: ignore[attr-defined]
        radii = torch.randint(-5, 20, (cameras, 300), generator=generator, dtype=torch.int32).clamp_min(0)
        if GSPLAT >= (1, 5):
            radii = torch.stack((radii, radii), dim=-1)
        info = {
            "means2d": means2d, "radii": radii, "width": 70, "height": 45, "n_cameras": cameras, "gaussian_ids": None,
        }  # fmt: skip
        for strategy, state in zip(strategies, states):
            strategy._update_state(parameters, state, info)
    theirs, ours = states
    assert theirs.keys() == ours.keys()
    for name in ("grad2d", "count", "radii") if until else ("grad2d", "count"):
        torch.testing.assert_close(ours[name], theirs[name])
