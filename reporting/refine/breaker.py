"""Pure. A circuit breaker: a model that failed several times in a row is not asked for a while.

Without it every report would wait out its budget while an endpoint is down; with it the
drafts go out at once, and one report in a while finds out whether the endpoint is back.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock

from reporting.refine.port import (
    Completion,
    CompletionRequest,
    GenerationCancelledError,
    LanguageModel,
    LanguageModelError,
    LanguageModelRestingError,
)


class BreakingModel:
    """A language model behind a circuit breaker.

    Parameters
    ----------
    model : LanguageModel
        What is asked.
    failures : int
        Failures in a row after which the model rests.
    rest_s : float
        Seconds for which it is not asked; the first request after them is a trial.
    clock : callable
        Returns seconds of a clock that never goes back.
    """

    def __init__(
        self, model: LanguageModel, *, failures: int, rest_s: float, clock: Callable[[], float]
    ) -> None:
        self._model, self._limit, self._rest_s, self._clock = model, failures, rest_s, clock
        self._lock = Lock()
        self._failures = 0
        self._rests_until: float | None = None

    @property
    def identity(self) -> str:
        """Identity of the model behind it."""
        return self._model.identity

    def complete(self, request: CompletionRequest, cancel: Event | None = None) -> Completion:
        """Answer a prompt, or say at once that the model rests.

        Raises
        ------
        LanguageModelRestingError
            While it rests.
        LanguageModelError
            If the model fails.
        """
        self._enter()
        try:
            completion = self._model.complete(request, cancel)
        except GenerationCancelledError:
            raise
        except LanguageModelError:
            self._note_failure()
            raise
        with self._lock:
            self._failures, self._rests_until = 0, None
        return completion

    def _enter(self) -> None:
        with self._lock:
            if self._rests_until is None:
                return
            if self._clock() < self._rests_until:
                raise LanguageModelRestingError("The language model failed several times: it rests.")
            self._rests_until = (
                self._clock() + self._rest_s
            )  # this one tries; the others wait for what it finds

    def _note_failure(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= self._limit:
                self._rests_until = self._clock() + self._rest_s
