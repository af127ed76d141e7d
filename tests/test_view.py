"""`distilled-splat view`: the pictures, where they begin, and the page in a real browser."""

from __future__ import annotations

import math
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import chromium, picture, wait_until
from scenes import splat_and_view
from scipy.spatial.transform import Rotation
from sham_process import run_checks
from solids import room, solid, sphere
from tiny import tiny_parser

from distilled_splat import cli
from distilled_splat.ops.render import render
from distilled_splat.ops.views import View, view_of
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.splat.formats import encode_ply
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.teachers.reading import Teacher, read_teacher
from distilled_splat.viewing import pictures
from distilled_splat.viewing.screen import Screen
from distilled_splat.viewing.splats import Shown, escaped, names_of
from distilled_splat.viewing.start import UPS, Start, find_start

BLACK = torch.zeros(3)
BOX = (120, 20, 820, 640)
"""Part of the page beside the panel and viser's axes."""
CLOSE = 27.0
"""dB between the page and our render of the same camera, after a JPEG and the browser's resizing; 20 to another."""


def held_out_view(data: Path) -> View:
    """Return the first camera that the tiny parser holds out, as nerfstudio reads it."""
    config = tiny_parser()
    config.data = data
    parser: Any = config.setup()
    return view_of(parser.get_dataparser_outputs(split="val").cameras[:1])


def negative(gaussians: Gaussians) -> Gaussians:
    """Return the same shapes in other colours."""
    return replace(gaussians, sh_dc=-gaussians.sh_dc, sh_rest=-gaussians.sh_rest)


def start_of(gaussians: Gaussians) -> tuple[Start, Shown]:
    """Return where one looks at a splat from that is in a file."""
    frame = UnitFrame.of([gaussians])
    shown = Shown("splat", frame.into(gaussians), False)
    teacher = Teacher(Path("splat.ply"), gaussians, False, None, {})
    return find_start([teacher.path], [teacher], [shown], frame), shown


def test_a_browsers_camera_sees_what_ours_sees() -> None:
    gaussians, view = splat_and_view()
    centred = torch.tensor([[60.0, 0, view.width / 2], [0, 60.0, view.height / 2], [0, 0, 1]])
    turn, place = Rotation.from_euler("xyz", (0.1, -0.2, 0.3)), np.array([0.1, 0.2, -0.3])
    x, y, z, w = turn.as_quat()
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = turn.as_matrix().T, -turn.as_matrix().T @ place
    ours = View(torch.from_numpy(viewmat).float(), centred, view.width, view.height)
    fov = 2 * math.atan(view.height / 2 / 60)
    camera = pictures.Camera((w, x, y, z), (0.1, 0.2, -0.3), fov, view.width / view.height)
    shown = pictures.picture(pictures.Choice(Shown("", gaussians, True), None, 1.0, (255, 0, 51)), camera, view.height)
    expected = render(gaussians, ours, antialiased=True).over(torch.tensor([1.0, 0, 0.2]))
    assert shown.dtype == np.uint8 and np.abs(shown - 255 * expected.numpy()).max() <= 1


