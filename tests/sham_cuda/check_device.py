"""The sham device refuses what CUDA refuses, and sees what the host waits for: so that the other checks can fail."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sham_cuda import gsplat_kernels
from sham_cuda.device import CUDA
from sham_cuda.ledger import Ledger


def on_device(*shape: int) -> Tensor:
    return torch.ones(*shape, device=CUDA)


def assign_data() -> None:
    parameter = torch.nn.Parameter(on_device(3))
    parameter.data = torch.ones(3)


def put_values_of_the_host() -> None:
    on_device(3)[torch.tensor([0, 1], device=CUDA)] = torch.ones(2)


def step_fused_adam_with_state_of_the_host() -> None:
    parameter = torch.nn.Parameter(on_device(3))
    parameter.grad = on_device(3)
    optimizer = torch.optim.Adam([parameter], fused=True)
    optimizer.step()
    optimizer.state[parameter]["exp_avg"] = torch.zeros(3)
    optimizer.step()


MIXTURES: dict[str, Callable[[], object]] = {
    "sum": lambda: on_device(3) + torch.ones(3),
    "sum with a number of the device": lambda: torch.ones(3) * on_device(3).sum(),
    "product of matrices": lambda: on_device(3, 3) @ torch.ones(3, 3),
    "in-place sum": lambda: torch.ones(3).add_(on_device(3)),
    "where": lambda: torch.where(torch.ones(3) > 0, on_device(3), on_device(3)),
    "cat": lambda: torch.cat((on_device(3), torch.ones(3))),
    "stack of numbers": lambda: torch.stack((on_device(3).sum(), torch.ones(()))),
    "index_add": lambda: on_device(3).index_add(0, torch.tensor([0]), on_device(1)),
    "index of the device": lambda: torch.ones(3)[torch.tensor([0], device=CUDA)],
    "mask of the device": lambda: torch.ones(3)[on_device(3) > 0],
    "values of the host": put_values_of_the_host,
    "assignment to data": assign_data,
    "moments of the host": step_fused_adam_with_state_of_the_host,
    "gsplat's kernels": lambda: harmonics_of(torch.ones(2, 3)),
}


def harmonics_of(directions: Tensor) -> Tensor:
    from gsplat.cuda._wrapper import spherical_harmonics

    return spherical_harmonics(1, directions, on_device(2, 4, 3))


@pytest.mark.parametrize("name", MIXTURES)
def test_tensors_of_two_devices_are_not_mixed(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"device|CUDA|incompatible"):
        MIXTURES[name]()


def test_numbers_and_indices_of_the_host_are_taken() -> None:
    values = on_device(3) * torch.tensor(2.0)
    values[torch.tensor([0])] = torch.tensor(5.0)
    assert values.device == CUDA
    assert values[torch.tensor([0, 1])].tolist() == [5.0, 2.0]


@pytest.mark.parametrize("read", [lambda x: x.numpy(), np.asarray, lambda x: np.add(x, 1)])
def test_numpy_cannot_read_the_device(read: Callable[[Tensor], object]) -> None:
    with pytest.raises(TypeError, match="numpy"):
        read(on_device(3))


def test_the_device_cannot_be_pinned() -> None:
    with pytest.raises(RuntimeError, match="pin"):
        on_device(3).pin_memory()


def test_kernels_refuse_other_types_and_layouts() -> None:
    with pytest.raises(RuntimeError, match="Float"):
        harmonics_of(on_device(2, 3).double())
    with pytest.raises(RuntimeError, match="contiguous"):
        gsplat_kernels.compute_sh_fwd(1, on_device(3, 2).T, on_device(2, 4, 3), None)


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: float(x.sum()),
    "item of a condition": lambda x: bool((x > 0).all()),
    "item of a list": lambda x: x.tolist(),
    "nonzero": lambda x: torch.where(x > 0),
    "boolean mask": lambda x: x[x > 0],
    "boolean mask of what is set": lambda x: x.__setitem__(x > 0, 0.0),
    "download": lambda x: x.cpu(),
    "upload": lambda x: x.copy_(torch.zeros(3)),
    "upload of a list": lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device),
    "upload of a new tensor": lambda x: x.new_tensor([1.0]),
    "upload of an index": lambda x: x[torch.tensor([0])],
    "upload of a photo": lambda x: torch.zeros(3).to(x.device),
    "upload of a photo to any GPU": lambda x: torch.zeros(3).to("cuda", torch.float64),
    "upload of a module": lambda x: torch.nn.Linear(3, 1, bias=False).to(device="cuda"),
    "inverse": lambda x: torch.inverse(torch.diag(x)),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_the_host_waits_for_is_seen_with_its_line(name: str, ledger: Ledger) -> None:
    tensor = on_device(3)
    assert not ledger.waits
    WAITS[name](tensor)
    line = inspect.getsourcelines(WAITS[name])[1]
    kind = name.split(" of ")[0]
    found = [wait for wait in ledger.waits if wait.kind == kind]
    assert [wait.place for wait in found] == [f"{Path(__file__)}:{line}"]
    assert f"{Path(__file__)}:{line}" in ledger.table(1)


def test_what_stays_on_the_device_makes_nobody_wait(ledger: Ledger) -> None:
    tensor = on_device(3)
    masked = torch.where(tensor > 0, tensor, 0.0)
    masked[0] = 2.0
    masked[:2] *= torch.rand(2, device=CUDA)
    masked.to(CUDA).to("cuda").cuda().float()
    (masked.sort().values + torch.zeros_like(masked)).topk(2).indices.clamp(0, 1)
    torch.zeros(3).pin_memory().to(CUDA, non_blocking=True)
    assert not ledger.waits, ledger.table(1)


def test_a_tensor_that_is_there_already_is_not_copied() -> None:
    tensor = on_device(3)
    assert tensor.to(CUDA) is tensor.to("cuda") is tensor.cuda() is tensor
    assert tensor.to(torch.float64).dtype == tensor.to(CUDA, torch.float64).dtype == torch.float64


def test_gradients_flow_through_the_device_and_back() -> None:
    weight = torch.ones(3, requires_grad=True)
    loss = (weight.to(CUDA) ** 2 * torch.tensor([1.0, 2.0, 3.0], device=CUDA)).sum().cpu()
    loss.backward()
    assert weight.grad is not None and weight.grad.device.type == "cpu"
    assert weight.grad.tolist() == [2.0, 4.0, 6.0]


def test_copies_and_changes_of_a_parameter_hold() -> None:
    parameter = torch.nn.Parameter(on_device(3))
    twin = copy.deepcopy(parameter)
    parameter.data = torch.zeros(5, device=CUDA)
    assert isinstance(twin, torch.nn.Parameter) and twin.requires_grad
    assert parameter.shape == (5,) and (parameter + 1).tolist() == [1.0] * 5
    assert twin.tolist() == [1.0] * 3
