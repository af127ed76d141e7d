"""Kill the one command at random moments, again and again, and see that nothing finished is ever lost.

    python tests/kill_at_random.py --kills 30 --seed 0

Each round trains three teachers and a student of a tiny scene in an output folder of its own. The command is killed
with SIGKILL after a random time and given again, until its student is finished; then a new round begins. Three
kinds of kill take turns: the command alone (its teacher is left behind), its teacher's process alone, and both at once.
After each kill every checkpoint must load, every record and config must be whole, and finished runs must be untouched;
at the end of a round there must be three finished teachers and one student of the promised count.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from distilled_splat.demo.scene import make_scene
from distilled_splat.runs.checkpoints import load_tensors
from distilled_splat.runs.record import read_record
from distilled_splat.teachers.reading import read_teacher

STEPS, TEACHER_STEPS, KEEP = 100, 800, 0.3
SMALL_JOB = (
    "--max-num-iterations", str(STEPS), "--teacher-iterations", str(TEACHER_STEPS), "--steps-per-save", "10",
    "--pipeline.model.keep-fraction", str(KEEP), "--pipeline.model.min-refine-every", "10",
    "--pipeline.model.max-gaussians", "700",
)  # fmt: skip
"""Options of a small job: teachers made with them are taken by every command that has them."""
KINDS = ("command", "teacher", "both")
PATIENCE = 600
"""Seconds after which a command is taken for stuck."""


@dataclass
class Story:
    """What happened: kills by kind and by stage, ends by their exit codes, and rounds that came to their end."""

    kills: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    rounds: int = 0


def start(scene: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start the one command in a session of its own."""
    command = [
        str(Path(sys.executable).parent / "ns-train"), "distilled-splatfacto",
        "--data", scene, "--output-dir", output, "--vis", "tensorboard",
        *SMALL_JOB,
        "nerfstudio-data", "--eval-mode", "interval", "--eval-interval", 4,
    ]  # fmt: skip
    with (output / "log").open("ab") as log:
        return subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def children(process: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    listing = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in listing.read_text().split()] if listing.exists() else []


def kill(process: subprocess.Popen[bytes], kind: str) -> None:
    """Kill the command, its teacher or both; of a command that has no teacher now, the command."""
    teachers = children(process.pid)
    if kind != "command":
        for child in teachers:
            os.kill(child, signal.SIGKILL)
    if kind != "teacher" or not teachers:
        os.killpg(process.pid, signal.SIGKILL)


def students(output: Path) -> list[Path]:
    """Return the students' run folders."""
    return sorted(output.glob("scene/distilled-splatfacto/*/"))


def runs(output: Path) -> list[Path]:
    """Return all run folders, the student's last."""
    return [*sorted(output.glob("scene/splatfacto-teacher/*/")), *students(output)]


def finished_files(output: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of what finished runs consist of; their last log lines may still be on their way."""
    files = [path for run in runs(output) if read_record(run).get("finished") for path in run.rglob("*")]
    kept = [path for path in files if path.suffix in (".ckpt", ".json", ".yml")]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in kept}


def check(output: Path, finished_before: dict[Path, tuple[int, int]]) -> None:
    """See that every checkpoint loads, every record is whole, and no finished run has changed.

    Raises:
        AssertionError: naming the file that is not as it should be.
    """
    for path in output.glob("scene/*/*/nerfstudio_models/*"):
        assert path.suffix == ".ckpt", f"{path} is no checkpoint"
        try:
            load_tensors(path)
        except ValueError as error:
            assert not path.exists(), f"{path} does not load: {error}"  # a living orphan removes older ones
    for path in output.glob("scene/*/*/*.json"):
        json.loads(path.read_text())
    for run in runs(output):
        config = run / "config.yml"
        assert not config.exists() or config.read_text().startswith("!!python/object"), f"{config} is not whole"
    for path, state in finished_before.items():
        assert path.exists() and (path.stat().st_size, path.stat().st_mtime_ns) == state, f"{path} was touched"


def check_end(output: Path) -> None:
    """See that a round has left three teachers and one student of the promised count, all finished, and no debris.

    Raises:
        AssertionError: naming what is missing.
    """
    folders = runs(output)
    assert len(folders) == 4, f"{folders}: expected three teachers and a student"
    assert all(read_record(run)["finished"] for run in folders), "not all are finished"
    standard = next(run for run in folders if run.name.startswith("standard"))
    promised = round(KEEP * len(read_teacher(standard).gaussians))
    found = len(read_teacher(folders[-1]).gaussians)
    assert found == promised, f"the student has {found} Gaussians instead of {promised}"
    debris = list(output.rglob("*.part"))
    assert not debris, f"{debris} were left"


def stage_of(output: Path) -> str:
    """Tell which run was being trained, by the newest progress."""
    reports = sorted(output.glob("scene/*/*/progress.json"), key=lambda path: path.stat().st_mtime)
    if not reports:
        return "nothing yet"
    run = reports[-1].parent
    return "student" if run.parent.name == "distilled-splatfacto" else run.name.split("-")[0]


def round_of_kills(scene: Path, output: Path, kills: int, chance: random.Random, longest: float) -> Story:
    """Give the command again and again, killing it up to `kills` times, until its student is finished.

    Args:
        scene: the data.
        output: the output folder; teachers that are in it already are taken.
        kills: how many times to kill at most.
        chance: where the moments and the kinds come from.
        longest: a kill falls within this many seconds of the command's start.
    """
    story = Story()
    output.mkdir(parents=True, exist_ok=True)
    offset = chance.randrange(len(KINDS))
    while True:
        before = finished_files(output)
        process = start(scene, output)
        due = sum(story.kills.values()) < kills
        moment = chance.uniform(0, longest)
        try:
            code = process.wait(moment if due else PATIENCE)
            assert code == 0, f"the command failed by itself with code {code}; see {output / 'log'}"
        except subprocess.TimeoutExpired:
            assert due, f"the command is stuck; see {output / 'log'}"
            kind, stage = KINDS[(offset + sum(story.kills.values())) % len(KINDS)], stage_of(output)
            story.stages[stage] += 1
            story.kills[kind] += 1
            kill(process, kind)
            code = process.wait(PATIENCE)
            print(f"{kind} killed after {moment:.1f} s, at work on {stage}: exit code {code}", flush=True)
        story.exits[code] += 1
        check(output, before)
        # a student may be killed when it is finished and only has to leave; the command would then train another one
        if code == 0 or any(read_record(run).get("finished") for run in students(output)):
            check_end(output)
            story.rounds += 1
            return story


def main() -> None:
    """Make rounds until the kills are spent, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=40.0, help="a kill comes within this many seconds")
    arguments = parser.parse_args()
    chance, total = random.Random(arguments.seed), Story()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = make_scene(folder / "scene", views=12, width=64, height=48, points=400)
        while (left := arguments.kills - sum(total.kills.values())) > 0:
            began = time.monotonic()
            story = round_of_kills(scene, folder / f"round {total.rounds}", left, chance, arguments.longest)
            total.rounds += story.rounds
            for name in ("kills", "stages", "exits"):
                getattr(total, name).update(getattr(story, name))
            print(f"round {total.rounds} took {time.monotonic() - began:.0f} s", flush=True)
    print(f"{sum(total.kills.values())} kills survived in {total.rounds} rounds: {dict(total.kills)}")
    print(f"at work on: {dict(total.stages)}; exit codes: {dict(total.exits)}")


if __name__ == "__main__":
    main()
