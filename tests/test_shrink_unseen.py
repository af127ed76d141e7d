"""What no view shows is not deleted because of that: it counts by its opacity and its size."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from solids import joined, solid, sphere

from distilled_splat.ops.space import sphere_directions
from distilled_splat.shrink.invented_cameras import looking
from distilled_splat.splat.files import read_splat
from distilled_splat.splat.formats import FORMATS
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.model import DistilledModelConfig
from distilled_splat.student.pruning import choose, with_unseen


@pytest.mark.parametrize("unseen", [1, 40, 500, 999])
def test_what_no_view_shows_counts_like_what_is_shown_and_has_its_effect(unseen: int) -> None:
    generator = torch.Generator().manual_seed(unseen)
    effects = 0.1 + torch.rand(1000, generator=generator)
    weights = 7 * effects
    hidden = torch.randperm(1000, generator=generator)[:unseen]
    weights[hidden] = 1e-9 * torch.rand(unseen, generator=generator)
    assert torch.allclose(with_unseen(weights, effects), 7 * effects)


def test_faint_gaussians_that_no_view_shows_go_first() -> None:
    """Training leaves what no photo shows at its first opacity: large and faint."""
    weights, effects = torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0]), torch.tensor([0.3, 0.2, 0.1, 1e-4, 0.25])
    mask = choose(with_unseen(weights, effects), 4, sampled=False)
    assert mask.tolist() == [True, True, True, False, True]


def test_where_nothing_or_all_is_shown() -> None:
    weights = 1 + torch.rand(2000, generator=torch.Generator().manual_seed(0))
    effects = torch.rand(2000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(with_unseen(weights, effects), weights)
    assert torch.equal(with_unseen(torch.zeros(2000), effects), effects)
    assert torch.equal(with_unseen(weights, torch.zeros(2000)), weights)


def test_ways_of_pruning_that_know_no_unseen_are_refused() -> None:
    sampled = DistilledModelConfig(prune_unseen=False, prune_sampling=True)
    for config in (sampled, DistilledModelConfig(prune_unseen=False, prune_importance="weight")):
        fault = config.fault()
        assert fault is not None and "prune-unseen False" in fault
    assert DistilledModelConfig(prune_unseen=False).fault() is None


def beside(gaussians: Gaussians, shift: float, logit_opacity: float) -> Gaussians:
    """Return a splat further along x, of another opacity."""
    there = torch.tensor([shift, 0.0, 0.0])
    faint = torch.full_like(gaussians.logit_opacities, logit_opacity)
    return replace(gaussians, means=gaussians.means + there, logit_opacities=faint)


@pytest.mark.slow
def test_a_part_that_is_hidden_from_the_cameras_stays(tmp_path: Path) -> None:
    shown, heavy, light = solid(1000), beside(sphere(300), 6.0, 4.0), beside(sphere(300), 9.0, -1.0)
    (tmp_path / "big.ply").write_bytes(FORMATS["ply"].encode(joined(shown, heavy, light)))
    frames = []
    for place, side in enumerate(sphere_directions(12)):
        view = looking(2.5 * side, -side, torch.tensor([0.0, 0.0, 1.0]), 160, 120, 300.0)
        pose = torch.linalg.inv(view.viewmat.double())
        frames.append({"id": place, "img_name": f"{place}", "width": 160, "height": 120, "fx": 300.0, "fy": 300.0,
                       "position": pose[:3, 3].tolist(), "rotation": pose[:3, :3].tolist()})  # fmt: skip
    (tmp_path / "cameras.json").write_text(json.dumps(frames))
    words = [str(Path(sys.executable).parent / "distilled-splat"), "shrink", "big.ply", "--output", "small.ply",
             "--keep-fraction", "0.3", "--cameras", "cameras.json", "--iterations", "40"]  # fmt: skip
    done = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"big.ply", "small.ply", "cameras.json"}
    small = read_splat(tmp_path / "small.ply").gaussians
    assert len(small) == round(0.3 * (len(shown) + 600))
    x = small.means[:, 0]
    near, middle, far = (int(part.sum()) for part in (x < 3, (x > 3) & (x < 7.5), x > 7.5))
    assert middle > 60 and far < 20  # of those that no camera sees the opaque ones stay
    assert near > 0.15 * len(shown)
