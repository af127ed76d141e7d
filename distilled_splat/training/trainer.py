"""nerfstudio's trainer, extended to stop at any step without loss and to resume there."""

from __future__ import annotations

import copy
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Optional

import torch
import yaml
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import writer
from nerfstudio.utils.misc import step_check
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from distilled_splat.ops.render import rasterizer_for
from distilled_splat.runs.checkpoints import checkpoint_step, latest_checkpoint, load_tensors, save_tensors
from distilled_splat.runs.faults import not_finite, writing_to
from distilled_splat.runs.files import write_beside
from distilled_splat.runs.fingerprints import scene_fingerprint
from distilled_splat.runs.lock import leaving_nothing_if_refused, lock_run
from distilled_splat.runs.processes import EXIT_INTERRUPTED, interrupts_call, is_orphan
from distilled_splat.runs.record import read_record, update_record
from distilled_splat.runs.stages import STAGES, Times, added, total
from distilled_splat.training.progress import ProgressFile
from distilled_splat.training.resuming import restore_training_state, training_state
from distilled_splat.training.run_folder import begin_record, take_folder
from distilled_splat.training.schedule import multiply_rates, scaled_to_run

STEPS_PER_CHECK = 10
"""Steps between two checks of the losses on a GPU, where each check waits for the GPU; on a CPU it costs nothing."""
WEIGHT_OF_A_PSNR = 0.1
"""Weight of one photo in the moving average of the PSNR."""


@dataclass
class ResumableTrainerConfig(TrainerConfig):
    """A training run that resumes if you interrupt it and run the same command again."""

    _target: type = field(default_factory=lambda: ResumableTrainer)
    steps_per_save: int = 0
    """Steps between two checkpoints; 0 saves by time, see seconds-per-save."""
    seconds_per_save: float = 120
    """Seconds between two checkpoints if steps-per-save is 0."""

    def check(self) -> None:
        """Refuse settings that cannot train on this machine, before any time is spent.

        Raises:
            SystemExit: with one sentence on the first fault found.
        """
        kind = self.machine.device_type
        if self.machine.num_devices != 1 or self.machine.num_machines != 1:
            raise SystemExit(
                f"{self.method_name} trains on one device: set --machine.num-devices and --machine.num-machines to 1."
            )
        if self.mixed_precision or self.use_grad_scaler:
            raise SystemExit(
                f"{self.method_name} trains in full precision, like gsplat's kernels: leave out --mixed-precision and "
                "--use-grad-scaler."
            )
        if kind == "mps":
            raise SystemExit("--machine.device-type mps is not supported: use cpu.")
        if kind not in ("cuda", "cpu"):
            raise SystemExit(f"--machine.device-type {kind} is not supported: use cuda or cpu.")
        if kind == "cuda" and not torch.cuda.is_available():
            raise SystemExit(
                "torch finds no CUDA device here: leave out --machine.device-type to train on the CPU, or run "
                "nvidia-smi and `distilled-splat doctor` to find the reason."
            )

    def set_timestamp(self) -> None:
        """Name the run, and lock its folder before anything is written there.

        An interrupted run of the same settings keeps its name and its checkpoint.

        Raises:
            SystemExit: if the settings cannot train on this machine, if another process trains in the folder, or if it
                holds a finished run, or an interrupted one of other settings.
        """
        self.check()
        take_folder(self, super().set_timestamp)

    def save_config(self) -> None:
        """Save the record that identifies an interrupted run, and then config.yml.

        Raises:
            SystemExit: if the output folder cannot be written to.
        """
        with writing_to(self.get_base_dir()):
            begin_record(self)  # before config.yml, so that a run killed between the two can be identified
            self.write_config()

    def write_config(self) -> None:
        """Write config.yml into the run's folder."""
        write_config(self)


def write_config(config: TrainerConfig) -> None:
    """Write a run's config.yml, whole or not at all."""
    path, content = config.get_base_dir() / "config.yml", yaml.dump(config)
    CONSOLE.log(f"Saving config to: {path}")
    write_beside(path, lambda temporary: temporary.write_text(content, encoding="utf8"))


