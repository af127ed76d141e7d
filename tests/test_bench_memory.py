"""The memory benchmark: its command runs, and its stages are those of a training of the size that it is asked for."""

from __future__ import annotations

import json
import mmap
import sys

import numpy as np
import pytest

from distilled_splat.benchmarks.memory import MemoryBench
from distilled_splat.benchmarks.stages import Stage, StageRecorder, together

COUNT, WIDTH, HEIGHT, PHOTOS = 30_000, 640, 360, 18


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Stage]]:
    """What the command measures of a teacher and of a student, by stages."""
    path = tmp_path_factory.mktemp("bench") / "memory.json"
    MemoryBench(COUNT, WIDTH, HEIGHT, PHOTOS, "disk", json=path).run()
    content = json.loads(path.read_text())
    assert (content["gaussians"], content["size"], content["photos"]) == (COUNT, [WIDTH, HEIGHT], PHOTOS)
    return {who: {one["name"]: Stage(**one) for one in content[who]} for who in ("teacher", "student")}


def test_stages_follow_each_other_and_hold_what_they_must(figures: dict[str, dict[str, Stage]]) -> None:
    """A Gaussian takes 59 floats four times; a label 12 bytes a pixel."""
    assert len(figures["teacher"]) == 6 and len(figures["student"]) == 8
    for stages in figures.values():
        for stage in stages.values():
            assert 0 < stage.held <= stage.peak and stage.seconds >= 0, stage.name
        gained = stages["a step"].held - stages["import nerfstudio"].held
        assert gained > 4 * 59 * 4 * COUNT / 1e6
    student = figures["student"]
    labels = student["cache labels"].held - student["render a label"].held
    whole = 12 * WIDTH * HEIGHT * (PHOTOS // 2 + 20) / 1e6
    assert 0.3 * whole < labels < 1.2 * whole, "a part lies where the renders of the first label lay"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a peak anew")
def test_a_peak_belongs_to_its_stage() -> None:
    stages = StageRecorder("large")
    with mmap.mmap(-1, 40_000_000) as large:  # new pages, whatever this process has freed before
        np.frombuffer(large, np.uint8)[:] = 1
    stages.next("small")
    stages.end()
    first, second = stages.done
    assert first.peak - first.held > 30 and second.peak - second.held < 20


def test_stages_of_one_name_are_put_together() -> None:
    first, second, third = (Stage(*numbers) for numbers in (("a", 5, 9, 3, 6), ("b", 1, 1, 1, 1), ("a", 4, 8, 1, 2)))
    assert together([first, second, third]) == [Stage("a", 4, 9, 2, 4), second]


def test_a_capture_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="--photos must be at least 9"):
        MemoryBench(photos=3).run()