@pytest.mark.parametrize("cut", [0.0, 0.3, 1.0])
def test_two_splats_share_a_picture(cut: float) -> None:
    gaussians, _ = splat_and_view()
    left, right = Shown("left", gaussians, False), Shown("right", negative(gaussians), False)
    camera = pictures.Camera((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0, 1.5)
    both = pictures.picture(pictures.Choice(left, right, cut, (0, 0, 0)), camera, 40)
    alone = [pictures.picture(pictures.Choice(each, None, cut, (0, 0, 0)), camera, 40) for each in (left, right)]
    edge = round(60 * cut)
    assert both.shape == (40, 60, 3)
    assert (both[:, : max(edge - 1, 0)] == alone[0][:, : max(edge - 1, 0)]).all()
    assert (both[:, edge + 1 :] == alone[1][:, edge + 1 :]).all()
    assert (alone[0] != alone[1]).any() and ((both[:, edge - 1 : edge + 1] == 255).all() or cut in (0, 1))


def test_a_run_begins_at_a_held_out_photo(scene: Path, teachers: tuple[Path, ...]) -> None:
    teacher = read_teacher(teachers[0])
    frame = UnitFrame.of([teacher.gaussians])
    shown = Shown("", frame.into(teacher.gaussians), False)
    start = find_start([teachers[0]], [teacher], [shown], frame)
    expected = held_out_view(scene)
    ours = render(shown.gaussians, start.view).over(BLACK)
    assert torch.allclose(ours, render(teacher.gaussians, expected).over(BLACK), atol=0.02)
    assert start.up.tolist() == [0, 0, 1]
    # what is in the middle of the picture is as far away as that
    seen = render(teacher.gaussians, expected, depth=True)
    assert seen.depth is not None
    depth, alpha = seen.depth[12:36, 16:48], seen.alpha[12:36, 16:48]
    assert start.distance * frame.size == pytest.approx(float(depth[alpha > 0.1].median()), rel=0.1)


@pytest.mark.parametrize("splat", [solid(1500), room(3000)])
def test_a_file_begins_where_it_is_to_be_seen(splat: Gaussians) -> None:
    start, shown = start_of(splat)
    rendered = render(shown.gaussians, start.view)
    assert float(rendered.alpha.mean()) > 0.25 and float(rendered.over(BLACK).std()) > 0.05
    # upright: the picture's lower edge is towards what is down
    assert float(start.view.viewmat[1, :3] @ start.up) < -0.5


def test_a_splat_without_a_picture_is_looked_at_from_outside() -> None:
    start, shown = start_of(sphere(3))
    assert float(render(shown.gaussians, start.view).alpha.max()) > 0.5


def test_names_tell_splats_apart() -> None:
    paths = [Path("a/x.ply"), Path("b/x.ply"), Path("b/run/config.yml")]
    assert names_of(paths) == ["a/x.ply", "b/x.ply", "b/run"]
    assert names_of([Path("x.ply"), Path("x.ply")]) == ["x.ply (1)", "x.ply (2)"]


class Visitor:
    """Stands where the browser is, and notes the heights of its pictures and which was the last of a kind."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.seen, self.full = seconds, [], 1080
        self.screen = Screen(self.draw, self.show, lambda: self.full)

    def draw(self, height: int) -> np.ndarray:
        time.sleep(self.seconds * (height / 1080) ** 2)
        return np.zeros((height, 1, 3), np.uint8)

    def show(self, pixels: np.ndarray, is_last: bool) -> None:
        self.seen.append((len(pixels), is_last))

    def last(self) -> bool:
        return bool(self.seen) and self.seen[-1][1]


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_pictures_are_small_while_the_camera_moves_and_full_when_it_stands_still(seconds: float) -> None:
    visitor = Visitor(seconds)
    visitor.screen.start()
    wait_until(visitor.last, "a full picture")
    for _ in range(40):
        visitor.screen.changed()
        time.sleep(0.02)
    moving = visitor.seen[-1][0]
    assert (moving == 1080) if seconds == 0 else (moving < 800)
    wait_until(visitor.last, "a full picture")
    count = len(visitor.seen)
    time.sleep(0.3)
    assert len(visitor.seen) == count and visitor.seen[-1] == (1080, True)
    visitor.full = 2160
    visitor.screen.changed()
    wait_until(lambda: visitor.seen[-1] == (2160, True), "a larger picture")
    visitor.screen.end()
    visitor.screen.thread.join(10)
    assert not visitor.screen.thread.is_alive()


def refused(*arguments: Any) -> str:
    """Return the one sentence with which the command refuses."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as leaving:
        patch.setattr(sys, "argv", ["distilled-splat", "view", *map(str, arguments)])
        cli.main()
    words = str(leaving.value.code)
    assert "\n" not in words
    return words


def test_what_cannot_be_shown_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "whole.ply").write_bytes(encode_ply(sphere(30)))
    (tmp_path / "broken.ply").write_bytes(encode_ply(sphere(30))[:-100])
    (tmp_path / "notes.txt").write_text("nothing")
    free = ("--port", "0")
    assert f"{tmp_path / 'broken.ply'}" in refused(tmp_path / "whole.ply", tmp_path / "broken.ply", *free)
    assert "is not a run or splat file" in refused(tmp_path / "notes.txt", *free)
    assert "does not exist" in refused(tmp_path / "gone.ply", *free)
    assert "has no checkpoint" in refused(tmp_path, *free)
    assert "No splat is given" in refused(*free)
    assert "--port 70000" in refused(tmp_path / "whole.ply", "--port", "70000")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} of 127.0.0.1" in refused(tmp_path / "whole.ply", "--port", port)


@pytest.mark.slow
def test_pictures_on_cuda_are_those_of_the_cpu() -> None:
    run_checks("view")


