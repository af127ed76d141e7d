"""A real Chromium without a window, for tests that look at pages."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

NO_BROWSER = "no browser: install chromium and chromium-driver"
PATIENCE = 120
"""Seconds after which a page that ought to have changed is taken for stuck."""


@contextmanager
def chromium(width: int = 1200, height: int = 1000) -> Iterator[Any]:
    """Open a browser; the test is skipped where there is none."""
    selenium = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    driver, browser = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or browser is None:
        pytest.skip(NO_BROWSER)
    options = selenium.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", f"--window-size={width},{height}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = selenium.Chrome(options=options, service=Service(driver))
    try:
        yield page
    finally:
        page.quit()


def picture(page: Any, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Return what the browser shows, [H, W, 3], or a box (left, top, right, bottom) of it."""
    with Image.open(io.BytesIO(page.get_screenshot_as_png())) as image:
        return np.asarray(image.convert("RGB").crop(box) if box else image.convert("RGB")).astype(int)


def wait_until(there: Callable[[], Any], what: str) -> Any:
    """Return the first true value of `there`."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        found = there()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail(f"{what} did not happen within {PATIENCE} s")
