"""The time of a whole training step in `ns-train`, and of the parts of a step."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import psutil
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

from distilled_splat.benchmarks.captures import capture_parser, resampled, untouched_parser, write_capture
from distilled_splat.benchmarks.step_times import WITH_PHOTO, WITHOUT_PHOTO, StepTimes, median_of
from distilled_splat.benchmarks.workload import random_scene
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.training.memory import Place

Kind = Literal["ours", "student", "torch"]
"""ours: a plain step. student: a student's step with cached pseudo labels. torch: with the stock loss and Adam."""

COUNTS = (10_000, 50_000, 150_000)
"""Numbers of Gaussians to train a capture with."""
VIRTUAL_VIEWS = 20
"""Number of virtual views of a student here; few are enough, as all pseudo labels are rendered before the timing."""
WARM_UP = 20
"""Number of steps before the timing, to load kernels, to fill caches, and to reach the full harmonics degree."""


class Stopwatch:
    """Times the calls of watched methods."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.undo: list[Callable[[], None]] = []

    def watch(self, owner: Any, method: str, label: str) -> None:
        """Time every call of a method of an object or a class from now on."""
        original = getattr(owner, method)
        own = method in vars(owner)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds[label].append(time.perf_counter() - start)

        setattr(owner, method, timed)
        self.undo.append(lambda: setattr(owner, method, original) if own else delattr(owner, method))

    def release(self) -> None:
        """Restore all watched methods."""
        while self.undo:
            self.undo.pop()()


def trainer_for(
    kind: Kind,
    parser: NerfstudioDataParserConfig,
    scale: float,
    output: Path,
    steps: int,
    teachers: tuple[Path, ...],
    device_type: str = "cpu",
    place: Place = "gpu",
) -> Any:
    """Set up a training as `ns-train` does, without output on the screen and without densification.

    Args:
        kind: what to train.
        parser: the dataparser.
        scale: size of the photos relative to their own.
        output: folder for the run.
        steps: length of the run.
        teachers: the student's teachers; empty for the other kinds.
        device_type: device to train on, cpu or cuda.
        place: where to keep the photos.
    """
    from nerfstudio.engine.optimizers import AdamOptimizerConfig

    from distilled_splat.methods import distilled_splatfacto, splatfacto_teacher

    config: Any = copy.deepcopy((distilled_splatfacto if kind == "student" else splatfacto_teacher).config)
    config.output_dir, config.data, config.vis = output, parser.data, "tensorboard"
    config.max_num_iterations, config.steps_per_eval_image = steps, 0
    config.steps_per_save = config.steps_per_eval_all_images = 10 * steps
    config.machine.device_type = device_type
    config.pipeline.datamanager.data = parser.data
    config.pipeline.datamanager.dataparser = parser
    config.pipeline.datamanager.camera_res_scale_factor = scale
    config.pipeline.datamanager.cache_images = place
    model = config.pipeline.model
    # statistics are gathered in every step, as in the first half of a training
    model.schedule_length, model.warmup_length, model.stop_split_at = steps, 2 * steps, 2 * steps
    model.sh_degree_interval = 1
    if kind == "student":
        model.teachers, model.keep_fraction, model.min_teacher_psnr = teachers, 1.0, 0.0
        model.prune_times, model.prune_stop, model.virtual_views = 1, steps - 1, VIRTUAL_VIEWS
        # this student is as good as its teachers: with the defaults it would not use pseudo labels
        model.min_teacher_advantage = model.full_overfit_gap = model.max_teacher_disagreement = 0.0
    if kind == "torch":
        for group in config.optimizers.values():
            group["optimizer"] = AdamOptimizerConfig(lr=group["optimizer"].lr, eps=1e-15)
    config.set_timestamp()
    config.save_config()
    trainer = config.setup()
    trainer.setup()
    return trainer


def time_training(
    kind: Kind,
    scene: str,
    parser: NerfstudioDataParserConfig,
    gaussians: Callable[[Any], Gaussians],
    output: Path,
    steps: int,
    scale: float = 1.0,
    teachers: tuple[Path, ...] = (),
) -> tuple[list[StepTimes], Path]:
    """Train for some steps and time each one. The two kinds of a student's steps have separate times.

    Args:
        kind: what to train.
        scene: name of the scene in the result.
        parser: the dataparser.
        gaussians: returns the first Gaussians for a given model; not called for a student.
        output: folder for the run.
        steps: number of timed steps.
        scale: size of the photos relative to their own.
        teachers: the student's teachers; empty for the other kinds.

    Returns:
        The times, and the checkpoint of the first Gaussians.
    """
    before = peak_megabytes()
    with silence(), stock_loss() if kind == "torch" else contextlib.nullcontext():
        trainer = trainer_for(kind, parser, scale, output, WARM_UP + steps, teachers)
        model, stopwatch = trainer.pipeline.model, Stopwatch()
        if kind == "student":
            for index, view in enumerate(model.teaching.curriculum.views):
                model.teaching.labels.label(index, view, torch.zeros(3))
        else:
            model.set_gaussians(gaussians(model).to_splatfacto(model.config.sh_degree))
        start = output / "start" / "step-000000000.ckpt"
        start.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"pipeline": trainer.pipeline.state_dict()}, start)
        watched = {
            "photo and camera": (trainer.pipeline.datamanager, "next_train"),
            "render": (model, "get_outputs"),
            "losses": (model, "get_loss_dict"),
            "backward": (torch.Tensor, "backward"),
            "optimizers": (trainer.optimizers, "optimizer_scaler_step_some"),
            "statistics": (model.strategy, "step_post_backward"),
        }
        for label, (owner, method) in watched.items():
            stopwatch.watch(owner, method, label)
        ends: list[float] = []
        has_photo: list[bool] = []

        def note(step: int) -> None:
            ends.append(time.perf_counter())
            lesson = model.teaching.lesson if kind == "student" else None
            has_photo.append(lesson is None or lesson.has_photo)

        trainer.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], note))
        try:
            trainer.train()
        finally:
            stopwatch.release()
    peak = peak_megabytes() - before
    whole, with_photo = np.diff(ends)[WARM_UP:], np.array(has_photo[1:])[WARM_UP:]
    stages = {}
    for label in watched:
        times_of_stage = stopwatch.seconds[label] or [0.0] * len(ends)  # a student of a teacher gathers no statistics
        stages[label] = np.array(times_of_stage[WARM_UP : WARM_UP + len(whole)])
    stages = {**stages, "rest": whole - sum(stages.values()), "whole step": whole}
    height, width = model.last_size

    def times(name: str, steps: np.ndarray) -> StepTimes:
        milliseconds = {label: 1e3 * float(np.median(seconds[steps])) for label, seconds in stages.items()}
        return StepTimes(name, scene, model.num_points, width, height, milliseconds, peak)

    if kind != "student":
        return [times(kind, with_photo)], start
    return [times(WITH_PHOTO, with_photo), times(WITHOUT_PHOTO, ~with_photo)], start


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hide nerfstudio's tables and tips."""
    from nerfstudio.utils.rich_utils import CONSOLE

    quiet, CONSOLE.quiet = CONSOLE.quiet, True
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        CONSOLE.quiet = quiet


