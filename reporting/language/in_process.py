"""Adapter: what a language model in this process does, whatever runs it: name, loading, one answer at a time.

The model is loaded at the first request, beside it, and stays. Waiting for the model, and for the answer
before, counts against a request's time. Runners: ``embedded.py`` and ``local.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Lock
from typing import Generic, TypeVar

from reporting.language.deadline import Deadline
from reporting.language.loading import LoadedOnce
from reporting.language.weights import MissingLanguageModelError, describe_weights
from reporting.refine.port import Completion, CompletionRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a runner generated, and of how many tokens prompt and answer are."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class InProcessModel(ABC, Generic[T]):
    """A language model in this process (`reporting.refine.port.LanguageModel`).

    Parameters
    ----------
    model : Path
        File or folder of the model.
    adapter : Path or None
        Folder of a LoRA adapter as PEFT saves it.
    """

    def __init__(self, model: Path, adapter: Path | None) -> None:
        self._model, self._adapter = model, adapter
        self._loaded = LoadedOnce(self._open)
        self._lock = Lock()

    @cached_property
    def identity(self) -> str:
        """Name of the model and of its adapter, each with the start of its weights' SHA-256."""
        return describe_weights(self._model, self._adapter)

    def load(self) -> None:
        """Load the model, unless it is loaded; a request does it too.

        Raises
        ------
        MissingLanguageModelError
            If the model or a library is not installed.
        UnusableAdapterError
            If the adapter does not fit the model.
        LanguageModelError
            If the runner cannot load the model or its adapter.
        """
        self._loaded.get()

    def complete(self, request: CompletionRequest, cancel: Event | None = None) -> Completion:
        """Answer a prompt (`reporting.refine.port.LanguageModel.complete`)."""
        deadline = Deadline.of(request, cancel)
        with deadline.take_turn(self._lock):
            answer = self._generate(self._loaded.get(deadline), request, deadline)
        return Completion(
            text=answer.text,
            seconds=deadline.spent_s,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            is_cut=answer.completion_tokens >= request.max_tokens,
        )

    def _open(self) -> T:
        if not self._model.exists():
            raise MissingLanguageModelError("The language model is not there: check language.model.")
        return self._read()

    @abstractmethod
    def _read(self) -> T:
        """Return the model, as the runner keeps it, from files that are there."""

    @abstractmethod
    def _generate(self, loaded: T, request: CompletionRequest, deadline: Deadline) -> Generation:
        """Return the answer to a prompt; stop when the deadline is over, and raise what it requires."""
