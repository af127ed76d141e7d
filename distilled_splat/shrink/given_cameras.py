"""Reads cameras from a file, a folder or a run, in each frame that their splat may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import yaml
from torch import Tensor

from distilled_splat.ops.views import View
from distilled_splat.runs.files import read_text
from distilled_splat.runs.record import read_record
from distilled_splat.runs.whereabouts import Whereabouts
from distilled_splat.runs.words import words_of
from distilled_splat.shrink.camera_files import read_json
from distilled_splat.shrink.camera_frames import distinct, moved, readings_of, upright
from distilled_splat.shrink.colmap_model import model_in, read_colmap
from distilled_splat.shrink.recording import Recording, check_similarity
from distilled_splat.teachers.reading import read_frame

WHAT_TO_GIVE = (
    "give a transforms.json, a folder with one, a COLMAP sparse model, the cameras.json of Inria's trainer, or the "
    "folder of a nerfstudio run"
)
JSON_NAMES = ("transforms.json", "transforms_train.json")
LONGEST_CONFIG = 1 << 18
"""Characters of a config.yml. nerfstudio's have about 10 thousand."""


@dataclass(frozen=True)
class GivenCameras:
    """The cameras of a recording.

    Attributes:
        kind: what was read, in plain words.
        readings: the cameras by name of the frame; see `camera_frames.readings_of`. All lists have the same cameras in
            the same order, on the CPU.
        photos: path of each camera's photo; None without a photo.
    """

    kind: str
    readings: dict[str, list[View]]
    photos: tuple[Optional[Path], ...]

    def moved(self, scale: float, shift: Tensor) -> GivenCameras:
        """Return the cameras moved with their splat by x -> (x - shift) scale, in every frame; `shift` is [3]."""
        return replace(self, readings={name: moved(views, scale, shift) for name, views in self.readings.items()})

    def summary(self) -> list[Any]:
        """Return everything that was read as JSON's types; it differs if the cameras differ."""
        poses = {name: [[view.viewmat.tolist(), view.K.tolist(), view.width, view.height] for view in views]
                 for name, views in self.readings.items()}  # fmt: skip
        return [self.kind, poses, [str(photo) for photo in self.photos]]


def read_cameras(path: Path) -> GivenCameras:
    """Read cameras as pinholes, without running any code in the files. Lens distortion and points are ignored.

    Args:
        path: nerfstudio's transforms.json or a folder with it (also Blender's transforms_train.json), a folder with a
            sparse model of COLMAP, the cameras.json of Inria's trainer or a folder with it, or a run of nerfstudio (its
            folder or its config.yml). A run's data may have been moved together with the run.

    Raises:
        ValueError: if there are no such cameras, or the file is damaged.
    """
    path = path.expanduser()
    try:
        run = run_at(path)
        if run is not None:
            return cameras_of_run(run)
        recording = recording_at(path)
        return given(recording, readings_of(recording))
    except (OSError, MemoryError, RecursionError) as error:
        raise ValueError(f"The cameras in {path} cannot be read ({words_of(error)}): {WHAT_TO_GIVE}.") from error


def given(recording: Recording, readings: dict[str, list[View]]) -> GivenCameras:
    """Combine a recording with its cameras in each frame."""
    return GivenCameras(recording.kind, readings, tuple(shot.photo for shot in recording.shots))


