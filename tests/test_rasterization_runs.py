"""The CPU rasterizer in use: repeats, threads, forks, gsplat's strategy, no gradients, the kernel cache."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from gsplat.strategy import DefaultStrategy
from numba import njit
from numba.core import caching
from scenes import Scene, dense_scene

from distilled_splat.cpu import depth_order, threads, tiles
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.rasterize import rasterization


def forward_and_backward(scene: Scene, **settings: Any) -> list[torch.Tensor]:
    leaves = scene.leaves()
    image, alphas, info = rasterization(**scene.arguments(**leaves), **{"sh_degree": 3, "absgrad": True, **settings})
    cotangent = torch.linspace(-1, 1, image.numel()).reshape(image.shape)
    torch.autograd.backward([image, alphas], [cotangent, cotangent[..., :1]])
    gradients = [leaf.grad for leaf in leaves.values()]
    return [image.detach(), alphas.detach(), info["means2d"].absgrad, *gradients]  # type: ignore[list-item]


def assert_same_bits(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert torch.equal(a, b)


def test_repeats_are_the_same_bits() -> None:
    scene = dense_scene(count=20_000, width=150, height=100, cameras=2)
    first = forward_and_backward(scene)
    for _ in range(3):
        assert_same_bits(forward_and_backward(scene), first)


def test_one_thread_gives_the_same_bits_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = dense_scene(count=20_000, width=150, height=100)
    several = forward_and_backward(scene)
    for module in (threads, depth_order, tiles):
        monkeypatch.setattr(module, "num_threads", lambda: 1)
    assert_same_bits(forward_and_backward(scene), several)


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("cameras", [1, 2])
def test_coefficients_in_two_tensors_are_as_good_as_in_one(degree: int, cameras: int) -> None:
    scene = dense_scene(count=300, cameras=cameras, degree=max(degree, 2))
    joined = forward_and_backward(scene, sh_degree=degree)
    leaves = scene.leaves()
    colors = leaves.pop("colors").detach()
    base, rest = colors[:, 0].clone().requires_grad_(), colors[:, 1:].clone().requires_grad_()
    arguments = scene.arguments(**leaves, colors=(base, rest))
    image, alphas, info = rasterization(**arguments, sh_degree=degree, absgrad=True)
    cotangent = torch.linspace(-1, 1, image.numel()).reshape(image.shape)
    torch.autograd.backward([image, alphas], [cotangent, cotangent[..., :1]])
    assert base.grad is not None and rest.grad is not None
    gradients: list[Any] = [leaf.grad for leaf in leaves.values()]
    gradients.insert(4, torch.cat((base.grad[:, None], rest.grad), dim=1))
    assert_same_bits([image.detach(), alphas.detach(), info["means2d"].absgrad, *gradients], joined)


def test_python_threads_may_render_at_once() -> None:
    scenes = [dense_scene(seed=seed, count=9000, width=120, height=80) for seed in range(4)]
    alone = [forward_and_backward(scene) for scene in scenes]
    together: dict[int, list[list[torch.Tensor]]] = {}

    def render(i: int) -> None:
        together[i] = [forward_and_backward(scenes[i]) for _ in range(5)]

    workers = [threading.Thread(target=render, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, expected in enumerate(alone):
        for result in together[i]:
            assert_same_bits(result, expected)


def _render_in_child(connection: Any) -> None:
    # torch's own thread pool does not survive a fork; with one thread it is not asked for.
    torch.set_num_threads(1)
    connection.send(rasterization(**dense_scene(count=9000).arguments(), sh_degree=3)[0].numpy())
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_renders_and_so_does_its_parent() -> None:
    scene = dense_scene(count=9000)
    before = rasterization(**scene.arguments(), sh_degree=3)[0]
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_render_in_child, args=(sender,))
    child.start()
    assert receiver.poll(60), "the child did not finish"
    assert torch.equal(torch.from_numpy(receiver.recv()), before)
    child.join(10)
    assert child.exitcode == 0
    assert torch.equal(rasterization(**scene.arguments(), sh_degree=3)[0], before)


def test_gradients_that_are_kept_are_not_overwritten() -> None:
    scene = dense_scene(count=20_000, width=150, height=100)
    kept = forward_and_backward(scene)
    copies = [tensor.clone() for tensor in kept]
    for seed in range(3):
        forward_and_backward(dense_scene(seed=seed + 1, count=20_000, width=150, height=100))
    assert_same_bits(kept, copies)


def test_a_graph_may_be_walked_twice() -> None:
    scene = dense_scene()
    leaves = scene.leaves()
    image, _, _ = rasterization(**scene.arguments(**leaves), sh_degree=3)
    first = torch.autograd.grad(image.sum(), list(leaves.values()), retain_graph=True)
    second = torch.autograd.grad(image.sum(), list(leaves.values()))
    assert_same_bits(list(first), list(second))


@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
def test_rendering_without_gradients_gives_the_same_picture(render_mode: str) -> None:
    scene = dense_scene(cameras=2)
    settings = {"sh_degree": 3, "render_mode": render_mode, "backgrounds": torch.rand(2, 3)}
    image, alphas, _ = rasterization(**scene.arguments(**scene.leaves()), **settings)
    with torch.no_grad():
        image_only, alphas_only, _ = rasterization(**scene.arguments(**scene.leaves()), **settings)
    assert image.requires_grad and not image_only.requires_grad
    assert torch.equal(image, image_only) and torch.equal(alphas, alphas_only)


@pytest.mark.parametrize("asked", [["colors"], ["opacities"], ["means"], ["viewmats"], ["quats", "scales"]])
def test_only_what_requires_gradients_gets_them(asked: list[str]) -> None:
    scene = dense_scene()
    everything = scene.leaves()
    rasterization(**scene.arguments(**everything), sh_degree=3)[0].square().sum().backward()
    leaves = {name: tensor.clone().requires_grad_(name in asked) for name, tensor in scene.tensors().items()}
    rasterization(**scene.arguments(**leaves), sh_degree=3)[0].square().sum().backward()
    for name, leaf in leaves.items():
        if name in asked:
            assert torch.equal(leaf.grad, everything[name].grad), name  # type: ignore[arg-type]
        else:
            assert leaf.grad is None, name


@pytest.mark.parametrize("absgrad", [False, True])
def test_gsplats_default_strategy_runs_unchanged(absgrad: bool) -> None:
    scene = dense_scene(count=400, degree=1)
    raw = {
        "means": scene.means,
        "quats": scene.quats,
        "scales": scene.scales.log(),
        "opacities": torch.logit(scene.opacities.clamp(0.01, 0.99)),
        "sh": scene.colors,
    }
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(tensor.clone()) for name, tensor in raw.items()})
    optimizers = {name: torch.optim.Adam([params[name]], lr=1e-3) for name in params}
    strategy = DefaultStrategy(
        refine_start_iter=0, refine_every=2, reset_every=100, grow_grad2d=1e-6, absgrad=absgrad, verbose=False
    )
    strategy.check_sanity(params, optimizers)  # type: ignore[arg-type]
    state = strategy.initialize_state(scene_scale=1.0)
    for step in range(5):
        image, _, info = rasterization(
            means=params["means"],
            quats=params["quats"],
            scales=params["scales"].exp(),
            opacities=params["opacities"].sigmoid(),
            colors=params["sh"],
            viewmats=scene.viewmats,
            Ks=scene.Ks,
            width=scene.width,
            height=scene.height,
            sh_degree=1,
            absgrad=absgrad,
            packed=False,
        )
        strategy.step_pre_backward(params, optimizers, state, step, info)  # type: ignore[arg-type]
        (image - 0.5).square().mean().backward()
        strategy.step_post_backward(params, optimizers, state, step, info)  # type: ignore[arg-type]
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    assert len(params["means"]) > 400
    assert all(len(tensor) == len(params["means"]) for tensor in params.values())
    assert all(tensor.isfinite().all() for tensor in params.values())


_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from scenes import dense_scene
from distilled_splat.cpu import blend_backward, blend_forward, depth_order, harmonics, projection, tiles
from distilled_splat.cpu.rasterize import rasterization
scene = dense_scene()
rasterization(**scene.arguments(**scene.leaves()), sh_degree=3)[0].sum().backward()
for module in (blend_backward, blend_forward, depth_order, harmonics, projection, tiles):
    for name, kernel in vars(module).items():
        if name.endswith("_kernel") and kernel.signatures and module.__name__ == kernel.__module__:
            print(name, sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


def test_a_new_process_reads_every_kernel_from_disk() -> None:
    forward_and_backward(dense_scene())
    command = [sys.executable, "-c", _CHILD, str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    kernels = [line.split() for line in result.stdout.splitlines()]
    assert len(kernels) > 10
    for name, hits, misses in kernels:
        assert (int(hits), int(misses)) == (1, 0), name


def test_kernels_work_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(_double)
    assert kernel(_double)(21) == 42


def _double(number: int) -> int:
    return 2 * number
