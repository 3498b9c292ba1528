"""Adapter: Debian's Chromium without a screen, and how to find one's way in OHIF."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
)
PATIENCE_MS = 60_000


@contextmanager
def browser_page(*, width: int = 1600, height: int = 900) -> Iterator:
    """Yield a Playwright page of a fresh Chromium; its ``foreign_requests`` are those to other machines."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install .[e2e]"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(_FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE_MS)
        try:
            yield page
        finally:
            browser.close()


def click_if_shown(page, text: str, *, within_ms: int = 4000) -> bool:
    """Click a button with this text if it turns up in time."""
    button = page.get_by_role("button", name=text).first
    try:
        button.wait_for(state="visible", timeout=within_ms)
    except Exception as exc:  # playwright's own TimeoutError; imported lazily
        if type(exc).__name__ != "TimeoutError":
            raise
        return False
    button.click()
    return True


def pixels_of(page, *, save_to: Path | None = None) -> np.ndarray:
    """Return what the first viewport shows: (rows, columns, 3) uint8 RGB."""
    shot = page.locator(".cornerstone-canvas, canvas.cornerstone-canvas").first.screenshot()
    if save_to is not None:
        save_to.parent.mkdir(parents=True, exist_ok=True)
        save_to.write_bytes(shot)
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


def count_coloured(pixels: np.ndarray, *, least_difference: int = 40) -> int:
    """Return how many pixels are not grey: a segment, a contour, a label."""
    channels = pixels.astype(np.int16)
    return int(((channels.max(axis=2) - channels.min(axis=2)) >= least_difference).sum())