class ResumableTrainer(Trainer):
    """A trainer whose run ends at `max_num_iterations` steps in total, however often it is interrupted.

    On Ctrl-C and SIGTERM it finishes the current step, saves, and exits; a checkpoint is whole or absent.
    """

    config: ResumableTrainerConfig

    def __init__(self, config: ResumableTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        STAGES.begin_run()
        config.check()
        super().__init__(scaled_to_run(config), local_rank, world_size)
        self.stopped_by: Optional[str] = None
        self.interrupts = interrupts_call(self.stop)
        self.last_done = -1
        self.losses: dict[str, Tensor] = {}
        self.progress_file = ProgressFile(self.base_dir, self.config.max_num_iterations)
        self.last_save = math.inf
        self.psnr: Optional[Tensor] = None
        self.evaluations: list[dict[str, float]] = []
        self.before: dict[str, Any] = {}
        self.started_at = time.monotonic()
        self.ended_at: Optional[float] = None

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Set up as nerfstudio does, record what a student needs to know about a teacher, and report progress.

        Raises:
            SystemExit: if the user interrupts it, there is no rasterizer, or the run folder cannot be written to.
        """
        try:
            with writing_to(self.base_dir), leaving_nothing_if_refused(self.base_dir):
                self.get_rasterizer()
                super().setup(test_mode)
                scene = scene_fingerprint(self.pipeline.datamanager.train_dataparser_outputs)  # type: ignore[union-attr, arg-type]
                self.resume(scene)
                self.note_what_a_student_must_know(scene)
        except KeyboardInterrupt:
            CONSOLE.print("Stopped before the first step. The same command starts again from what is already on disk.")
            raise SystemExit(EXIT_INTERRUPTED) from None
        self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.after_step))
        self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self.after_train))

    def resume(self, scene: str) -> None:
        """Restore what nerfstudio has not: the state of the training, and what the record says of the time before.

        Args:
            scene: fingerprint of the parsed data.

        Raises:
            SystemExit: if it is another than before the interruption.
        """
        config = self.config
        if config.load_dir is None or config.load_dir.resolve() != self.checkpoint_dir.resolve():
            return  # a new run, or one that starts with the checkpoint of another
        self.before = read_record(self.base_dir)
        if self.before.get("scene", scene) != scene:
            raise SystemExit(
                f"The photos, poses or points of {config.data} have changed since the run in {self.base_dir} was "
                "interrupted: restore them to resume it, or start a new run with --timestamp."
            )
        done = self.before.get("evaluations", [])
        self.evaluations = [evaluation for evaluation in done if evaluation["step"] < self._start_step]
        state = load_tensors(config.load_dir / f"step-{self._start_step - 1:09d}.ckpt").get("training")
        if state is not None:
            restore_training_state(state, self.pipeline.model, self.pipeline.datamanager)

    def get_rasterizer(self) -> None:
        """Import or compile the device's rasterizer, which takes minutes the first time on a machine with CUDA.

        Raises:
            SystemExit: if that fails, with one sentence that says what to do.
        """
        try:
            with STAGES.within("kernels"):
                rasterizer_for(torch.device(self.device))
        except ValueError as error:
            raise SystemExit(str(error)) from None

    def setup_optimizers(self) -> Optimizers:
        """Build the optimizers, with the model's learning rates for a capture of this size."""
        model, datamanager = self.pipeline.model, self.pipeline.datamanager
        optimizers = copy.deepcopy(self.config.optimizers)
        multiply_rates(optimizers, model.rates_on(datamanager.train_dataset.cameras))  # type: ignore[operator, union-attr]
        return Optimizers(optimizers, self.pipeline.get_param_groups())

    def note_what_a_student_must_know(self, scene: str) -> None:
        """Record the kind of teacher, its photos, its data's fingerprint, and the folder, in case the run is moved."""
        datamanager: Any = self.pipeline.datamanager
        photos = [path.name for path in datamanager.train_dataparser_outputs.image_filenames]
        variant = getattr(self.config.pipeline.model, "variant", "standard")
        folder = f"{self.base_dir.absolute()}"
        update_record(self.base_dir, variant=variant, photos=photos, scene=scene, folder=folder)

    def train(self) -> None:
        """Train up to `max_num_iterations` steps in total.

        Raises:
            SystemExit: if another process trains in this folder, when interrupted (after saving), if the training
                diverges, or if the folder cannot be written to.
        """
        if is_orphan():
            raise SystemExit(EXIT_INTERRUPTED)
        lock = lock_run(self.base_dir)
        found = latest_checkpoint(self.checkpoint_dir)
        if found is not None and checkpoint_step(found) >= self._start_step:
            lock.release(force=True)
            raise SystemExit(
                f"Another process has trained in {self.base_dir} since this one started: run the same command again to "
                "resume that run, or set another --timestamp."
            )
        for left_by_a_kill in self.base_dir.glob(".*.part"):
            left_by_a_kill.unlink()
        self.started_at = self.last_save = time.monotonic()
        self.step = self._start_step - 1
        STAGES.turn_to("first step")
        threads = torch.get_num_threads()
        if not self.device.startswith("cuda"):
            # torch's waiting OpenMP threads would take the cores from our kernels' threads
            torch.set_num_threads(1)
        try:
            with self.interrupts, writing_to(self.base_dir):
                try:
                    self.run_loop()
                finally:
                    self.flush_logs()
        finally:
            torch.set_num_threads(threads)
            lock.release(force=True)

    def run_loop(self) -> None:
        """Run nerfstudio's loop over the remaining steps.

        After loading a checkpoint nerfstudio 1.1.5 makes `max_num_iterations` more steps, later versions that many in
        total. So `after_step` ends the loop at the last step, and the loop does not start if no step remains.
        """
        if self._start_step < self.config.max_num_iterations:
            return super().train()
        self._init_viewer_state()
        self._after_train()

    def stop(self, reason: str) -> None:
        """End the training after the current step."""
        self.stopped_by = reason
        self.stop_training = True

    def _after_train(self) -> None:
        if self.last_done >= 0:
            self.step = self.last_done  # nerfstudio has already increased the step
        if self.stopped_by is None:
            # nerfstudio's log needs a step, and there was none if the last stop came after the last step
            writer.GLOBAL_BUFFER.setdefault("step", self.step)
            return super()._after_train()
        if self.last_done >= 0:  # otherwise no step has run since the last checkpoint
            self.save_checkpoint(self.last_done)
        done = max(self.last_done + 1, self._start_step)
        self.note_in_record(finished=done >= self.config.max_num_iterations)
        CONSOLE.print(f"Stopped by {self.stopped_by}; saved after {done} steps. The same command resumes from there.")
        raise SystemExit(EXIT_INTERRUPTED)

    def eval_iteration(self, step: int) -> None:
        """Evaluate as nerfstudio does, if there are photos to evaluate on.

        The state of torch's random numbers is kept: LPIPS draws weights when it is first used, and no training may
        depend on how often it is evaluated.
        """
        config = self.config
        intervals = (config.steps_per_eval_batch, config.steps_per_eval_image, config.steps_per_eval_all_images)
        due = any(step_check(step, interval) for interval in intervals)  # nerfstudio asks after every step
        if not due or len(self.pipeline.datamanager.eval_dataset) == 0:  # type: ignore[arg-type]
            return
        if step_check(step, config.steps_per_eval_all_images):
            self.note_evaluation(step)
        devices = [] if self.device == "cpu" else [self.device]
        with STAGES.within("evaluation"), torch.random.fork_rng(devices):
            super().eval_iteration(step)

    def note_evaluation(self, step: int) -> None:
        """Note how long the training has taken until the held-out photos are measured, without former measurements."""
        seconds, processor_seconds = total(self.stages(), "evaluation", "teachers")
        entry = {"step": step, "seconds": seconds, "processor_seconds": processor_seconds}
        self.evaluations.append({name: round(value, 2) for name, value in entry.items()})

    def train_iteration(self, step: int) -> Any:
        """Train one step, check that its losses are finite, and update the moving average of the PSNR.

        Raises:
            SystemExit: if a loss is NaN or infinite.
        """
        loss, losses, metrics = super().train_iteration(step)
        self.losses = {name: value.detach() for name, value in losses.items()}
        if self.device == "cpu" or step % STEPS_PER_CHECK == 0:
            self.refuse_divergence(step, self.losses, {})
        if "psnr" in metrics:  # an average, because that of single photos varies much
            psnr = metrics["psnr"].detach()
            self.psnr = psnr if self.psnr is None else torch.lerp(self.psnr, psnr, WEIGHT_OF_A_PSNR)
        return loss.detach(), self.losses, metrics  # nerfstudio logs them as numbers

    def refuse_divergence(self, step: int, losses: dict[str, Tensor], parameters: dict[str, Tensor]) -> None:
        """End the training, unsaved, if a loss or a parameter is NaN or infinite.

        Raises:
            SystemExit: with the step, the number and the last good checkpoint.
        """
        fault = not_finite(losses, parameters)
        if fault is None:
            return
        checkpoint = latest_checkpoint(self.checkpoint_dir)
        left = "There is no checkpoint yet"
        if checkpoint is not None:
            left = (
                f"The same command resumes from the last good checkpoint, {checkpoint}. If the training diverges again"
            )
        raise SystemExit(
            f"The training diverged in step {step}: {fault}. {left}: lower the learning rates "
            "(--optimizers.scales.optimizer.lr and the others)."
        )

    def save_checkpoint(self, step: int) -> None:
        """Save as `write_checkpoint` does, and count the time as that of checkpoints."""
        with STAGES.within("checkpoints"):
            self.write_checkpoint(step)
        self.note_in_record()

    def write_checkpoint(self, step: int) -> None:
        """Save the model and the optimizers, whole or not at all, and only then remove older checkpoints.

        Raises:
            SystemExit: if a number in it is NaN or infinite.
        """
        model: Any = self.pipeline.model
        self.refuse_divergence(step, self.losses, dict(model.gauss_params.items()))
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        content = {
            "step": step,
            "pipeline": self.pipeline.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
            "training": training_state(model, self.pipeline.datamanager),
        }
        self.last_save = time.monotonic()
        # nerfstudio treats every file in the checkpoint folder as a checkpoint, including temporary ones
        write_beside(path, lambda temporary: save_tensors(content, temporary), scratch=self.base_dir)
        if self.config.save_only_latest_checkpoint:
            for older in self.checkpoint_dir.glob("step-*.ckpt"):
                if older != path:
                    with suppress(
                        PermissionError
                    ):  # on Windows, while another program reads it: the next save removes it
                        older.unlink()

    def after_step(self, step: int) -> None:
        """Stop at the last step or when the parent command is gone, save at the interval, and report progress."""
        self.last_done = step
        if self.stopped_by is not None or step + 1 >= self.config.max_num_iterations:
            self.stop_training = True  # nerfstudio resets a stop from before its loop
        if is_orphan():
            self.stop("the end of the command that started this training")
        now = time.monotonic()
        if not self.config.steps_per_save and now - self.last_save > self.config.seconds_per_save:
            self.save_checkpoint(step)
        if self.progress_file.due(step + 1):
            self.progress_file.report(step + 1, self.pipeline.model.num_points, self.psnr)  # type: ignore[union-attr, arg-type]
        if step == self._start_step:
            STAGES.turn_to("steps")

    def after_train(self, step: int) -> None:
        """Record whether the run is finished, and let Ctrl-C end the viewer that stays open."""
        self.flush_logs()  # now, because the viewer stays open afterwards
        self.interrupts.restore()
        self.note_in_record(finished=step + 1 >= self.config.max_num_iterations)
        if self.stopped_by is not None:  # by a signal since the last step
            CONSOLE.print(f"Stopped by {self.stopped_by}; the training is finished.")
            raise SystemExit(EXIT_INTERRUPTED)

    def flush_logs(self) -> None:
        """Write what tensorboard's writers still hold: their threads end with the process."""
        for logger in writer.EVENT_WRITERS:
            if isinstance(logger, writer.TensorboardWriter):
                logger.tb_writer.flush()

    def note_in_record(self, finished: bool = False) -> None:
        """Record the run's state, its total training time in seconds, and where the time went."""
        rounded = {name: [round(seconds, 2) for seconds in times] for name, times in self.stages().items()}
        entries = {"seconds": self.seconds_trained(), "stages": rounded, "evaluations": self.evaluations}
        update_record(self.base_dir, finished=finished, **entries)

    def stages(self) -> dict[str, Times]:
        """Return the times of all stages, with those before the last interruption."""
        return added(self.before.get("stages", {}), STAGES.read())

    def seconds_trained(self) -> float:
        """Return the run's total training time in seconds, however often it was interrupted."""
        now = time.monotonic() if self.ended_at is None else self.ended_at
        return round(self.before.get("seconds", 0) + now - self.started_at, 1)
