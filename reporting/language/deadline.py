"""Pure. The time that one request to a language model has, and its turn at one that serves one at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Self

from reporting.refine.port import CompletionRequest, GenerationCancelledError, LanguageModelTimeoutError

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When a request must be answered, and whether anybody still wants the answer.

    Attributes
    ----------
    ends_at : float
        On the clock of `time.monotonic`, seconds.
    """

    ends_at: float
    cancel: Event | None = None
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, request: CompletionRequest, cancel: Event | None) -> Self:
        """Return the deadline of a request that begins now."""
        return cls(ends_at=time.monotonic() + request.timeout_s, cancel=cancel)

    @property
    def spent_s(self) -> float:
        """Seconds since the request began."""
        return time.monotonic() - self.began

    @property
    def is_over(self) -> bool:
        """Whether generating must end."""
        return time.monotonic() >= self.ends_at or (self.cancel is not None and self.cancel.is_set())

    def require(self) -> None:
        """Raise if the time is over.

        Raises
        ------
        GenerationCancelledError
            If nobody wants the answer any more.
        LanguageModelTimeoutError
            If the time is spent.
        """
        if self.cancel is not None and self.cancel.is_set():
            raise GenerationCancelledError("The caller wants no answer any more.")
        if time.monotonic() >= self.ends_at:
            raise LanguageModelTimeoutError("The language model did not answer in time.")

    @contextmanager
    def take_turn(self, lock: Lock) -> Iterator[None]:
        """Hold a lock; waiting for it counts.

        Raises
        ------
        GenerationCancelledError, LanguageModelTimeoutError
            If the turn does not come in time.
        """
        while not lock.acquire(timeout=_POLL_S):
            self.require()
        try:
            yield
        finally:
            lock.release()
