"""A schedule keeps its shape in a run of any length."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from distilled_splat.methods import distilled_splatfacto, distilled_splatfacto_paper, splatfacto_teacher
from distilled_splat.runs.fingerprints import plain
from distilled_splat.training.schedule import reach, scaled_to_run

METHODS = [splatfacto_teacher, distilled_splatfacto, distilled_splatfacto_paper]


def of_length(method: Any, iterations: int, **options: Any) -> Any:
    config = copy.deepcopy(method.config)
    config.max_num_iterations = iterations
    for name, value in options.items():
        setattr(config.pipeline.model, name, value)
    return config


def scaled_model(*args: Any, **options: Any) -> Any:
    return scaled_to_run(of_length(*args, **options)).pipeline.model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("iterations", [3000, 7000, 60000])
def test_every_step_number_keeps_its_place(method: Any, iterations: int) -> None:
    full: Any = method.config
    scaled: Any = scaled_to_run(of_length(method, iterations))
    for name in full.pipeline.model.step_fields:
        place = getattr(full.pipeline.model, name) / 30000
        assert getattr(scaled.pipeline.model, name) / iterations == pytest.approx(place, abs=0.5 / iterations)
    for group, options in scaled.optimizers.items():
        original = full.optimizers[group]["scheduler"]
        if original is not None:
            assert options["scheduler"].max_steps == iterations
            warmup = getattr(original, "warmup_steps", 0)
            assert getattr(options["scheduler"], "warmup_steps", 0) == round(warmup * iterations / 30000)


@pytest.mark.parametrize("method", METHODS)
def test_scaling_is_done_once_and_on_a_copy(method: Any) -> None:
    config = of_length(method, 3000)
    before = plain(config)
    once = scaled_to_run(config)
    assert plain(config) == before
    assert plain(scaled_to_run(once)) == plain(once) != before


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_the_schedules_own_length_is_taken_as_written(method: Any) -> None:
    assert plain(scaled_to_run(of_length(method, 30000))) == plain(method.config)
    by_hand = of_length(method, 3000, schedule_length=3000)
    assert plain(scaled_to_run(by_hand)) == plain(by_hand)


def test_the_densification_interval_has_a_floor_and_resets_keep_their_distance() -> None:
    options: dict[str, Any] = {"refine_every": 100, "reset_alpha_every": 30}
    model = scaled_model(splatfacto_teacher, 3000, **options, min_refine_every=50)
    assert (model.refine_every, model.reset_alpha_every * model.refine_every) == (50, 3000)
    model = scaled_model(splatfacto_teacher, 60000, **options)
    assert (model.refine_every, model.reset_alpha_every * model.refine_every) == (200, 3000)
    model = scaled_model(splatfacto_teacher, 3000, **{**options, "refine_every": 20})
    assert model.refine_every == 20, "an interval below the floor is left as it was asked for"


def test_zero_stays_zero_and_nothing_else_becomes_zero() -> None:
    model = scaled_model(distilled_splatfacto, 10, prune_start=0, warmup_length=500)
    assert model.prune_start == 0 and model.warmup_length == 1 and model.sh_degree_interval == 1


@pytest.mark.parametrize(("iterations", "shorter"), [(30000, 1), (15000, 2), (3000, 10), (300, 10), (60000, 1)])
@pytest.mark.parametrize(
    ("method", "power", "extra"),
    [(splatfacto_teacher, 1, 0), (distilled_splatfacto_paper, 1, 0), (distilled_splatfacto, 0.5, 0.3)],
)
def test_what_has_far_to_go_hurries_in_a_shorter_run(
    method: Any, power: float, extra: float, iterations: int, shorter: float
) -> None:
    full, scaled = method.config.optimizers, scaled_to_run(of_length(method, iterations))
    for name, group in scaled.optimizers.items():
        factor = {"means": shorter**power, "quats": shorter**0.5, "features_rest": shorter**0.5}.get(name, 1)
        if name not in ("camera_opt", "bilateral_grid"):
            factor *= shorter**extra
        assert group["optimizer"].lr == pytest.approx(factor * full[name]["optimizer"].lr)
        if hasattr(group["scheduler"], "lr_final"):
            assert group["scheduler"].lr_final == pytest.approx(factor * full[name]["scheduler"].lr_final)


def cameras_at(*places: tuple[float, float, float]) -> Cameras:
    poses = torch.eye(4)[:3].repeat(len(places), 1, 1)
    poses[:, :, 3] = torch.tensor(places)
    return Cameras(camera_to_worlds=poses, fx=1.0, fy=1.0, cx=1.0, cy=1.0, width=2, height=2)


def test_the_reach_of_cameras_is_their_largest_coordinate_from_their_middle() -> None:
    assert reach(cameras_at((5, 1, 0), (9, 1, 3), (7, 1, -3))) == 3.0
    assert reach(cameras_at((5, 1, 0), (9, 1, 0))) == 2.0
    assert reach(cameras_at((5, 1, 0))) == reach(cameras_at((5, 1, 0), (5, 1, 0))) == 1.0


@pytest.mark.parametrize(
    ("steps", "resets"), [(3000, []), (6000, []), (7000, [3000]), (30000, [3000, 6000, 9000, 12000])]
)
def test_opacities_are_reset_in_long_runs_only(steps: int, resets: list[int]) -> None:
    model = scaled_model(splatfacto_teacher, steps)
    every = model.reset_alpha_every * model.refine_every
    assert [step for step in range(every, model.stop_split_at, every)] == resets
