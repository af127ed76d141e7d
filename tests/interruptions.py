"""Trainings that are interrupted, and what they leave."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from tiny import prepared

from distilled_splat.training.trainer import EXIT_INTERRUPTED


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted(config: Any, after: int) -> Path:
    """Train a config until Ctrl-C in that step and return the run folder."""
    trainer = prepared(config)

    def press(step: int) -> None:
        if step == after:
            press_ctrl_c()

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], press))
    assert left_with(trainer) == EXIT_INTERRUPTED
    return trainer.base_dir


def left_with(trainer: Any) -> Any:
    """Train, and return the code or the sentence with which the process would have ended."""
    with pytest.raises(SystemExit) as left:
        trainer.train()
    return left.value.code


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("nerfstudio_models/*"))
