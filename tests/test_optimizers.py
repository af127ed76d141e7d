"""Adam in one pass is torch's Adam."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from distilled_splat.optimizers import OnePassAdam, splat_optimizers


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
