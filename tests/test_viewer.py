"""nerfstudio's viewer in a real browser: the page, the scene, and what each of the student's controls changes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, picture, wait_until
from PIL import Image
from tiny import tiny_student, tiny_teacher, trained

from distilled_splat.teachers.kinds import VARIANTS
from distilled_splat.teachers.reading import read_teacher

pytestmark = pytest.mark.slow

SCENE = (40, 100, 860, 850)
"""Where the scene is on the page, beside the panel."""
STEPS = 250
"""Enough for a splat that looks like something."""
CHANGED = 0.5
"""Mean difference of two pictures, of 255, above which a control has done something; a still view has 0."""


class ViewerPage:
    """The page of one run's viewer."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def settled(self) -> np.ndarray:
        """Return the scene once it stays the same."""
        seen = [picture(self.page, SCENE)]

        def still() -> bool:
            seen.append(picture(self.page, SCENE))
            return bool(np.abs(seen[-1] - seen[-2]).mean() < 0.01) and bool(
                np.abs(seen[-1] - seen[-3:][0]).mean() < 0.01
            )

        wait_until(still, "a still picture")
        return seen[-1]

    def changed(self, before: np.ndarray, what: str) -> np.ndarray:
        """Return the scene once it is another than before, and still."""
        wait_until(lambda: np.abs(picture(self.page, SCENE) - before).mean() > CHANGED, what)
        return self.settled()

    def options(self) -> list[Any]:
        return [option for option in self.page.find_elements("css selector", "[role=option]") if option.is_displayed()]

    def choose(self, label: str, option: str) -> list[str]:
        """Choose from a drop-down list, and return what could be chosen."""
        path = f"//label[normalize-space()='{label}']/following::input[@aria-haspopup='listbox'][1]"
        self.page.find_element("xpath", path).click()
        names = wait_until(lambda: [item.text for item in self.options()], f"the list of {label}")
        next(item for item in self.options() if item.text == option).click()
        return names

    def tick(self, folder: str) -> None:
        """Tick the first box after a folder's title."""
        path = f"//*[normalize-space()='{folder}']/following::input[@type='checkbox'][1]"
        self.page.find_element("xpath", path).click()

    def text(self) -> str:
        return self.page.find_element("tag name", "body").text


@pytest.fixture(scope="module")
def student(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished student, of whose three teachers the last was lost."""
    output = tmp_path_factory.mktemp("seen")
    runs = [tiny_teacher(scene, output / "runs" / kind, STEPS, variant=kind).base_dir for kind in VARIANTS]
    teachers = tuple(Path(shutil.copytree(run, output / kind)) for kind, run in zip(VARIANTS, runs))
    run = trained(tiny_student(scene, output, teachers, STEPS, num_gaussians=300)).base_dir
    shutil.rmtree(teachers[-1])
    return run


@pytest.fixture(scope="module")
def viewer(student: Path) -> Iterator[ViewerPage]:
    """The page of ns-viewer, open in a browser."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with chromium() as page:
        log = (student / "viewer.log").open("wb")
        server = subprocess.Popen(
            [str(Path(sys.executable).parent / "ns-viewer"), "--load-config", str(student / "config.yml"),
             "--viewer.websocket-host", "127.0.0.1", "--viewer.websocket-port", str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:

            def ready() -> bool:
                assert server.poll() is None
                return "local writer" in (student / "viewer.log").read_text()

            # nerfstudio's viewer never renders for a page that connects while it is still being built
            wait_until(ready, "the start of ns-viewer")
            page.get(f"http://127.0.0.1:{port}")
            opened = ViewerPage(page)
            wait_until(lambda: "Custom Elements" in opened.text(), "the panel")
            wait_until(lambda: picture(page, SCENE).std() > 20, "the scene")
            yield opened
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_each_choice_shows_another_picture(viewer: ViewerPage, tmp_path: Path) -> None:
    shown = {"rgb": viewer.settled()}
    assert shown["rgb"].std() > 20
    names = [
        "standard teacher",
        "perturbed teacher",
        "dropout (missing)",
        "disagreement",
        "error",
        "importance",
        "ensemble",
    ]
    for name in names:
        before = list(shown.values())[-1]
        assert name in viewer.choose("Output type", name)
        shown[name] = viewer.changed(before, f"the picture of {name}")
    for name, pixels in shown.items():
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{name}.png")
    pairs = [(a, b) for a in shown for b in shown if a < b]
    same = [pair for pair in pairs if np.abs(shown[pair[0]] - shown[pair[1]]).mean() < CHANGED / 2]
    assert not same
    grey = shown["dropout (missing)"]
    colour = np.median(grey, axis=(0, 1))
    assert np.ptp(colour) < 4 and (np.abs(grey - colour).max(axis=-1) < 8).mean() > 0.5


def test_the_split_shows_the_ensemble_beside_the_student(viewer: ViewerPage) -> None:
    ensemble = viewer.settled()
    viewer.choose("Output type", "rgb")
    student = viewer.changed(ensemble, "the student's picture")
    viewer.tick("Split Screen")
    both = viewer.changed(student, "the split")
    middle = both.shape[1] // 2
    left, right = slice(0, middle - 150), slice(middle + 150, None)
    assert np.abs(both[:, left] - student[:, left]).mean() < np.abs(both[:, left] - ensemble[:, left]).mean()
    assert np.abs(both[:, right] - ensemble[:, right]).mean() < np.abs(both[:, right] - student[:, right]).mean()


def test_the_panel_tells_the_size_and_the_button_exports(viewer: ViewerPage, student: Path) -> None:
    assert "300 Gaussians, 0.07 MB as .ply" in viewer.text()
    button = viewer.page.find_element("xpath", "//button[normalize-space()='Export the student']")
    viewer.page.execute_script("arguments[0].scrollIntoView()", button)
    button.click()
    path = student / "export" / "student.ply"
    wait_until(lambda: f"{path}" in viewer.text(), "the word that it was exported")
    assert len(read_teacher(path).gaussians) == 300


def test_the_page_reports_no_faults(viewer: ViewerPage) -> None:
    """What nerfstudio fetches from elsewhere does not count, nor what viser's own client says of its geometry."""
    entries = [entry["message"] for entry in viewer.page.get_log("browser") if entry["level"] == "SEVERE"]
    ours = [message for message in entries if "127.0.0.1" in message]
    assert not [message for message in ours if "favicon" not in message and "THREE." not in message]
