"""Exact sizes: the schedule of pruning, importance, the choice, and the resizing of a splat in training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scenes import splat_and_view

from distilled_splat.ops.importance import importance
from distilled_splat.splat.gaussians import SH_DEGREE_0
from distilled_splat.student.model import DistilledModelConfig
from distilled_splat.student.pruning import PruningSchedule, choose, count_after_pruning, in_turn, prune_steps, resize

COLUMNS: dict[str, tuple[int, ...]] = {
    "means": (3,),
    "scales": (3,),
    "quats": (4,),
    "opacities": (1,),
    "features_dc": (3,),
    "features_rest": (3, 3),
}


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 20))
def test_prunings_always_end_at_the_target(start: int, target: int, times: int) -> None:
    count = start
    for left in range(times, 0, -1):
        after = count_after_pruning(count, target, left)
        assert min(count, target) <= after <= max(count, target)
        count = after
    assert count == target


@given(st.integers(1, 400), st.integers(1, 400))
def test_prunings_take_turns_with_the_views(count: int, most: int) -> None:
    views: Any = list(range(count))
    turns: list[Any] = [in_turn(views, most, turn) for turn in range(8)]
    for chosen in turns:
        assert len(chosen) == len(set(chosen)) == min(count, most)
        gaps = [(after - before) % count or count for before, after in zip(chosen, [*chosen[1:], chosen[0]])]
        assert max(gaps) <= -(-count // most), "they are spread evenly"
    if count <= most:
        assert all(chosen == views for chosen in turns)
        assert in_turn(views, None, 3) == views
    else:
        assert len(set().union(*turns)) == min(count, 8 * most), "other views in each turn"


def test_prunings_keep_equal_fractions() -> None:
    counts = [100_000]
    for left in range(4, 0, -1):
        counts.append(count_after_pruning(counts[-1], 6250, left))
    assert counts == [100_000, 50_000, 25_000, 12_500, 6250]


def test_prune_steps_span_the_interval() -> None:
    assert prune_steps(4, 100, 400) == (100, 200, 300, 400)
    assert prune_steps(1, 100, 400) == (400,)


def test_choice_takes_the_most_important() -> None:
    weights = torch.tensor([0.1, 5.0, 3.0, 0.0, 4.0])
    assert choose(weights, 3, sampled=False).tolist() == [False, True, True, False, True]


def test_sampled_choice_draws_in_proportion_to_importance() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0, 0.0])
    draws = torch.stack([choose(weights, 1, sampled=True) for _ in range(4000)]).float().mean(dim=0)
    assert torch.allclose(draws, weights / weights.sum(), atol=0.03)
    assert all(int(choose(weights, 3, sampled=True).sum()) == 3 for _ in range(20))


def splat(count: int) -> tuple[torch.nn.ParameterDict, dict[str, torch.optim.Optimizer]]:
    """A splat whose every number is its Gaussian's index, one Adam step into training."""
    index = torch.arange(count, dtype=torch.float32)
    parameters = torch.nn.ParameterDict(
        {
            name: torch.nn.Parameter(index.reshape(-1, *[1] * len(shape)).repeat(1, *shape))
            for name, shape in COLUMNS.items()
        }
    )
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam([parameter], lr=0.0) for name, parameter in parameters.items()
    }
    for name, parameter in parameters.items():
        parameter.grad = parameter.detach().clone()
        optimizers[name].step()
    return parameters, optimizers


@pytest.mark.parametrize("count", [1, 7, 20, 33, 95])
def test_resize_gives_exactly_that_count_everywhere(count: int) -> None:
    torch.manual_seed(0)
    parameters, optimizers = splat(20)
    state = {"grad2d": torch.arange(20.0), "scene_scale": 1.0}
    resize(parameters, optimizers, state, torch.rand(20), count, sampled=False)
    for name, shape in COLUMNS.items():
        assert parameters[name].shape == (count, *shape)
        held = optimizers[name].param_groups[0]["params"][0]
        assert held is parameters[name]
        assert optimizers[name].state[held]["exp_avg"].shape == (count, *shape)
    assert len(state["grad2d"]) == count  # type: ignore[arg-type]


def test_what_has_the_colour_of_one_background_matters_before_the_next() -> None:
    gaussians, view = splat_and_view()
    black = replace(
        gaussians,
        sh_dc=torch.full_like(gaussians.sh_dc, -0.5 / SH_DEGREE_0),
        sh_rest=torch.zeros_like(gaussians.sh_rest),
    )
    seen = importance(black, [view], lambda: torch.zeros(3), "weight") > 0.1
    assert int(seen.sum()) > 10
    assert float(importance(black, [view, view], lambda: torch.zeros(3)).max()) < 1e-9
    backgrounds = iter([torch.zeros(3), torch.ones(3)])
    assert float(importance(black, [view, view], lambda: next(backgrounds))[seen].min()) > 1e-9


def test_resize_keeps_the_most_important_with_their_optimizer_state() -> None:
    parameters, optimizers = splat(6)
    resize(parameters, optimizers, {}, torch.tensor([3.0, 0.0, 9.0, 1.0, 0.0, 5.0]), 3, sampled=False)
    assert parameters["means"][:, 0].tolist() == [0, 2, 5]
    moments = optimizers["means"].state[parameters["means"]]["exp_avg"][:, 0]
    assert torch.allclose(moments, 0.1 * torch.tensor([0.0, 2.0, 5.0]))


def test_a_splat_of_nothing_is_refused() -> None:
    parameters, optimizers = splat(4)
    with pytest.raises(ValueError, match="at least one"):
        resize(parameters, optimizers, {}, torch.ones(4), 0, sampled=False)


def test_a_schedule_prunes_when_it_is_due_and_ends_at_its_target() -> None:
    schedule = PruningSchedule(prune_steps(4, 100, 400), target=6250, last_step=999)
    counts, count = [], 100_000
    for step in range(1000):
        found = schedule.count_at(step, count)
        if found is not None:
            counts.append((step, found))
            count = found
    assert counts == [(100, 50_000), (200, 25_000), (300, 12_500), (400, 6250)]


@pytest.mark.parametrize(
    ("options", "span"),
    [
        ({}, (0, 6000)),
        ({"start_from": "points"}, (15000, 21000)),
        ({"start_from": "points", "stop_split_at": 12000, "prune_start": 12000, "prune_stop": 21000}, (12000, 21000)),
        ({"start_from": "points", "stop_split_at": 3000, "prune_start": 4000}, (4000, 6000)),
        ({"start_from": "points", "stop_split_at": 0}, (0, 6000)),
    ],
)
def test_a_student_is_pruned_when_it_has_stopped_growing(options: dict[str, Any], span: tuple[int, int]) -> None:
    config = DistilledModelConfig(**options)
    assert config.pruning_span() == span and config.fault() is None
