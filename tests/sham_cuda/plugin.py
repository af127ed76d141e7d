"""pytest's plugin that installs the sham device, as python -m pytest -p sham_cuda.plugin does (see sham_process)."""

from __future__ import annotations

import pytest
import torch

from sham_cuda import gsplat_kernels, torch_cuda
from sham_cuda.ledger import LEDGER, Ledger

torch.set_num_threads(1)
torch_cuda.install()
gsplat_kernels.install()


@pytest.fixture
def ledger() -> Ledger:
    """The sham device's ledger, empty."""
    LEDGER.clear()
    return LEDGER
