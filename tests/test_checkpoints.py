"""Checkpoints: whole or absent, and opened as data only."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from strange_files import Bomb

from distilled_splat.runs.checkpoints import latest_checkpoint, load_tensors
from distilled_splat.runs.files import write_beside


def test_a_failed_write_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_beside(path, lambda temporary: temporary.write_bytes(b"whole"))

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_beside(path, fail)
    assert path.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.bin"]


def test_numpy_learning_rates_load(tmp_path: Path) -> None:
    path = tmp_path / "step-000000001.ckpt"
    torch.save({"step": 1, "lr": np.float64(0.25), "means": torch.ones(2, 3)}, path)
    assert load_tensors(path)["lr"] == 0.25


@pytest.mark.parametrize("wrap", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path, wrap) -> None:
    path, mark = tmp_path / "step-000000001.ckpt", tmp_path / "mark"
    wrap({"pipeline": Bomb(mark)}, path)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_tensors(path)
    assert not mark.exists()


def test_the_latest_checkpoint_is_that_of_the_highest_step(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for name in ("step-000000999.ckpt", "step-000010000.ckpt", "step-000002000.ckpt", "step-x.ckpt", "notes.txt"):
        (tmp_path / name).touch()
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.name == "step-000010000.ckpt"
