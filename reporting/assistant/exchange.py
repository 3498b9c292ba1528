"""Pure. One question and all that became of it: what is audited, and what is streamed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.errors import TransientError
from reporting.assistant.answer import Answer, show_citation
from reporting.assistant.evidence import ToolCall


class AssistantTimeoutError(TransientError):
    """The assistant did not finish in time: ask again, or ask for less."""


class AssistantCancelledError(TransientError):
    """The person who asked went away or cancelled the question."""


class Planner(StrEnum):
    """Who chooses the tools."""

    RULES = "rules"
    LANGUAGE_MODEL = "language_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledTool:
    """One call with the digest of what it returned, and how long it took."""

    call: ToolCall
    result_sha256: str
    evidence: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question that was answered or refused.

    Attributes
    ----------
    asked : str
        The question as it was worked on: without identifiers.
    intent : str
        What it was taken to ask for; empty if nothing.
    planner : Planner
        Who chose the tools.
    language_model : str
        Identity of the language model that took part; empty if none did.
    verdict : str
        What the checks said of the language model's wording: why it stands, or does not.
    """

    asked: str
    answer: Answer
    intent: str = ""
    planner: Planner = Planner.RULES
    calls: tuple[CalledTool, ...] = ()
    language_model: str = ""
    verdict: str = ""
    seconds: float = 0.0


class EventKind(StrEnum):
    """What is streamed while a question is worked on."""

    TOOL_STARTED = "tool_started"
    TOOL_FINISHED = "tool_finished"
    SENTENCE = "sentence"
    TOKEN = "token"  # noqa: S105 - a word of a sentence
    CITATIONS = "citations"
    FINAL = "final"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantEvent:
    """One event; ``data`` is JSON."""

    kind: EventKind
    data: dict[str, object]


def stream_answer(answer: Answer) -> Iterator[AssistantEvent]:
    """Yield the events of an answer that passed its checks: word by word, then the citations."""
    for sentence in answer.sentences:
        for word in sentence.text.split():
            yield AssistantEvent(kind=EventKind.TOKEN, data={"text": f"{word} "})
        data: dict[str, object] = {"text": sentence.text, "citations": list(sentence.citations)}
        yield AssistantEvent(kind=EventKind.SENTENCE, data=data)
    cited = [show_citation(one) for one in answer.citations]
    yield AssistantEvent(kind=EventKind.CITATIONS, data={"citations": cited})