class Served:
    """The command in a process of its own, and its page."""

    def __init__(self, page: Any, process: subprocess.Popen[bytes]) -> None:
        self.page, self.process = page, process

    def shows(self, *expected: tuple[slice, np.ndarray]) -> bool:
        """Tell whether columns of the page are close to what they should be, [H, W, 3] of the whole page."""
        left, upper, right, lower = BOX
        seen = picture(self.page, BOX)
        return all(
            agreement(seen[:, columns], whole[upper:lower, left:right][:, columns]) > CLOSE
            for columns, whole in expected
        )

    def tick(self, label: str) -> None:
        path = f"//label[normalize-space()='{label}']/following::input[@type='checkbox'][1]"
        self.page.execute_script("arguments[0].click()", self.page.find_element("xpath", path))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Return the PSNR of two pictures in 0 to 255."""
    return 10 * math.log10(255**2 / max(float(((one - other.astype(float)) ** 2).mean()), 1e-9))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A ball beside another that has its shapes in other colours."""
    (tmp_path / "ball.ply").write_bytes(encode_ply(solid(1500)))
    (tmp_path / "negative.ply").write_bytes(encode_ply(negative(solid(1500))))
    with chromium() as page:
        log = (tmp_path / "log").open("wb")
        command = [sys.executable, "-m", "distilled_splat", "view", tmp_path / "ball.ply", tmp_path / "negative.ply"]
        process = subprocess.Popen(
            [*map(str, command), "--port", "0"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:

            def address() -> str:
                assert process.poll() is None, (tmp_path / "log").read_text()
                return (tmp_path / "log").read_text().partition("Open ")[2].partition(" ")[0]

            page.get(wait_until(address, "the address"))
            yield Served(page, process)
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_the_page_shows_two_splats_with_one_camera(served: Served) -> None:
    page = served.page
    width, height = page.execute_script("return [window.innerWidth, window.innerHeight]")
    start, ball = start_of(solid(1500))
    focal = height / start.view.height * float(start.view.K[1, 1])  # the window is wider than the view
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    view = View(start.view.viewmat, K, width, height)
    one, other = (255 * render(each, view).over(BLACK).numpy() for each in (ball.gaussians, negative(ball.gaussians)))
    assert agreement(one, other) < CLOSE - 5
    middle = width // 2 - BOX[0]
    left, right, everywhere = slice(0, middle - 4), slice(middle + 4, None), slice(None)
    wait_until(lambda: served.shows((left, one), (right, other)), "both splats")
    words = page.find_element("tag name", "body").text
    assert "negative.ply" in words and f"{len(ball.gaussians):,} Gaussians" in words
    served.tick("Split")
    wait_until(lambda: served.shows((everywhere, one)), "one alone")
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(30) == 0


def test_the_given_direction_is_up() -> None:
    splat = solid(1500)
    frame = UnitFrame.of([splat])
    shown, teacher = Shown("splat", frame.into(splat), False), Teacher(Path("splat.ply"), splat, False, None, {})
    for name, direction in UPS.items():
        start = find_start([teacher.path], [teacher], [shown], frame, torch.tensor(direction))
        assert start.up.tolist() == list(direction), name
        assert float(start.view.viewmat[1, :3] @ start.up) < 0, name


def test_what_a_page_cannot_show_is_refused_in_a_sentence(tmp_path: Path) -> None:
    splat = tmp_path / "whole.ply"
    splat.write_bytes(encode_ply(sphere(30)))
    assert "let it end in .html" in refused(splat, "--page", tmp_path / "page.ply")
    assert "does not exist" in refused(splat, "--page", tmp_path / "nowhere" / "page.html")
    assert "not 3" in refused(splat, splat, splat, "--page", tmp_path / "page.html")
    assert sorted(tmp_path.iterdir()) == [splat]


@pytest.mark.slow
def test_a_page_in_one_file_shows_two_splats_in_a_narrow_window(tmp_path: Path) -> None:
    """What Spark draws is what our rasterizer draws: the whole width of the first camera, and more above and below."""
    (tmp_path / "ball.ply").write_bytes(encode_ply(solid(1500)))
    (tmp_path / "negative <&>.ply").write_bytes(encode_ply(negative(solid(1500))))
    path = tmp_path / "page.html"
    command = [sys.executable, "-m", "distilled_splat", "view", tmp_path / "ball.ply", tmp_path / "negative <&>.ply"]
    done = subprocess.run([*map(str, command), "--page", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and f"Written: {path}" in done.stdout, done.stdout + done.stderr
    content = path.read_text()
    assert "http://" not in content and not re.search(r"""(src|href)\s*=\s*["']?http""", content)
    width, height = 300, 440
    start, ball = start_of(solid(1500))
    focal = width / start.view.width * float(start.view.K[0, 0])
    view = View(start.view.viewmat, torch.tensor([[focal, 0, 150], [0, focal, 220], [0, 0, 1]]), width, height)
    one, other = (255 * render(each, view).over(BLACK).numpy() for each in (ball.gaussians, negative(ball.gaussians)))
    box = (0, 0, width, 360)  # above the names
    with chromium() as page:
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True},
        )
        page.get(path.as_uri())
        assert page.title == "ball.ply and negative <&>.ply"

        def alike() -> bool:
            seen = picture(page, box)
            return all(
                agreement(seen[:, columns], whole[:360, columns]) > CLOSE
                for columns, whole in ((slice(0, 145), one), (slice(155, None), other))
            )

        wait_until(alike, "both splats")
        assert not page.get_log("browser")


@pytest.mark.parametrize(
    "name", ["{window.hit=1}.ply", "a<b_2_.ply", "*x* [y](z) `w`.ply", "line\nbreak.ply", "plain 1.ply"]
)
def test_a_files_name_is_shown_as_it_is(name: str) -> None:
    """MDX, viser's Markdown, would run what is in braces."""
    shown = escaped(name)
    assert re.sub(r"\\(.)", r"\1", shown) == " ".join(name.split())
    assert not re.search(r"(?<!\\)[{}<>*_`\[\]#]", shown)
