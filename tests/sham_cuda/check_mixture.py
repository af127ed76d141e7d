"""A check that fails, to see that it is told."""

from __future__ import annotations

import torch

from sham_cuda.device import CUDA


def test_a_sum_over_two_devices_works() -> None:
    assert (torch.ones(3, device=CUDA) + torch.ones(3)).sum() == 6
