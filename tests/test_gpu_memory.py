"""A command leaves the GPU's memory to the training that it starts."""

from __future__ import annotations

import pytest

from distilled_splat.ops.gpu_memory import release_gpu_memory


@pytest.mark.parametrize("uses_a_gpu", [True, False])
def test_unused_memory_is_returned_if_this_process_uses_a_gpu(
    uses_a_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied = []
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: uses_a_gpu)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: emptied.append(True))
    release_gpu_memory()
    assert emptied == [True] * uses_a_gpu
