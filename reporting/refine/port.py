"""Pure. The port through which a language model words a report.

Adapters: ``reporting/language/embedded.py`` (openvino-genai), ``local.py``
(transformers with a LoRA adapter) and ``integration/llm.py`` (any endpoint that
speaks OpenAI's protocol). A model sees a prompt without patient data and is
believed nothing: its answer passes ``reporting/checker/`` or is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from dicom_node.errors import TransientError

#: A JSON Schema.
Schema = Mapping[str, Any]


class LanguageModelError(TransientError):
    """A language model did not answer: it cannot be reached or broke down."""


class LanguageModelTimeoutError(LanguageModelError):
    """A language model did not answer in time."""


class LanguageModelRestingError(LanguageModelError):
    """A language model that failed several times in a row is not asked for a while."""


class GenerationCancelledError(LanguageModelError):
    """The caller wants no answer any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """What a language model is asked.

    Attributes
    ----------
    system, user : str
        The two messages of the chat; free of patient data.
    schema : Schema or None
        JSON Schema that the answer must satisfy; a backend that can constrain decoding does so.
    max_tokens : int
        Most tokens of the answer.
    timeout_s : float
        Seconds after which the backend gives up.
    """

    system: str
    user: str
    schema: Schema | None = None
    max_tokens: int = 512
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a language model answered, and what it cost.

    Attributes
    ----------
    prompt_tokens, completion_tokens : int or None
        None where the backend does not count.
    is_cut : bool
        Whether the answer ended at ``max_tokens`` instead of by itself.
    """

    text: str
    seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    is_cut: bool = False


class LanguageModel(Protocol):
    """What Preread needs of a language model."""

    @property
    def identity(self) -> str:
        """Name and version, with the adapter if there is one, as they are written into provenance."""
        ...

    def complete(self, request: CompletionRequest, cancel: Event | None = None) -> Completion:
        """Answer a prompt.

        Parameters
        ----------
        request : CompletionRequest
            What is asked.
        cancel : threading.Event or None
            Ends the generation when it is set.

        Raises
        ------
        LanguageModelError
            If there is no answer: unreachable, out of time, cancelled, or of another form than asked.
        """
        ...
