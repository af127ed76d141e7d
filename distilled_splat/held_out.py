"""Open a finished run, and the photos that it held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup
from torch import Tensor

from distilled_splat.agreement import psnr
from distilled_splat.readers import CHECKPOINT_FOLDER, find_checkpoint
from distilled_splat.render import View, render, view_of
from distilled_splat.runs import read_record
from distilled_splat.splatfacto import PortableSplatfactoModel


@dataclass(frozen=True)
class HeldOut:
    """One photo that no training step has seen.

    Attributes:
        view: its camera.
        photo: its colours over `background`, [H, W, 3].
        background: the colour that the model renders over in evaluation, [3].
    """

    view: View
    photo: Tensor
    background: Tensor


@dataclass(frozen=True)
class FinishedRun:
    """A trained model with its data.

    Attributes:
        folder: the run's folder.
        config: its config.yml.
        model: the model, in evaluation mode.
        datamanager: nerfstudio's datamanager.
        record: our record of the run.
    """

    folder: Path
    config: TrainerConfig
    model: PortableSplatfactoModel
    datamanager: Any
    record: dict[str, Any]

    def held_out(self) -> Iterator[HeldOut]:
        """Go through the held-out photos."""
        background = self.model._get_background_color()
        for camera, batch in self.datamanager.fixed_indices_eval_dataloader:
            yield HeldOut(view_of(camera), self.model.photo(batch, background), background)

    @torch.no_grad()
    def image(self, held: HeldOut) -> Tensor:
        """Render what the model sees where a photo was held out, [H, W, 3]."""
        antialiased = self.model.config.rasterize_mode == "antialiased"
        return render(self.model.gaussians(), held.view, antialiased=antialiased).over(held.background)

    @torch.no_grad()
    def mean_psnr(self, draw: Callable[[HeldOut], Tensor]) -> float:
        """Return the mean PSNR over the held-out photos, in dB, of what `draw` makes of each, [H, W, 3].

        Raises:
            ValueError: if the run holds no photos out.
        """
        values = [psnr(draw(held), held.photo) for held in self.held_out()]
        if not values:
            raise ValueError(f"The run {self.folder} holds no photos out: there is nothing to measure it on.")
        return sum(values) / len(values)


def open_run(config_path: Path) -> FinishedRun:
    """Open a run of one of our methods with its data, wherever its folder has been moved to.

    The config.yml is read as nerfstudio reads it, which can run code: open your own runs only.

    Raises:
        ValueError: if there is no such run, it is of another method, or its photos are gone.
    """
    config_path = config_path.expanduser()
    if config_path.name != "config.yml" or not config_path.is_file():
        raise ValueError(f"{config_path} is no run: give the config.yml that ns-train wrote into the run's folder.")
    find_checkpoint(config_path)

    def where_it_is(config: TrainerConfig) -> TrainerConfig:
        config.relative_model_dir = (config_path.parent / CHECKPOINT_FOLDER).resolve()
        return config

    try:
        config, pipeline, _, _ = eval_setup(config_path, test_mode="test", update_config_callback=where_it_is)
    except (AssertionError, OSError, ValueError, KeyError, SystemExit) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"The run {config_path.parent} cannot be opened with its photos: {reason}. They are looked for where they "
            "were in training, relative to the folder that ns-train was started in."
        ) from error
    model: Any = pipeline.model
    if not isinstance(model, PortableSplatfactoModel):
        raise ValueError(f"{config_path} is a run of {type(model).__name__}: give one of distilled-splatfacto.")
    return FinishedRun(config_path.parent, config, model, pipeline.datamanager, read_record(config_path.parent))
