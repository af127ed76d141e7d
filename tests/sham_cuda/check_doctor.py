"""The doctor on a machine with the sham device, with gsplat's kernels and without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import prepared

from distilled_splat.doctor.command import Doctor
from distilled_splat.ops.toolchain import fault_of_kernels
from sham_cuda.trainings import teacher_on


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What gsplat leaves behind where it has found no nvcc."""
    monkeypatch.setattr(sys.modules["gsplat.cuda._backend"], "_C", None)
    fault_of_kernels.cache_clear()
    yield
    fault_of_kernels.cache_clear()


def test_both_backends_are_tried_and_agree(capsys: pytest.CaptureFixture[str]) -> None:
    Doctor().run()
    printed = capsys.readouterr().out
    for subject in ("device: CUDA", "gsplat's kernels: loaded", "agreement: the renders differ"):
        assert f"ok    {subject}" in printed, printed
    for device in ("cuda", "cpu"):
        assert f"ok    rendering, {device}" in printed and f"ok    training, {device}" in printed, printed
    assert "fault" not in printed


def test_kernels_that_are_missing_are_a_fault(capsys: pytest.CaptureFixture[str], no_kernels: None) -> None:
    with pytest.raises(SystemExit) as left:
        Doctor().run()
    printed = capsys.readouterr().out
    assert left.value.code == 1
    assert "fault gsplat's kernels: " in printed and "install the CUDA toolkit" in printed
    assert "ok    rendering, cpu" in printed, "the CPU is there all the same"


def test_a_training_without_kernels_is_refused_before_it_reads_the_data(
    tmp_path: Path, no_kernels: None, scene: Path
) -> None:
    config = teacher_on("cuda", scene, tmp_path)
    config.data = config.pipeline.datamanager.data = tmp_path / "nowhere"
    with pytest.raises(SystemExit, match="because nvcc is neither on PATH nor in"):
        prepared(config)
    assert not config.get_base_dir().exists()
