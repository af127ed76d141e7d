"""LPIPS is measured on the device of the images, as on the CPU."""

from __future__ import annotations

import pytest
import torch
from vgg import random_images, random_weights

from distilled_splat.evaluation.lpips import Lpips
from sham_cuda.device import CUDA


def test_distances_on_the_device_are_those_on_the_cpu() -> None:
    weights = random_weights(3)
    photo, one, other = random_images(40, 32, 3)
    expected = Lpips(weights, torch.device("cpu")).distances(photo, [one, other])
    found = Lpips(weights, CUDA).distances(photo.to(CUDA), [one.to(CUDA), other.to(CUDA)])
    assert found == pytest.approx(expected, rel=1e-5)
