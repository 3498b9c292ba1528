"""Pure but for its thread. A model that is loaded once, beside the requests that wait for it.

Reading weights cannot be interrupted, so it has a thread of its own: a request whose time is
over leaves, and the next one finds the model loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

from reporting.language.deadline import Deadline

T = TypeVar("T")
_POLL_S = 0.05


class LoadedOnce(Generic[T]):
    """What a function loads, once it has; a failure is told to those who wait and tried again later.

    Parameters
    ----------
    load : callable
        Returns what is loaded.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._lock = Lock()
        self._attempt: _Attempt[T] | None = None

    def get(self, deadline: Deadline | None = None) -> T:
        """Return what is loaded, waiting for it if need be.

        Parameters
        ----------
        deadline : Deadline or None
            When waiting ends; None waits to the end.

        Raises
        ------
        LanguageModelTimeoutError, GenerationCancelledError
            If it is not loaded in time; loading goes on.
        Exception
            As loading raised it.
        """
        with self._lock:
            if self._attempt is None or self._attempt.error is not None:
                self._attempt = _Attempt(self._load)
                Thread(target=self._attempt.run, name="language-model-loading", daemon=True).start()
            attempt = self._attempt
        while not attempt.is_over.wait(_POLL_S):
            if deadline is not None:
                deadline.require()
        if attempt.error is not None:
            raise attempt.error
        return attempt.loaded[0]


class _Attempt(Generic[T]):
    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self.is_over = Event()
        self.loaded: list[T] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.loaded.append(self._load())
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            self.error = error
        finally:
            self.is_over.set()
