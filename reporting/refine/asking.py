"""Pure but for the model it asks. One answer within a budget: ask, parse, check, ask once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Final, Protocol

from dicom_node.errors import PrereadError
from reporting.refine.answer import CitedSentence, UnusableAnswerError, parse_answer
from reporting.refine.correction import ask_again
from reporting.refine.port import (
    Completion,
    CompletionRequest,
    GenerationCancelledError,
    LanguageModel,
    LanguageModelRestingError,
    LanguageModelTimeoutError,
)
from reporting.refine.prompt import Ground
from reporting.refine.record import Budget, Reason
from reporting.refine.repair import SeenFault

#: Least seconds and tokens that are worth another attempt.
_LEAST_SECONDS: Final = 1.0
_LEAST_TOKENS: Final = 64
_REASONS: Final[dict[type[PrereadError], Reason]] = {
    LanguageModelTimeoutError: Reason.OUT_OF_TIME,
    LanguageModelRestingError: Reason.RESTING,
    GenerationCancelledError: Reason.CANCELLED,
}


class Checker(Protocol):
    """What holds sentences to the facts that they cite (``reporting/checker/``)."""

    @property
    def version(self) -> str:
        """Which rules and lexicon checked."""
        ...

    def check(self, sentences: Sequence[CitedSentence], ground: Ground) -> Sequence[SeenFault]:
        """Return everything that is wrong; nothing for a faithful text."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of asking.

    Attributes
    ----------
    answer, faults : tuple
        The best answer and what is wrong with it; empty if there was no usable one.
    failure : Reason
        Why the last attempt gave no answer.
    attempts, prompt_tokens, completion_tokens : int
        What all attempts cost together.
    """

    answer: tuple[CitedSentence, ...] = ()
    faults: tuple[SeenFault, ...] = ()
    failure: Reason = Reason.OUT_OF_TIME
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def counting(self, completion: Completion) -> Asked:
        """Return the same with what an attempt cost."""
        return replace(
            self,
            prompt_tokens=self.prompt_tokens + (completion.prompt_tokens or 0),
            completion_tokens=self.completion_tokens + (completion.completion_tokens or 0),
        )


def ask(
    request: CompletionRequest,
    ground: Ground,
    model: LanguageModel,
    *,
    checker: Checker,
    budget: Budget,
    clock: Callable[[], float],
    cancel: Event | None = None,
) -> Asked:
    """Return the best answer that the budget allows.

    An attempt that fails leaves the answer of the one before; a faithful answer ends the asking.
    """
    deadline = clock() + budget.seconds
    asked, question = Asked(), request
    for _ in range(budget.attempts):
        seconds, tokens = deadline - clock(), budget.tokens - asked.completion_tokens
        if asked.attempts and (seconds < _LEAST_SECONDS or tokens < _LEAST_TOKENS):
            break
        asked = replace(asked, attempts=asked.attempts + 1)
        question = replace(question, timeout_s=seconds, max_tokens=min(request.max_tokens, tokens))
        try:
            completion = model.complete(question, cancel)
            asked = asked.counting(completion)
            answer = parse_answer(completion.text)
        except UnusableAnswerError:
            asked = replace(asked, failure=Reason.UNUSABLE)
            question = ask_again(request, (), ())
            continue
        except PrereadError as error:  # not installed, not reachable, too slow: the draft stands
            return replace(asked, failure=_REASONS.get(type(error), Reason.UNREACHABLE))
        faults = tuple(checker.check(answer, ground))
        if not asked.answer or len(faults) < len(asked.faults):
            asked = replace(asked, answer=answer, faults=faults)
        if not faults:
            break
        question = ask_again(request, answer, faults)
    return asked