def recording_at(path: Path) -> Recording:
    """Read a recording of cameras that is not a run.

    Raises:
        ValueError: if there is no recording, or it is damaged.
        OSError: if it cannot be read.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: {WHAT_TO_GIVE}.")
    if path.is_file() and path.suffix == ".json":
        return read_json(path)
    folder = path.parent if path.is_file() and path.suffix in (".bin", ".txt") else path
    if folder.is_dir():
        named = next((folder / name for name in JSON_NAMES if (folder / name).is_file()), None)
        if named is not None and folder == path:
            return read_json(named)
        model = model_in(folder)
        if model is not None:
            return read_colmap(model)
        if (folder / "cameras.json").is_file() and folder == path:
            return read_json(folder / "cameras.json")
    raise ValueError(f"{path} has no cameras: {WHAT_TO_GIVE}.")


def run_at(path: Path) -> Optional[Path]:
    """Return the run folder for a path to a run or to its config.yml; None if the path is not a run."""
    folder = path.parent if path.name == "config.yml" else path
    return folder if (folder / "config.yml").is_file() else None


def cameras_of_run(run: Path) -> GivenCameras:
    """Read a nerfstudio run's cameras from its data, and move them as the run's dataparser_transforms.json says.

    The frame `nerfstudio` is then exactly the frame that ns-export writes, for any options of the dataparser. The
    result also has the other frames of `distilled-splat export`: `upright` and `capture`.

    Raises:
        ValueError: if the run names no data, the data are missing, or the run has not recorded how they were moved.
        OSError: if a file cannot be read.
    """
    frame = read_frame(run)
    if frame is None or not bool(frame[0].isfinite().all()) or not frame[1] > 0:
        raise ValueError(
            f"The run {run} has no valid dataparser_transforms.json, so its frame is unknown: give its data instead."
        )
    data = data_of(run)
    if not data.exists():
        raise ValueError(
            f"The run {run} was trained on {data}, which cannot be found: start the command in the folder in which "
            "ns-train was started, or give the data instead."
        )
    recording = recording_at(data)
    transform, scale = frame
    to_run = np.eye(4)
    to_run[:3] = scale * transform.double().numpy()
    check_similarity(to_run, f"`transform` in {run / 'dataparser_transforms.json'}")
    there = to_run @ recording.to_capture
    worlds = {"nerfstudio": there, "capture": recording.to_capture, "upright": upright(there)}
    return given(replace(recording, kind=f"nerfstudio run ({recording.kind})"), distinct(recording, worlds))


def data_of(run: Path) -> Path:
    """Return the path of the data that a run's config.yml names; see `runs.whereabouts`.

    The file is parsed without following its tags, so it can make no object and run no code.

    Raises:
        ValueError: if the file cannot be parsed, or names no data.
        OSError: if the file cannot be opened.
    """
    config = run / "config.yml"
    try:
        text = read_text(config)
        if len(text) > LONGEST_CONFIG:
            raise ValueError("it is too long")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{config} is not the config of a nerfstudio run ({words_of(error)}).") from error
    where = (("pipeline", "datamanager", "data"), ("pipeline", "datamanager", "dataparser", "data"), ("data",))
    data = next((found for keys in where if (found := path_in(tree, keys)) is not None), None)
    if data is None:
        raise ValueError(f"{config} has no data path: give the folder of the data instead.")
    noted = read_record(run).get("folder")
    then = Path(noted) if isinstance(noted, str) else None
    named = [path_in(tree, (key,)) for key in ("output_dir", "experiment_name", "method_name", "timestamp")]
    base = Path(*(part for part in named if part is not None))
    relative = then is not None and not base.is_absolute() and then.parts[-len(base.parts) :] == base.parts
    started_in = then.parents[len(base.parts) - 1] if then is not None and relative else None
    found = Whereabouts(then, started_in, run.absolute()).find(data)
    return found.parent if found.name == "config.yml" else found


def path_in(tree: Any, keys: tuple[str, ...]) -> Optional[Path]:
    """Return the path under these keys of a YAML tree: a scalar, or the parts of a path in Python's YAML."""
    for key in keys:
        tree = next((value for name, value in pairs(tree) if name == key), None)
    if isinstance(tree, yaml.SequenceNode):
        parts = [part.value for part in tree.value if isinstance(part, yaml.ScalarNode)]
        return Path(*parts) if parts and len(parts) == len(tree.value) else None
    empty = not isinstance(tree, yaml.ScalarNode) or tree.value in ("", "null")
    return None if empty else Path(tree.value)


def pairs(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a YAML mapping; nothing for other nodes."""
    if isinstance(tree, yaml.MappingNode):
        yield from ((name.value, value) for name, value in tree.value if isinstance(name, yaml.ScalarNode))
