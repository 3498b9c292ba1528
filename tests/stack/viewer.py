"""Adapter: a reader at OHIF: opens a study, loads what an algorithm added, looks at what is on the screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from stack.browser import PATIENCE_MS, click_if_shown, pixels_of
from stack.waiting import wait_for


class Viewer:
    """One study open in OHIF.

    Parameters
    ----------
    page
        A Playwright page.
    site : str
        URL under which OHIF is served.
    pictures : Path
        Folder for screenshots.
    """

    def __init__(self, page, site: str, pictures: Path) -> None:
        self.page = page
        self.site = site
        self.pictures = pictures
        self.foreign_requests: list[str] = []
        self.failures: list[str] = []
        page.on("request", self._note_request)
        page.on("response", self._note_response)

    def open(self, study_uid: str) -> None:
        """Open the study and wait until an image is on the screen."""
        self.page.goto(f"{self.site}/viewer?StudyInstanceUIDs={study_uid}")
        self.page.locator("canvas").first.wait_for()
        click_if_shown(self.page, "Skip all", within_ms=10_000)
        click_if_shown(self.page, "Confirm and hide")
        wait_for(lambda: self.look().std() > 5, what="an image in the viewport")
        click_if_shown(self.page, "Skip all", within_ms=3000)  # the tour comes late on a busy machine

    def load(self, series_description: str, *, hydrate: bool = True) -> None:
        """Bring a SEG or SR series into the viewport and say «Yes» to loading it."""
        entry = self.page.get_by_text(series_description, exact=False).first
        entry.scroll_into_view_if_needed()
        entry.dblclick()
        if hydrate:
            self.page.get_by_role("button", name="Yes").first.click(timeout=PATIENCE_MS)

    def open_panel(self, name: str) -> None:
        """Show a panel on the right: ``panelSegmentation`` or ``trackedMeasurements``."""
        self.page.locator(f'[data-cy="{name}-btn"]').first.click()

    def shows(self, text: str, *, timeout_ms: int = PATIENCE_MS) -> bool:
        """Wait until ``text`` is somewhere on the page."""
        self.page.get_by_text(text, exact=False).first.wait_for(state="visible", timeout=timeout_ms)
        return True

    def measurements(self) -> str:
        """Return the text of the measurement panel once it holds a length; empty before."""
        text = self.page.locator('[data-cy="trackedMeasurements-panel"]').first.inner_text()
        return text if " mm" in text else ""

    def look(self) -> np.ndarray:
        """Return the viewport: (rows, columns, 3) uint8 RGB."""
        return pixels_of(self.page)

    def photograph(self, name: str) -> Path:
        """Save the whole page as ``<pictures>/<name>.png``."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        path = self.pictures / f"{name}.png"
        self.page.screenshot(path=str(path))
        return path

    def _note_request(self, request) -> None:
        if not request.url.startswith((self.site, "blob:", "data:")):
            self.foreign_requests.append(request.url)

    def _note_response(self, response) -> None:
        if response.status >= 400:
            self.failures.append(f"{response.status} {response.url}")
