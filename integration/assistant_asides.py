"""Adapter: readings on request: models run one at a time, and what they say is kept beside the run.

Nothing of the run itself is changed and nothing is delivered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Event
from typing import Final

import structlog

from dicom_node.errors import PermanentError, PrereadError
from inference.analysis_files import load_analysis, save_outcome
from inference.findings import Analysis, Outcome
from integration.run_folder import RunFolder
from reporting.assistant.exchange import AssistantCancelledError
from reporting.assistant.record import AsideReading, AsideState

#: Folder, within a run's, of what the assistant keeps.
FOLDER: Final = "assistant"
_LOOK_EVERY_S: Final = 0.2

log = structlog.get_logger(__name__)

ReadAside = Callable[[str, str, str | None], Outcome]
"""Run id, model (``name@version``) and Series Instance UID or None to what the model says."""


class AsideReader:
    """Runs models on request, one at a time, and keeps what they say beside the run.

    Parameters
    ----------
    read : callable
        Reads a run's study with a model; changes nothing of the run.
    wait_s : float
        Seconds that an answer waits for a reading; it goes on behind it.
    longest_queue : int
        Readings that may wait; more are refused.
    """

    def __init__(
        self, *, folder_of: Callable[[str], RunFolder], read: ReadAside, wait_s: float, longest_queue: int
    ) -> None:
        self._folder_of = folder_of
        self._read = read
        self._wait_s = wait_s
        self._longest_queue = longest_queue
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preread-aside")
        self._lock = threading.Lock()
        self._underway: dict[str, Future[Analysis]] = {}

    def read_aside(self, run_id: str, reference: str, series: int | None, cancel: Event) -> AsideReading:
        """Let a model read the run's study, or one series of it; wait a bounded time.

        A reading that was made before is not made again.
        """
        folder = self._folder_of(run_id)
        name = reference if series is None else f"{reference}-series-{series}"
        kept = folder.path / FOLDER / name
        try:
            if (found := next(iter(sorted(kept.glob("analysis-*.json"))), None)) is not None:
                return AsideReading(state=AsideState.DONE, reference=reference, analysis=load_analysis(found))
            future = self._submit(f"{run_id}/{name}", run_id, reference, series)
            if future is None:
                reason = "Too many readings were asked for: ask again later."
                return AsideReading(state=AsideState.IMPOSSIBLE, reference=reference, reason=reason)
            analysis = self._await(future, cancel)
        except PrereadError as error:
            return AsideReading(state=AsideState.IMPOSSIBLE, reference=reference, reason=str(error))
        if analysis is None:
            return AsideReading(state=AsideState.UNDERWAY, reference=reference)
        return AsideReading(state=AsideState.DONE, reference=reference, analysis=analysis)

    def close(self) -> None:
        """Take no more readings; one that is being made is finished."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, name: str, run_id: str, reference: str, series: int | None) -> Future[Analysis] | None:
        with self._lock:
            self._underway = {key: one for key, one in self._underway.items() if not one.done()}
            if name in self._underway:
                return self._underway[name]
            if len(self._underway) >= self._longest_queue:
                return None
            future = self._pool.submit(self._make, run_id, reference, series)
            self._underway[name] = future
            return future

    def _make(self, run_id: str, reference: str, series: int | None) -> Analysis:
        folder = self._folder_of(run_id)
        uid = None
        if series is not None:
            found = [one for one in folder.read_study().series if one.series_number == series]
            if not found:
                raise PermanentError(f"The study has no series {series}.")
            uid = found[0].series_uid
        outcome = self._read(run_id, reference, uid)
        name = reference if series is None else f"{reference}-series-{series}"
        save_outcome(folder.path / FOLDER / name, outcome)
        log.info("study_read_on_request", run_id=run_id, model=reference)
        return outcome.analysis

    def _await(self, future: Future[Analysis], cancel: Event) -> Analysis | None:
        ends_at = time.monotonic() + self._wait_s
        while time.monotonic() < ends_at:
            try:
                return future.result(timeout=_LOOK_EVERY_S)
            except FutureTimeoutError:
                if cancel.is_set():
                    raise AssistantCancelledError("The question was cancelled.") from None
        return None
