"""The stopwatch of a process, and the tables of `bench time` from what runs have noted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from distilled_splat.benchmarks.whole import LEFT_OUT, qualities, rows_of
from distilled_splat.runs import stages
from distilled_splat.runs.stages import Stages, added, total


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A clock that stands still but for what a test adds to it."""
    now = {"clock": 0.0, "processors": 0.0}
    monkeypatch.setattr(stages.time, "time", lambda: now["clock"])
    monkeypatch.setattr(stages.time, "process_time", lambda: now["processors"])
    return now


def test_every_second_belongs_to_one_stage(clock: dict[str, float]) -> None:
    watch = Stages()
    watch.begin_run()
    watch.times.clear()  # the start, of a process that really runs

    def work(seconds: float) -> None:
        clock["clock"] += seconds
        clock["processors"] += 2 * seconds

    work(1)
    with watch.within("kernels"):
        work(2)
    work(4)
    watch.turn_to("steps")
    work(8)
    with watch.within("evaluation"):
        work(16)
        with pytest.raises(ZeroDivisionError), watch.within("checkpoints"):
            work(32)
            _ = 1 / 0
        work(64)
    assert watch.read() == {"set-up": (5, 10), "kernels": (2, 4), "steps": (8, 16), "evaluation": (80, 160),
                            "checkpoints": (32, 64)}  # fmt: skip
    assert total(watch.read()) == (127, 254) and total(watch.read(), "evaluation", "nothing") == (47, 94)

    watch.begin_run()
    work(1)
    assert watch.read()["set-up"] == (1, 2) and total(watch.read()) == (1, 2)


def test_the_start_is_all_that_a_process_has_done() -> None:
    watch, spent = Stages(), time.process_time()
    clock, processors = watch.read()["start"]
    assert processors == pytest.approx(spent, abs=0.1) and processors > 0 and clock > 0


def test_a_resumed_run_has_the_sum() -> None:
    assert added({"steps": (1, 2)}, {"steps": (3, 4), "report": (5, 6)}) == {"steps": (4, 6), "report": (5, 6)}
    assert added({}, {"steps": (3, 4)}) == {"steps": (3, 4)}


def test_the_table_accounts_for_the_whole_command() -> None:
    teacher = {"start": (2.0, 1.0), "steps": (5.0, 9.0)}
    student = {"start": (3.0, 3.0), "teachers": (8.0, 0.5), "steps": (4.0, 7.0), "report": (1.0, 1.0)}
    rows = rows_of({"standard": teacher, "student": student}, (20.0, 25.0))
    assert rows["start"] == {"standard": (2, 1), "student": (3, 3), "all": (5, 4)}
    assert rows["report"] == {"student": (1, 1), "all": (1, 1)}
    assert rows["teachers"]["all"] == (0, 0.5)
    assert rows["all but steps"] == {"all": (11, 9)}
    parts = [row["all"] for name, row in rows.items() if name not in ("whole command", "all but steps")]
    assert (sum(part[0] for part in parts), sum(part[1] for part in parts)) == (20, 25)
    assert rows[LEFT_OUT]["all"] == (5, 3.5)


def run_with(folder: Path, psnrs: dict[int, float], noted: list[int]) -> Path:
    """Write a run that has logged some PSNRs, and has noted the clock in some steps."""
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir()
    with SummaryWriter(f"{folder}") as writer:
        for step, psnr in psnrs.items():
            writer.add_scalar("Eval Images Metrics Dict (all images)/psnr", psnr, step)
    entries: list[Any] = [{"step": step, "seconds": step / 10, "processor_seconds": step / 5} for step in noted]
    (folder / "distilled_splat.json").write_text(json.dumps({"evaluations": entries}))
    return folder


def test_quality_is_reached_where_it_first_comes_near_the_end(tmp_path: Path) -> None:
    psnrs = {10: 20.0, 20: 24.6, 30: 24.95, 40: 24.3, 50: 25.0}
    half, tenth = qualities("student", run_with(tmp_path / "run", psnrs, list(psnrs)))
    assert (half.margin, half.step, half.seconds, half.processor_seconds, half.end) == (0.5, 20, 2.0, 4.0, 25.0)
    assert (tenth.margin, tenth.step, tenth.seconds) == (0.1, 30, 3.0)
    assert qualities("student", run_with(tmp_path / "once", {50: 25.0}, [50])) == []
