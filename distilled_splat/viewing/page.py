"""The page in the browser: viser's page with our renders as its background, and a few controls."""

from __future__ import annotations

import contextlib
import io
import math
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np

from distilled_splat.runs.words import words_of
from distilled_splat.viewing.pictures import Camera, Choice, picture
from distilled_splat.viewing.screen import Screen
from distilled_splat.viewing.splats import Shown, escaped
from distilled_splat.viewing.start import Start

UNITS = 5.0
"""viser's units per unit of the unit frame. viser's keys move a visitor by two of viser's units a second."""
HEIGHTS = (360, 540, 720, 1080, 1440, 2160)
"""Heights that a visitor can choose for a still picture, in pixels."""
USUAL_HEIGHT = 1080
QUALITY_MOVING, QUALITY_STILL = 75, 95
"""JPEG quality of pictures while the camera moves, and of the last picture."""
AS_FOUND = "automatic"
UPS = {f"{sign}{axis}": place for place, axis in enumerate("xyz") for sign in "+-"}


def free_port(host: str, port: int) -> int:
    """Return a port that is free to listen on: the given port, or any free port for 0.

    Raises:
        ValueError: if the given port is not free.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port} is invalid: give a number up to 65535, or 0 for any free port.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # so that a viewer can restart on the same port at once
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ValueError(
            f"Cannot listen on port {port} of {host} ({words_of(error)}), perhaps because another viewer runs there: "
            "give another --port (0 for any free port) or another --host."
        ) from None


class Page:
    """A server that shows splats to every visitor; each visitor has a camera."""

    def __init__(self, splats: Sequence[Shown], start: Start, host: str, port: int) -> None:
        """Start the server.

        Args:
            splats: one or more, in one unit frame.
            start: the first camera.
            host: address to listen on.
            port: a free port, see `free_port`.
        """
        import viser

        self.splats = {splat.name: splat for splat in splats}
        self.start = start
        self.screens: dict[int, Screen] = {}
        with contextlib.redirect_stdout(io.StringIO()):  # viser prints its address in a format of its own
            self.server = viser.ViserServer(host=host, port=port, label="distilled-splat view", verbose=False)
        self.build_controls()
        self.server.on_client_connect(self.welcome)
        self.server.on_client_disconnect(self.leave)

    def build_controls(self) -> None:
        """Add the controls to the page."""
        gui, names = self.server.gui, list(self.splats)
        gui.add_markdown("  \n".join(splat.words for splat in self.splats.values()))
        self.several = len(names) > 1
        if self.several:
            self.left = gui.add_dropdown("Left", names, initial_value=names[0])
            self.right = gui.add_dropdown("Right", names, initial_value=names[1])
            self.split = gui.add_checkbox("Split", True, hint="Show both splats side by side, or only the left one")
            self.cut = gui.add_slider("Line", min=0.0, max=1.0, step=0.005, initial_value=0.5)
        self.background = gui.add_rgb("Background", (0, 0, 0))
        heights = [f"{height}" for height in HEIGHTS]
        self.height = gui.add_dropdown("Height in pixels", heights, initial_value=f"{USUAL_HEIGHT}")
        self.up = gui.add_dropdown("Up", [AS_FOUND, *UPS], initial_value=AS_FOUND)
        self.back = gui.add_button("Back to the start")
        self.fault = gui.add_markdown("")
        seen = [self.background, self.height, *((self.left, self.right, self.split, self.cut) if self.several else ())]
        for control in seen:
            control.on_update(lambda _: self.changed())
        self.up.on_update(lambda _: self.turn())
        self.back.on_click(lambda event: self.place(event.client))

    def choice(self) -> Choice:
        """Return what to render, from the state of the controls."""
        r, g, b = self.background.value
        if not self.several:
            return Choice(next(iter(self.splats.values())), None, 1.0, (r, g, b))
        left, right = self.splats[self.left.value], self.splats[self.right.value]
        return Choice(left, right if self.split.value else None, float(self.cut.value), (r, g, b))

    def up_direction(self) -> np.ndarray:
        """Return the up direction, float64 [3]."""
        if self.up.value == AS_FOUND:
            return self.start.up.double().numpy()
        direction = np.zeros(3)
        direction[UPS[self.up.value]] = 1.0 if self.up.value[0] == "+" else -1.0
        return direction

    def changed(self) -> None:
        """Render again for all visitors."""
        for screen in list(self.screens.values()):
            screen.changed()

    def turn(self) -> None:
        """Apply the up direction to every visitor's camera."""
        for client in self.server.get_clients().values():
            client.camera.up_direction = self.up_direction()

    def welcome(self, client: Any) -> None:
        """Show the scene to a new visitor."""
        self.place(client)
        screen = Screen(
            lambda height: self.draw(client, height),
            lambda pixels, is_last: self.show(client, pixels, is_last),
            lambda: int(self.height.value),
        )
        self.screens[client.client_id] = screen
        client.camera.on_update(lambda _: screen.changed())
        screen.start()

    def leave(self, client: Any) -> None:
        """Stop rendering for a visitor who has left."""
        screen = self.screens.pop(client.client_id, None)
        if screen is not None:
            screen.end()

    def place(self, client: Any) -> None:
        """Move a visitor's camera to the first camera. The field of view is as close as the window's shape allows."""
        if client is None:
            return
        view = self.start.view
        viewmat = view.viewmat.detach().cpu().double().numpy()
        eye, look = -viewmat[:3, :3].T @ viewmat[:3, 3], viewmat[2, :3]
        across = view.width / (2 * float(view.K[0, 0])) / client.camera.aspect
        with client.atomic():
            client.camera.fov = 2 * math.atan(max(view.height / (2 * float(view.K[1, 1])), across))
            client.camera.position = UNITS * eye
            client.camera.look_at = UNITS * (eye + self.start.distance * look)
            client.camera.up_direction = self.up_direction()

    def draw(self, client: Any, height: int) -> np.ndarray:
        """Render what a visitor's camera sees. A failure is shown beside the scene."""
        camera = client.camera
        seen = Camera(
            tuple(map(float, camera.wxyz)),  # type: ignore[arg-type]
            tuple(map(float, camera.position / UNITS)),  # type: ignore[arg-type]
            float(camera.fov),
            float(camera.aspect),
        )
        try:
            return picture(self.choice(), seen, height)
        except (RuntimeError, MemoryError) as error:  # a GPU's memory is full
            self.fault.content = f"**Rendering failed** at {height} pixels: {escaped(words_of(error))}"
            return np.zeros((1, 1, 3), np.uint8)

    def show(self, client: Any, pixels: np.ndarray, is_last: bool) -> None:
        """Send a picture to a visitor."""
        quality = QUALITY_STILL if is_last else QUALITY_MOVING
        client.scene.set_background_image(pixels, format="jpeg", jpeg_quality=quality)
        client.flush()

    def stop(self) -> None:
        """Stop the server and all rendering."""
        screens = list(self.screens.values())
        for screen in screens:
            screen.end()
        for screen in screens:
            screen.join()
        self.server.stop()
