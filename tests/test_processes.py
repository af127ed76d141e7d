"""Processes that start each other on systems that do it in another way: launchers, groups, files that are read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from jobs import PATIENCE, script_job
from tiny import prepared, tiny_config

from distilled_splat.benchmarks.training import peak_megabytes
from distilled_splat.jobs.command import ask_to_stop, start
from distilled_splat.methods import splatfacto_teacher
from distilled_splat.runs.files import write_json
from distilled_splat.runs.processes import EXIT_INTERRUPTED

ROOT = Path(__file__).parents[1]
IN_THE_PACKAGE = f"sys.path.insert(0, {str(ROOT)!r})\n"


def until(is_so: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("launchers", [0, 1, 2])
def test_a_process_behind_launchers_is_an_orphan_when_its_starter_is_gone_and_not_before(
    tmp_path: Path, launchers: int
) -> None:
    """python.exe of a virtual environment on Windows starts the real one and waits for it."""
    code = IN_THE_PACKAGE + (
        "from distilled_splat.runs.processes import is_orphan\n"
        "(here / ('orphan' if is_orphan() else 'child')).touch()\n"
        f"end = time.monotonic() + {PATIENCE}\n"
        "while not is_orphan() and time.monotonic() < end: time.sleep(0.02)\n"
        "(here / 'left').touch()"
    )
    words = script_job(tmp_path, "job", code).argv
    for _ in range(launchers):
        words = ("-c", f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, *{words!r}]).returncode)")
    starter_code = (
        f"import sys, time; {IN_THE_PACKAGE}"
        "from pathlib import Path; from distilled_splat.jobs.command import start\n"
        "from distilled_splat.jobs.graph import Job\n"
        f"start(Job('job', {words!r}, Path({str(tmp_path)!r}) / 'log', lambda: False), {{}})\n"
        f"time.sleep({PATIENCE})"
    )
    starter = subprocess.Popen([sys.executable, "-c", starter_code])
    until(lambda: (tmp_path / "child").exists() or (tmp_path / "orphan").exists())
    time.sleep(0.2)
    assert not (tmp_path / "orphan").exists() and not (tmp_path / "left").exists()
    starter.kill()  # it is not waited for: until then it is there, as one that has ended
    until((tmp_path / "left").exists)
    starter.wait()


def test_where_sigterm_would_end_a_job_at_once_it_is_asked_by_ctrl_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, for which SIGUSR1 stands in: there a job needs a process group to be asked."""
    code = IN_THE_PACKAGE + (
        "import signal; signal.SIGBREAK = signal.SIGUSR1\n"
        "from distilled_splat.runs.processes import interrupts_call\n"
        "asked = []\n"
        "with interrupts_call(asked.append):\n"
        f"    (here / 'ready').touch(); end = time.monotonic() + {PATIENCE}\n"
        "    while not asked and time.monotonic() < end: time.sleep(0.02)\n"
        "(here / 'saved').touch(); sys.exit(130)"
    )
    flags, popen = [], subprocess.Popen

    def popen_of_windows(*words: Any, creationflags: int, **options: Any) -> Any:
        flags.append(creationflags)
        return popen(*words, **options)

    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", signal.SIGUSR1, raising=False)
    monkeypatch.setattr(subprocess, "Popen", popen_of_windows)
    process = start(script_job(tmp_path, "job", code), {})
    until((tmp_path / "ready").exists)
    ask_to_stop(process)
    assert process.wait(PATIENCE) == EXIT_INTERRUPTED and (tmp_path / "saved").exists()
    assert flags == [0x200]


def refusing(times: int) -> Any:
    """Return an `os.replace` of Windows: it refuses so often because somebody reads the file."""
    rename, left = os.replace, [times]

    def replace(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "The process cannot access the file because it is being used", f"{target}")
        rename(source, target)

    return replace


def test_a_file_that_is_read_for_a_moment_is_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, "replace", refusing(3))
    write_json(tmp_path / "a.json", 2)
    assert (tmp_path / "a.json").read_text() == "2\n"
    monkeypatch.setattr(os, "replace", refusing(1000))
    with pytest.raises(PermissionError):
        write_json(tmp_path / "a.json", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_report_of_progress_that_cannot_be_written_ends_no_training(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = prepared(tiny_config(splatfacto_teacher, scene, tmp_path, 2))
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == "progress.json":
            raise PermissionError(13, "The process cannot access the file", f"{target}")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    trainer.train()
    assert not (trainer.base_dir / "progress.json").exists()


def test_peak_memory_needs_no_module_that_windows_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    # psutil knows by itself where it is
    code = "import sys, psutil; sys.modules['resource'] = None; import distilled_splat.benchmarks.training"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(peak_wset=5_000_000))
    assert peak_megabytes() == 5.0
