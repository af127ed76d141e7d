"""Open a finished run with its held-out photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
import yaml
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from distilled_splat.ops.losses import psnr
from distilled_splat.ops.render import Rendered, render
from distilled_splat.ops.views import View, view_of
from distilled_splat.runs.record import read_record
from distilled_splat.runs.whereabouts import Whereabouts
from distilled_splat.teachers.reading import CHECKPOINT_FOLDER, find_checkpoint
from distilled_splat.training.model import PortableSplatfactoModel

TRAIN_WITH_HELD_OUT = (
    "train one with held-out photos (nerfstudio-data --train-split-fraction 0.9, or test_filenames in transforms.json)"
)


@dataclass(frozen=True)
class HeldOut:
    """One held-out photo.

    Attributes:
        place: its index among the held-out photos.
        camera: its camera in nerfstudio's form, of shape [1].
        view: its camera in the rasterizers' form.
        photo: its colours over `background`, [H, W, 3].
        alpha: its alpha, [H, W, 1]; None if it has none.
        background: the model's background colour in evaluation, [3].
    """

    place: int
    camera: Cameras
    view: View
    photo: Tensor
    alpha: Optional[Tensor]
    background: Tensor


@dataclass(frozen=True)
class FinishedRun:
    """A trained model with its data.

    Attributes:
        folder: the run's folder.
        config: the content of its config.yml.
        model: the model, in evaluation mode.
        datamanager: nerfstudio's datamanager.
        record: our record of the run.
        teachers: paths of its teachers, as far as they are known.
    """

    folder: Path
    config: TrainerConfig
    model: PortableSplatfactoModel
    datamanager: Any
    record: dict[str, Any]
    teachers: tuple[Path, ...]

    def check_held_out(self, instead: str = TRAIN_WITH_HELD_OUT) -> None:
        """Refuse a run that has no held-out photos to measure on.

        Args:
            instead: advice at the end of the error message.

        Raises:
            ValueError: if the run has no held-out photos.
        """
        if len(self.datamanager.eval_dataset) == 0:
            raise ValueError(f"The run {self.folder} has no held-out photos to measure it on: {instead}.")

    def held_out(self) -> Iterator[HeldOut]:
        """Yield the held-out photos."""
        background = self.model._get_background_color()
        for place, (camera, batch) in enumerate(self.datamanager.fixed_indices_eval_dataloader):
            image = self.model.get_gt_img(batch["image"])
            alpha = image[..., 3:] if image.shape[-1] == 4 else None
            yield HeldOut(place, camera, view_of(camera), self.model.photo(batch, background), alpha, background)

    @torch.no_grad()
    def rendered(self, view: View, depth: bool = False) -> Rendered:
        """Render a view with the model."""
        antialiased = self.model.config.rasterize_mode == "antialiased"
        return render(self.model.gaussians(), view, antialiased=antialiased, depth=depth)

    def image(self, held: HeldOut) -> Tensor:
        """Render the model at the camera of a held-out photo, [H, W, 3]."""
        return self.rendered(held.view).over(held.background)

    @torch.no_grad()
    def mean_psnr(self, draw: Callable[[HeldOut], Tensor]) -> float:
        """Return the mean PSNR of the images [H, W, 3] that `draw` returns for the held-out photos, in dB.

        Raises:
            ValueError: if the run has no held-out photos.
        """
        self.check_held_out()
        values = [psnr(draw(held), held.photo) for held in self.held_out()]
        return sum(values) / len(values)


def open_run(config_path: Path, data: Optional[Path] = None, teachers: Optional[Sequence[Path]] = None) -> FinishedRun:
    """Open a run of one of our methods with its data, also if the run and its data were moved together.

    nerfstudio's way to read config.yml can run code: open your own runs only.

    Args:
        config_path: the run's config.yml.
        data: the run's data; None: at their path in training, or at the same place relative to the run.
        teachers: its teachers; None: those that it was trained with, at one of these two places.

    Raises:
        ValueError: if the run does not exist or is of another method, or its photos are missing.
    """
    from nerfstudio.utils.eval_utils import eval_setup  # it imports all methods, which takes seconds

    config_path = config_path.expanduser()
    if config_path.name != "config.yml" or not config_path.is_file():
        raise ValueError(
            f"{config_path} is not the config.yml of a run: give the one that ns-train wrote into the run's folder "
            "(outputs/<data>/<method>/<time>)."
        )
    find_checkpoint(config_path)
    folder, record = config_path.parent, read_record(config_path.parent)

    def where_it_is(config: TrainerConfig) -> TrainerConfig:
        config.relative_model_dir = (folder / CHECKPOINT_FOLDER).resolve()
        there = Whereabouts.of(config, record, folder)
        datamanager: Any = config.pipeline.datamanager
        datamanager.data = data or there.find(Path(datamanager.data or datamanager.dataparser.data))
        model: Any = config.pipeline.model
        if getattr(model, "teachers", ()):
            model.teachers = tuple(map(there.find, model.teachers))
        return config

    try:
        config, pipeline, _, _ = eval_setup(config_path, test_mode="test", update_config_callback=where_it_is)
    except yaml.YAMLError as error:
        words = " ".join(str(error).split())
        raise ValueError(
            f"{config_path} cannot be read ({words}): it is damaged, or of a method that is not installed here."
        ) from error
    except (AssertionError, OSError, ValueError, KeyError, SystemExit) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"The run {folder} cannot be opened with its photos: {reason}. If the photos have moved, give their folder "
            "with --data. Otherwise start the command in the folder in which ns-train was started."
        ) from error
    model: Any = pipeline.model
    if not isinstance(model, PortableSplatfactoModel):
        raise ValueError(f"{config_path} is a run of {type(model).__name__}: give a run of distilled-splatfacto.")
    if teachers is None:
        there = Whereabouts.of(config, record, folder)
        teachers = [there.find(Path(path)) for path in record.get("teachers", ())]
    return FinishedRun(folder, config, model, pipeline.datamanager, record, tuple(teachers))