@contextlib.contextmanager
def stock_loss() -> Iterator[None]:
    """Make models use splatfacto's own photo loss: torch's L1 and pytorch_msssim."""
    from pytorch_msssim import SSIM

    from distilled_splat.training import model as splatfacto

    ssim = SSIM(data_range=1.0, size_average=True, channel=3)

    def losses(rendered: torch.Tensor, target: torch.Tensor, ssim_weight: float) -> list[torch.Tensor]:
        similarity = ssim(target.permute(2, 0, 1)[None], rendered.permute(2, 0, 1)[None])
        return [(1 - ssim_weight) * torch.abs(target - rendered).mean() + ssim_weight * (1 - similarity)]

    ours, splatfacto.photometric_losses = splatfacto.photometric_losses, losses
    try:
        yield
    finally:
        splatfacto.photometric_losses = ours


def training_steps(
    data: Optional[Path], sizes: Sequence[tuple[int, int, int]], compare: Optional[str], repeats: int, rounds: int = 1
) -> list[StepTimes]:
    """Time whole training steps: on random scenes, and on a capture at several counts and at twice its resolution.

    Args:
        data: the capture, or None for random scenes only.
        sizes: Gaussians, width and height of the random scenes.
        compare: "torch" to also time the stock loss and stock Adam.
        repeats: number of timed steps.
        rounds: number of times that each training is timed, each time in a process of its own.

    Returns:
        The medians over the steps and over the rounds.
    """
    found: list[StepTimes] = []
    folders = (f"{number}" for number in itertools.count())
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)

        def add(scene: str, parser: NerfstudioDataParserConfig, gaussians: Any, scale: float = 1.0) -> None:
            timed: dict[str, list[StepTimes]] = defaultdict(list)
            for _ in range(rounds):
                arguments = (scene, parser, gaussians, output / next(folders), repeats, scale)
                plain, start = alone(time_training, "ours", *arguments)
                student, _ = alone(time_training, "student", *arguments, (start,) * 3)
                stock = alone(time_training, "torch", *arguments)[0] if compare == "torch" else []
                for times in (*plain, *student, *stock):
                    timed[times.kind].append(times)
            found.extend(median_of(times) for times in timed.values())

        if data is not None:
            for scale in (1.0, 2.0):
                for count in COUNTS:
                    add(data.name, capture_parser(data), partial(resampled, count=count), scale)
        for count, width, height in sizes:
            capture = output / f"capture-{count}"
            gaussians = write_capture(random_scene(count, width, height), width, height, capture)
            add("random", untouched_parser(capture), partial(given, gaussians))
    return found


def given(gaussians: Gaussians, model: Any) -> Gaussians:
    """Return these Gaussians for any model."""
    return gaussians


def alone(task: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own. Memory left behind by earlier trainings would slow it down."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(task, *arguments).result()


def peak_megabytes() -> float:
    """Return the largest memory of this process so far, in 10^6 bytes.

    Linux reports it in /proc. getrusage would start from the peak of the parent process on Linux, and does not exist on
    Windows.
    """
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e6
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
