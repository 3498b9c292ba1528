"""Language models that answer what a test tells them, and a report that is faithful by construction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

from reporting.refine.answer import CitedSentence, write_answer
from reporting.refine.port import Completion, CompletionRequest
from reporting.refine.prompt import Ground

Answer = str | Exception | Callable[[CompletionRequest], str]


class ScriptedModel:
    """Gives one answer after the other; an exception is raised, the last answer is given again."""

    identity = "scripted 1.0"

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[CompletionRequest] = []

    def complete(self, request: CompletionRequest, cancel: Event | None = None) -> Completion:
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        text = answer(request) if callable(answer) else answer
        return Completion(text=text, seconds=0.1, prompt_tokens=100, completion_tokens=50)


class StandingClock:
    """A clock that moves by a step at every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def word_faithfully(ground: Ground, seed: int = 1) -> tuple[CitedSentence, ...]:
    """Return sentences by the project's grammar."""
    from random import Random

    from reporting.language.grammar import write_answer_sentences

    return tuple(write_answer_sentences(ground, Random(seed)))


def as_json(sentences: Sequence[CitedSentence]) -> str:
    return write_answer(sentences)
