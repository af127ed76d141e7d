"""The student's part of nerfstudio's viewer: its size, its PSNR, and a button that exports it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
from nerfstudio.viewer.viewer_elements import ViewerButton, ViewerControl, ViewerElement
from viser.transforms import SO3

from distilled_splat.runs.files import write_bytes
from distilled_splat.runs.words import words_of
from distilled_splat.splat.formats import encode_ply
from distilled_splat.splat.frames import UPRIGHT, moved
from distilled_splat.splat.gaussians import Gaussians

FRUSTUMS_AHEAD = 2.0


class Panel(ViewerElement[str]):
    """Lines of text in the viewer. Unlike nerfstudio's text fields they can be changed during a step.

    A text field that changes calls the viewer back, which waits for the current training step: forever, if that step
    changed the field.
    """

    def __init__(self) -> None:
        super().__init__("student")
        self.lines: dict[str, str] = {}

    def install(self, viser_server: Any) -> None:
        """Add the text to the viewer's page."""
        self._create_gui_handle(viser_server)

    def _create_gui_handle(self, viser_server: Any) -> None:
        self.gui_handle = viser_server.gui.add_markdown(self.text)

    @property
    def text(self) -> str:
        """The lines as Markdown."""
        return "  \n".join(f"**{name}** {words}" for name, words in self.lines.items())

    def show(self, name: str, words: str) -> None:
        """Add or change a line."""
        if self.lines.get(name) == words:
            return
        self.lines[name] = words
        if self.gui_handle is not None:
            self.gui_handle.content = self.text  # type: ignore[attr-defined]


class Connection(ViewerControl):
    """Knows the viewer's run folder and step, and starts every visitor at a camera of the capture.

    nerfstudio starts visitors somewhere beside the scene.

    Attributes:
        run: the run's folder; None without a viewer.
        step: returns the training step; None after training.
        train_lock: the lock that a training step and the viewer's renders hold; None without both.
    """

    run: Optional[Path] = None
    train_lock: Optional[threading.Lock] = None
    step: Callable[[], Optional[int]]

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        self.run = viewer.log_filename.parent
        self.train_lock = viewer.train_lock
        self.step = lambda: None if viewer.trainer is None else viewer.step
        pose = viewer.pipeline.datamanager.train_dataset.cameras.camera_to_worlds[0].cpu().double().numpy()
        # viser's cameras look along +z with y down, nerfstudio's along -z with y up
        # in front of the frustum that the viewer draws for this camera
        position = (
            VISER_NERFSTUDIO_SCALE_RATIO * pose[:, 3] - FRUSTUMS_AHEAD * viewer.config.camera_frustum_scale * pose[:, 2]
        )
        rotation = SO3.from_matrix(pose[:, :3]) @ SO3.from_x_radians(np.pi)

        def begin(client: Any) -> None:
            with client.atomic():
                client.camera.position = position
                client.camera.wxyz = rotation.wxyz

        self.viser_server.on_client_connect(begin)

    def lock_to_take(self) -> Optional[threading.Lock]:
        """Return the lock to hold for a render after the model's own. The trainer already holds it when it renders."""
        return self.train_lock if isinstance(threading.current_thread(), RenderStateMachine) else None


class StudentControls:
    """The viewer elements that the model has as attributes.

    Attributes:
        panel: size, PSNR and exported files.
        connection: to the viewer, once it exists.
        button: exports the student in its current state.
        target: number of Gaussians after the last pruning; None if unknown.
    """

    def __init__(self, gaussians: Callable[[], Gaussians]) -> None:
        self.panel = Panel()
        self.connection = Connection()
        self.button = ViewerButton("Export the student", lambda _: self.export(gaussians()))
        self.target: Optional[int] = None
        self.psnr_step = -1
        self.psnrs: list[float] = []

    def show_size(self, count: int, megabytes: float) -> None:
        """Show the student's size now and after the last pruning."""
        goal = "" if self.target in (None, count) else f", {self.target:,} after the last pruning"
        self.panel.show("Student", f"{count:,} Gaussians{goal}, {megabytes:.2f} MB as .ply")

    def show_psnr(self, psnr: float, step: int) -> None:
        """Show the PSNR of a held-out photo, averaged with those measured at the same step."""
        if step != self.psnr_step:
            self.psnr_step, self.psnrs = step, []
        self.psnrs.append(psnr)
        photos = "a held-out photo" if len(self.psnrs) == 1 else f"{len(self.psnrs)} held-out photos"
        mean = sum(self.psnrs) / len(self.psnrs)
        self.panel.show("PSNR", f"{mean:.2f} dB on {photos} at step {step}")

    def export(self, gaussians: Gaussians) -> Optional[Path]:
        """Write the student in its current state into its run's folder, in the upright frame, and return the path."""
        if self.connection.run is None:
            return None
        step = self.connection.step()
        name = "student.ply" if step is None else f"student-{step:09d}.ply"
        path = self.connection.run / "export" / name
        content = encode_ply(moved(gaussians, UPRIGHT, 1.0))
        try:
            write_bytes(path, content)
        except OSError as error:
            self.panel.show("Export", f"failed: {words_of(error)}")
            return None
        self.panel.show("Export", f"{len(gaussians):,} Gaussians in `{path}`")
        return path
