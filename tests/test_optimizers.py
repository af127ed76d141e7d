"""Adam in one pass is torch's Adam."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from distilled_splat.methods import distilled_splatfacto, distilled_splatfacto_paper, splatfacto_teacher
from distilled_splat.ops.adam import OnePassAdam
from distilled_splat.training.optimizers import CooldownSchedulerConfig, splat_optimizers


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1000, 15, 3), (37, 3), (1,), (0, 3), ()]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def train(optimizer: torch.optim.Optimizer, steps: int, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in optimizer.param_groups[0]["params"]:
            gradient = torch.randn(parameter.shape, generator=generator) * 10.0 ** float(
                torch.randint(-6, 3, (), generator=generator)
            )
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("eps", [1e-15, 1e-8])
def test_steps_are_torchs_in_double_precision(eps: float) -> None:
    ours, theirs = parameters(), parameters(torch.float64)
    train(OnePassAdam(ours, lr=0.01, eps=eps), 30)
    train(torch.optim.Adam(theirs, lr=0.01, eps=eps), 30)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_a_state_goes_on_in_either() -> None:
    ours, theirs = parameters(), parameters()
    first = OnePassAdam(ours, lr=0.01, eps=1e-15)
    train(first, 5)
    second = torch.optim.Adam(theirs, lr=0.01, eps=1e-15)
    train(second, 5)
    swapped_first, swapped_second = copy.deepcopy(second.state_dict()), copy.deepcopy(first.state_dict())
    first.load_state_dict(swapped_first)
    second.load_state_dict(swapped_second)
    train(first, 5, seed=2)
    train(second, 5, seed=2)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", [None, True])
def test_a_state_of_another_device_leaves_this_ones_kernel(kept: bool | None) -> None:
    """A checkpoint says which of torch's kernels wrote it: the fused one on CUDA, none on the CPU."""
    (parameter, *_) = parameters()
    optimizer = OnePassAdam([parameter], lr=0.1)
    train(optimizer, 1)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["fused"] = True if kept is None else None
    optimizer.param_groups[0]["fused"] = kept
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["fused"] is kept


def test_a_parameter_without_gradient_stays() -> None:
    (first, second, *_) = parameters()
    optimizer = OnePassAdam([first, second], lr=0.1)
    before = second.detach().clone()
    first.grad = torch.ones_like(first)
    optimizer.step()
    assert torch.equal(second, before) and second not in optimizer.state


def test_a_gradient_that_is_a_view_is_taken_as_it_stands() -> None:
    parameter, reference = torch.nn.Parameter(torch.zeros(40, 3)), torch.nn.Parameter(torch.zeros(40, 3))
    gradient = torch.randn(3, 40).T
    parameter.grad, reference.grad = gradient, gradient.contiguous()
    OnePassAdam([parameter], lr=0.1).step()
    torch.optim.Adam([reference], lr=0.1).step()
    torch.testing.assert_close(parameter, reference)


def test_a_parameter_that_is_not_contiguous_is_optimised_too() -> None:
    parameter, reference = torch.nn.Parameter(torch.zeros(3, 40).T), torch.nn.Parameter(torch.zeros(40, 3))
    parameter.grad = torch.randn(40, 3)
    reference.grad = parameter.grad.clone()
    OnePassAdam([parameter], lr=0.1).step()
    torch.optim.Adam([reference], lr=0.1).step()
    torch.testing.assert_close(parameter.contiguous(), reference)


def test_learning_rates_are_splatfactos() -> None:
    from nerfstudio.configs.method_configs import method_configs

    splatfacto: Any = method_configs["splatfacto"]
    stock = splatfacto.optimizers
    for name, group in splat_optimizers().items():
        assert group["optimizer"].lr == stock[name]["optimizer"].lr
        assert group["optimizer"].eps == stock[name]["optimizer"].eps


def rates(steps: int, part: float, interrupted_at: int = 0) -> list[float]:
    """Return the learning rates of a run's steps; one that is interrupted resumes from its saved state."""
    config = CooldownSchedulerConfig(max_steps=steps, fraction=part)
    used, state = [], None
    for first, last in ((0, interrupted_at), (interrupted_at, steps)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
        scheduler = config.setup().get_scheduler(optimizer, 3.0)
        if state is not None:
            optimizer.load_state_dict(state[0])
            scheduler.load_state_dict(state[1])
        for _ in range(first, last):
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        state = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    return used


@pytest.mark.parametrize("interrupted_at", [0, 30, 90])
def test_learning_rates_fall_to_nothing_in_the_last_part(interrupted_at: int) -> None:
    used = rates(100, 0.2, interrupted_at)
    assert used[:81] == [3.0] * 81
    assert used[80:] == pytest.approx([3.0 * left / 20 for left in range(20, 0, -1)])


@pytest.mark.parametrize(("steps", "part"), [(1, 0.2), (3, 0.2), (10, 0.0), (10, 1.0)])
def test_every_step_has_a_learning_rate(steps: int, part: float) -> None:
    used = rates(steps, part)
    assert used == sorted(used, reverse=True) and used[0] == 3.0 and used[-1] > 0
    if part == 0:
        assert used == [3.0] * steps


def test_only_our_own_student_cools_down() -> None:
    cooling = {
        name
        for name, group in distilled_splatfacto.config.optimizers.items()
        if isinstance(group["scheduler"], CooldownSchedulerConfig)
    }
    assert cooling == {"features_dc", "features_rest", "opacities", "scales", "quats"}
    for method in (splatfacto_teacher, distilled_splatfacto_paper):
        stock = [group["scheduler"] for group in method.config.optimizers.values()]
        assert not any(isinstance(scheduler, CooldownSchedulerConfig) for scheduler in stock)
