"""Levels of detail: what is written, how far each level is from the first, the command, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from solids import moved_to, solid

from distilled_splat.evaluation.lod import account_for, write_levels
from distilled_splat.splat.chunks import chunks_of, cut
from distilled_splat.splat.files import read_splat
from distilled_splat.splat.formats import FORMATS
from distilled_splat.splat.gaussians import Gaussians

pytest.importorskip("gaussforge")
SIZES = (900, 300, 40)


def level(count: int, degree: int = 1) -> Gaussians:
    """A ball of so many Gaussians, the same in every place for every count."""
    ball = solid(1200)
    splat = replace(ball, sh_rest=torch.full((len(ball), (degree + 1) ** 2 - 1, 3), 0.05))
    return splat[torch.randperm(len(ball), generator=torch.Generator().manual_seed(0))[:count]]


def written(folder: Path, name: str, gaussians: Gaussians) -> Path:
    path = folder / name
    path.write_bytes(FORMATS["ply"].encode(gaussians))
    return path


def leaves(node: dict[str, Any]) -> list[dict[str, Any]]:
    if "lods" in node:
        assert "children" not in node
        return [node]
    assert len(node["children"]) == 2
    for child in node["children"]:
        for sign, side, extreme in ((1, "min", min), (-1, "max", max)):
            assert all(sign * inner >= sign * outer for inner, outer in zip(child["bound"][side], node["bound"][side]))
            values = zip(*(each["bound"][side] for each in node["children"]))
            assert node["bound"][side] == [extreme(*pair) for pair in values]
    return [leaf for child in node["children"] for leaf in leaves(child)]


def test_the_command_writes_what_the_format_says(tmp_path: Path) -> None:
    """Chunks are taken apart with nothing but json and our reader of SOG, which other tests hold against others."""
    splats = [level(size, degree) for size, degree in zip(SIZES, (1, 0, 1))]
    paths = [written(tmp_path, f"{len(splat)}.ply", splat) for splat in (splats[1], splats[2], splats[0])]
    command = [sys.executable, "-m", "distilled_splat", "lod", *map(str, paths), "--output", "levels"]
    done = subprocess.run(
        [*command, "--chunk-gaussians", "300"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"{Path('levels') / 'lod-meta.json'}")
    folder = tmp_path / "levels"
    meta = json.loads((folder / "lod-meta.json").read_text())
    assert (meta["version"], meta["lodLevels"], meta["lodErrors"]) == (1, 3, True)
    assert meta["counts"] == list(SIZES) and meta["count"] == sum(SIZES)
    found: list[list[Gaussians]] = [[] for _ in SIZES]
    names = []
    for leaf in leaves(meta["tree"]):
        low, high = np.array(leaf["bound"]["min"]), np.array(leaf["bound"]["max"])
        assert len(leaf["errors"]) == 3 and leaf["errors"][0] == 0
        assert leaf["errors"] == sorted(leaf["errors"]) and np.isfinite(leaf["errors"]).all()
        for number, place in leaf["lods"].items():
            names.append(meta["filenames"][place["file"]])
            chunk = read_splat(folder / names[-1]).gaussians
            assert place["offset"] == 0 and place["count"] == len(chunk) and chunk.sh_degree == 1
            # an ellipsoid reaches at most as far as its longest axis, and a SOG rounds
            reach = 1.1 * chunk.log_scales.exp().amax(dim=1, keepdim=True).numpy()
            assert (chunk.means.numpy() > low - 1e-2).all() and (chunk.means.numpy() < high + 1e-2).all()
            assert (chunk.means.numpy() - reach < high).all() and (chunk.means.numpy() + reach > low).all()
            found[int(number)].append(chunk)
    assert sorted(names) == sorted(meta["filenames"]) == sorted(set(names))
    assert len(found[0]) == 4
    for splat, chunks in zip(splats, found):
        means = torch.cat([chunk.means for chunk in chunks]).numpy()
        assert len(means) == len(splat)
        distances, places = map(np.asarray, KDTree(means).query(splat.means.numpy()))
        assert distances.max() < 5e-3 and len(np.unique(places)) == len(splat)


def test_chunks_share_out_every_gaussian_once() -> None:
    splats = [level(size) for size in SIZES]
    splats[1] = replace(splats[1], means=torch.zeros_like(splats[1].means))  # all in one place
    for order in (splats, splats[1:]):
        chunks = list(chunks_of(cut(order, 64)))
        assert max(len(chunk.members[0]) for chunk in chunks) <= 64
        for number, splat in enumerate(order):
            members = torch.cat([chunk.members[number] for chunk in chunks])
            assert torch.equal(members.sort().values, torch.arange(len(splat)))


def test_an_error_is_the_part_of_the_squares_that_is_missing() -> None:
    """White at half the brightness misses a quarter of three of its four squares: three colours and an opacity."""
    ball = solid(200)
    white = replace(ball, sh_dc=torch.full_like(ball.sh_dc, 0.5 / 0.28209479177387814), sh_rest=ball.sh_rest[:, :0])
    gray = replace(white, sh_dc=0 * white.sh_dc)
    unseen = replace(white, logit_opacities=white.logit_opacities * 0 - 20)
    levels = [white, white[torch.arange(len(white))], gray, unseen]
    (account,), errors = account_for(levels, list(chunks_of(cut(levels, 1000))))
    assert errors == pytest.approx([0, 0, 3 / 16, 1], abs=1e-5)
    assert account.errors == pytest.approx(errors, abs=1e-6)
    reach = white.log_scales.exp().amax(dim=1, keepdim=True)
    assert (torch.tensor(account.low) >= (white.means - reach).amin(dim=0) - 1e-5).all()
    assert (torch.tensor(account.high) <= (white.means + reach).amax(dim=0) + 1e-5).all()


def test_a_coarser_level_has_no_less_error_and_size_is_no_matter() -> None:
    ball = level(900)
    wrong = replace(ball, sh_dc=-ball.sh_dc)
    levels = [ball, wrong, ball[torch.arange(899)]]
    for scale in (1.0, 1e-4, 1e4):
        moved = [moved_to(splat, scale, 3.0) for splat in levels]
        accounts, errors = account_for(moved, list(chunks_of(cut(moved, 300))))
        assert errors[1] > 10 * errors[2] > 0
        assert errors[1] == pytest.approx(account_for(levels, list(chunks_of(cut(levels, 300))))[1][1], rel=0.02)
        for account in accounts:
            assert account.errors[2] == account.errors[1] > 0


def test_what_cannot_be_levels_is_refused_in_one_sentence(tmp_path: Path) -> None:
    big, small = written(tmp_path, "big.ply", level(300)), written(tmp_path, "small.ply", level(60))
    twin = written(tmp_path, "twin.ply", level(300))
    elsewhere = written(tmp_path, "elsewhere.ply", moved_to(level(60), 1.0, 50.0))
    broken = tmp_path / "broken.ply"
    broken.write_bytes(big.read_bytes()[:500])
    full = tmp_path / "full"
    full.mkdir()
    (full / "note.txt").write_text("mine")
    output = tmp_path / "levels"
    cases = [
        ((big,), output, 100, "at least two splats"),
        ((big, small), output, 0, "at least one Gaussian"),
        ((big, twin, small), output, 100, "have the same size"),
        ((big, elsewhere), output, 100, "does not show the same scene as .*big.ply"),
        ((big, broken), output, 100, "broken.ply"),
        ((big, tmp_path / "none.ply"), output, 100, "does not exist"),
        ((big, small), full, 100, "already exists"),
        ((big, small), big, 100, "already exists"),
    ]
    for paths, folder, most, sentence in cases:
        with pytest.raises(ValueError, match=sentence) as refused:
            write_levels(paths, folder, most, "upright")
        assert "\n" not in str(refused.value)
    assert not output.exists() and [path.name for path in full.iterdir()] == ["note.txt"]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_run_is_brought_into_the_frame_of_its_exports(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    from distilled_splat.evaluation.export import export

    (file,) = export(teachers[0] / "config.yml", tmp_path, ("ply",), 3, "upright", measure=False)
    whole = read_splat(file.path).gaussians
    part = written(tmp_path, "part.ply", whole[torch.arange(len(whole) // 2)])
    (tmp_path / "levels").mkdir()  # an empty one may be there
    levels = write_levels((part, teachers[0]), tmp_path / "levels", 10**6, "upright")
    assert [row.gaussians for row in levels] == [len(whole), len(whole) // 2]
    assert levels[0].error == 0 < levels[1].error < 1
    for row, name in zip(levels, ("0_0", "1_0")):
        folder = tmp_path / "levels" / name
        assert row.megabytes == pytest.approx(sum(path.stat().st_size for path in folder.iterdir()) / 1e6)
    found = read_splat(tmp_path / "levels" / "0_0").gaussians.means.numpy()
    reach = float((whole.means.amax(dim=0) - whole.means.amin(dim=0)).max())
    assert np.asarray(KDTree(found).query(whole.means.numpy())[0]).max() < 1e-3 * reach
