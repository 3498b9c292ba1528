"""Steps that only note their name: for tests of the engine around them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

_HANG_AT_MOST_S = 20


class NotedSteps:
    """Steps that note their name and answer as told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Callable[..., Any]] = {}
        self._changed = threading.Condition()

    @classmethod
    def of_one_model(cls) -> NotedSteps:
        """Return steps of a study that one model reads and one folder takes."""
        noted = cls()
        noted.answers = {
            "route": lambda _run: {"models": ["model-a"], "shadows": [], "priority": "routine"},
            "collect_readings": lambda _run: {"is_complete": True},
            "prioritize": lambda _run: {"shadows": [], "priority": "routine"},
            "queue_deliveries": lambda _run: {"destinations": ["folder"], "priority": "routine"},
            "deliver": lambda *_: {"retry_after_s": None, "priority": "routine"},
        }
        return noted

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def step(*arguments: Any) -> Any:
            with self._changed:
                self.calls.append((name, *arguments))
                self._changed.notify_all()
            return self.answers[name](*arguments) if name in self.answers else {}

        return step

    def hang_in(self, name: str) -> threading.Event:
        """Make a step wait, as in a process that is about to be lost, until the returned event is set."""
        release = threading.Event()

        def hang(*_arguments: Any) -> dict[str, Any]:
            release.wait(_HANG_AT_MOST_S)
            return {}

        self.answers[name] = hang
        return release

    def wait_for(self, name: str, times: int = 1, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self.count(name) < times:
                assert self._changed.wait(max(0.0, deadline - time.monotonic())), (
                    f"{name} not called: {self.calls}"
                )

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"condition not met: {self.calls}"
            time.sleep(0.05)

    def count(self, name: str) -> int:
        return sum(1 for call in self.calls if call[0] == name)

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]
