"""`python -m distilled_splat.workflows.train METHOD --load-config FILE`: does what `ns-train` does with these words.

This module imports only what the training needs, and none of nerfstudio's other methods. This saves four seconds of
processor time. The trainings that our own commands start run this module.

At the end the process leaves without taking Python apart, which would take two seconds more.
"""

from __future__ import annotations

import atexit
import os
import random
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils import profiler
from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.runs.checkpoints import allow_numpy_scalars


def main() -> None:
    """Train the method that the command line names."""
    method, option, path = sys.argv[1:]
    assert option == "--load-config"
    CONSOLE.log(f"Loading pre-set config from: {path}")
    # the file is our own; `training_jobs.prepare` has just written it
    config: TrainerConfig = yaml.load(Path(path).read_text(encoding="utf8"), Loader=yaml.Loader)
    assert config.method_name == method
    train(config)


def train(config: TrainerConfig) -> None:
    """Train as `ns-train` does on one device."""
    allow_numpy_scalars()
    torch.backends.cudnn.benchmark = True
    config.set_timestamp()
    config.print_to_terminal()
    config.save_config()
    random.seed(config.machine.seed)
    np.random.seed(config.machine.seed)
    torch.manual_seed(config.machine.seed)
    trainer = config.setup(local_rank=0, world_size=1)
    try:
        trainer.setup()
        trainer.train()
    finally:
        profiler.flush_profiler(config.logging)


def leave() -> NoReturn:
    """End the process with success: run what is registered for its end, write what is buffered, and skip the rest."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
    leave()
