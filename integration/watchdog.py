"""Adapter: ends the process when a step overruns its budget.

A hung device call cannot be cancelled in a thread. Ending the process can:
recovery then resumes the run and the crash counter keeps it from going on for
ever.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

_EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: a supervisor should start the process again
_LOOK_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class Watchdog:
    """Watches the steps in progress.

    Parameters
    ----------
    budget_s : float
        Seconds one step may take; 0 switches the watchdog off.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._running: dict[int, tuple[str, str, float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._ticket = 0
        if budget_s > 0:
            threading.Thread(target=self._patrol, name="preread-watchdog", daemon=True).start()

    @contextmanager
    def watch(self, step: str, run_id: str) -> Iterator[None]:
        """Count the time of the block against the budget."""
        with self._lock:
            self._ticket += 1
            ticket = self._ticket
            self._running[ticket] = (step, run_id, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                del self._running[ticket]

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _patrol(self) -> None:
        while not self._closed.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            with self._lock:
                overdue = [
                    (step, run) for step, run, since in self._running.values() if now - since > self._budget_s
                ]
            if overdue:
                step, run_id = overdue[0]
                log.error("step_overran_its_budget", step=step, run_id=run_id)
                os._exit(_EXIT_STATUS)
