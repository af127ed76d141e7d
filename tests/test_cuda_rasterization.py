"""Rendering on CUDA, by a sham device in a process of its own (see sham_cuda)."""

from __future__ import annotations

import pytest
from sham_process import run_checks


def test_the_sham_device_refuses_what_cuda_refuses_and_gsplat_renders_on_it_as_the_cpu_does() -> None:
    run_checks("device", "rasterization")


def test_the_doctor_tries_cuda_and_a_training_without_kernels_is_refused() -> None:
    run_checks("doctor")


def test_a_check_that_mixes_devices_fails_with_its_report() -> None:
    with pytest.raises(AssertionError, match="found at least two devices"):
        run_checks("mixture")
