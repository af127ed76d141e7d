"""`python -m distilled_splat.workflows.train METHOD --load-config FILE`: what `ns-train` does with these words.

It imports what the training needs and nothing of nerfstudio's other methods, which takes four seconds of a processor
less. So the trainings that our own commands start begin this way.
"""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models import splatfacto  # noqa: F401  what trainings are of, imported before a nursery is copied
from nerfstudio.utils import profiler
from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.ops.render import rasterizer_for
from distilled_splat.runs.checkpoints import allow_numpy_scalars
from distilled_splat.teachers import kinds  # noqa: F401
from distilled_splat.training import datamanager  # noqa: F401


def prepare_to_be_copied() -> None:
    """Import what a training on a CPU imports as it goes, so that those which are copies of this process need not."""
    rasterizer_for(torch.device("cpu"))
    importlib.import_module("open3d")  # nerfstudio reads a capture's points with it


def main() -> None:
    """Train what the command line names."""
    method, option, path = sys.argv[1:]
    assert option == "--load-config"
    CONSOLE.log(f"Loading pre-set config from: {path}")
    # the file is our own, written by `training_jobs.prepare` a moment ago
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


if __name__ == "__main__":
    main()
