"""Short trainings of a tiny scene in this process, for tests that look inside a run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.plugins.types import MethodSpecification
from nerfstudio.utils import writer

from distilled_splat.methods import distilled_splatfacto, splatfacto_teacher

CPU = torch.device("cpu")


def tiny_parser() -> NerfstudioDataParserConfig:
    """Every fourth photo is held out."""
    return NerfstudioDataParserConfig(load_3D_points=True, eval_mode="interval", eval_interval=4)


def tiny_config(
    method: MethodSpecification,
    scene: Path,
    output: Path,
    iterations: int = 4,
    parser: DataParserConfig | None = None,
    **model_options: Any,
) -> Any:
    """Return a config that logs every step and writes below `output`; keyword arguments are options of the model."""
    config: Any = copy.deepcopy(method.config)
    config.output_dir, config.data, config.vis = output, scene, "tensorboard"
    config.max_num_iterations = iterations
    config.machine.device_type = "cpu"
    config.logging.local_writer.enable = False
    config.logging.steps_per_log = 1
    config.pipeline.datamanager.data = scene
    config.pipeline.datamanager.dataparser = parser or tiny_parser()
    for name, value in model_options.items():
        assert hasattr(config.pipeline.model, name)
        setattr(config.pipeline.model, name, value)
    return config


def prepared(config: Any) -> Any:
    """Return the trainer of a config, set up as ns-train sets it up."""
    writer.EVENT_WRITERS.clear()
    torch.manual_seed(config.machine.seed)
    config.set_timestamp()
    config.save_config()
    trainer = config.setup()
    trainer.setup()
    return trainer


def trained(config: Any) -> Any:
    """Train a config to its end and return the trainer."""
    trainer = prepared(config)
    trainer.train()
    return trainer


def tiny_teacher(scene: Path, output: Path, iterations: int = 4, **options: Any) -> Any:
    return trained(tiny_config(splatfacto_teacher, scene, output, iterations, **options))


def tiny_student(scene: Path, output: Path, teachers: tuple[Path, ...], iterations: int = 4, **options: Any) -> Any:
    """Return a student's config; the teachers it gets have hardly been trained, so any that renders at all will do."""
    options = {"teachers": teachers, "min_teacher_psnr": 1.0, **options}
    return tiny_config(distilled_splatfacto, scene, output, iterations, **options)


def scalars(run: Path, pattern: str = "events.out.tfevents.*") -> dict[str, dict[int, float]]:
    """Return all that a run's tensorboard files hold: name -> step -> value, later files over earlier ones."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[int, float]] = {}
    for path in sorted(run.glob(pattern)):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    return found
