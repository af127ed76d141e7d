"""The doctor: one line for each thing, an exit code that can be relied on, and a table of trainings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distilled_splat.doctor.backends import agreement, off_from_finite_differences, picture_and_gradients
from distilled_splat.doctor.findings import Finding, looked_at
from distilled_splat.doctor.machine import methods
from distilled_splat.doctor.trainings import gpu_gigabytes, steps_per_second


def test_what_goes_wrong_with_a_look_is_a_finding_too() -> None:
    def out_of_memory() -> Finding:
        raise MemoryError

    def refused() -> Finding:
        raise SystemExit("Nothing can be\nwritten.")

    assert looked_at("it", lambda: Finding("it", "is there")) == Finding("it", "is there", "ok")
    assert looked_at("it", out_of_memory) == Finding("it", "MemoryError", "fault")
    assert looked_at("it", refused) == Finding("it", "Nothing can be written.", "fault")


def test_derivatives_are_those_of_finite_differences() -> None:
    assert off_from_finite_differences("cpu") < 1e-4


def test_backends_that_differ_in_anything_are_a_fault() -> None:
    one = picture_and_gradients("cpu")
    assert agreement(one, picture_and_gradients("cpu")) == Finding(
        "agreement", "the renders differ by 0.0e+00, the largest difference is 0.0e+00 (picture)"
    )
    for value in (1.01, float("nan")):
        other = {**one, "gradient of quats": value * one["gradient of quats"]}
        found = agreement(one, other)
        assert found.verdict == "fault" and "gradient of quats" in found.words


def test_methods_that_are_not_installed_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert methods().verdict != "fault"
    monkeypatch.setattr("nerfstudio.plugins.registry.discover_methods", lambda: ({"splatfacto-teacher": 1}, {}))
    found = methods()
    assert found.verdict == "fault" and "the methods distilled-splatfacto" in found.words


def test_figures_of_a_run_are_read_from_its_log(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    pace = steps_per_second(teachers[0])
    assert pace is not None and 0 < pace < 1e4
    assert gpu_gigabytes(teachers[0]) == 0
    assert steps_per_second(tmp_path) is None and gpu_gigabytes(tmp_path) is None


@pytest.mark.slow
def test_the_doctor_says_what_is_there_and_trains_everything(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "distilled-splat"
    words = [command, "doctor", "--full", "--steps", "12", "--output", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, str] = dict(re.findall(r"^(?:ok|note) +([^:]+): (.+)$", done.stdout, re.MULTILINE))
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for subject in ("versions", "memory", "ns-train", "nvcc", "ninja", *(f"rendering, {device}" for device in devices)):
        assert subject in found, done.stdout
    assert "ms a step" in found["training, cpu"]
    table = {
        cells[0]: cells[1:] for line in lines if len(cells := [cell.strip() for cell in line.split("│")[1:-1]]) == 6
    }
    for name in ("standard-teacher", "perturbed-teacher", "dropout-teacher", "student"):
        device, gaussians, pace, peak, psnr = table[name]
        assert device == "cpu" and int(gaussians) > 0 and min(map(float, (pace, peak, psnr))) > 0
    assert int(table["student"][1]) == round(0.12 * int(table["standard-teacher"][1]))
    assert lines[-1] == "This machine can train students."
