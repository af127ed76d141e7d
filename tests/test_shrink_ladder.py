"""A ladder of sizes: the largest starts with the splat, each other with the next larger one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from solids import sphere
from tiny import prepared, tiny_student

from distilled_splat.shrink.refit import Plan
from distilled_splat.splat.formats import FORMATS
from distilled_splat.teachers.reading import read_teacher


def plan_of(*counts: int, iterations: int = 100) -> Plan:
    return Plan(Path("capture"), (Path("splat.ply"),), counts, Path("runs"), iterations, 3, False, "cpu", 42)


def test_each_size_needs_the_next_larger_one_and_starts_with_it() -> None:
    plan = plan_of(500, 200, 80)
    jobs = [plan.job(count) for count in plan.counts]
    assert [job.needs for job in jobs] == [(), (jobs[0].name,), (jobs[1].name,)]
    assert "--pipeline.model.start-with" not in jobs[0].argv
    for job, larger in zip(jobs[1:], jobs):
        assert job.argv[job.argv.index("--pipeline.model.start-with") + 1] == str(larger.log.parent)
        assert job.argv[job.argv.index("--pipeline.model.teachers") + 1] == "splat.ply"


def test_what_was_trained_otherwise_is_another_run() -> None:
    plans = (plan_of(200, 80), plan_of(500, 200, 80), plan_of(500, 80), plan_of(80), plan_of(80, iterations=50))
    assert len({plan.run_of(80) for plan in plans}) == len(plans)
    assert plan_of(500, 200).run_of(200) == plan_of(500, 200, 80).run_of(200)


def test_a_student_starts_with_what_it_is_given(scene: Path, teachers: tuple[Path, ...], tmp_path: Path) -> None:
    def start(name: str, path: Path | None) -> torch.Tensor:
        trainer = prepared(tiny_student(scene, tmp_path / name, teachers, start_with=path))
        return trainer.pipeline.model.means.detach()

    (tmp_path / "other.ply").write_bytes(FORMATS["ply"].encode(sphere(70)))
    assert torch.equal(start("a", None), read_teacher(teachers[0]).gaussians.means)
    assert torch.equal(start("b", tmp_path / "other.ply"), sphere(70).means)
    (tmp_path / "damaged.ply").write_bytes(b"ply")
    for name in ("missing.ply", "damaged.ply"):
        with pytest.raises(SystemExit, match=name) as refused:
            start("c", tmp_path / name)
        assert str(refused.value).startswith("--pipeline.model.start-with: ")
