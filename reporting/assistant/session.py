"""Adapter: reads the clock: what one question may cost, and what it needs beside the state of the graph."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Event

from reporting.assistant.exchange import AssistantCancelledError, AssistantTimeoutError, CalledTool
from reporting.assistant.question import Question
from reporting.assistant.record import StudyRecord
from reporting.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantLimits:
    """What one question may cost.

    Attributes
    ----------
    question_characters : int
        Longest question.
    timeout_s : float
        Seconds for a whole answer.
    wording_timeout_s : float
        Seconds for each request to the language model; then rules go on.
    history_turns : int
        Earlier questions that a conversation remembers.
    is_worded : bool
        Whether the language model, if there is one, words answers.
    """

    question_characters: int = 500
    timeout_s: float = 120.0
    wording_timeout_s: float = 30.0
    history_turns: int = 6
    is_worded: bool = True


@dataclass(slots=True, kw_only=True)
class Session:
    """What one question needs beside the graph's state."""

    question: Question
    record: StudyRecord
    cancel: Event
    ends_at: float
    facts: Facts
    called: list[CalledTool] = field(default_factory=list)
    took_part: bool = False

    def remaining_s(self) -> float:
        """Return the seconds that are left.

        Raises
        ------
        AssistantCancelledError, AssistantTimeoutError
        """
        if self.cancel.is_set():
            raise AssistantCancelledError("The question was cancelled.")
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise AssistantTimeoutError("The assistant did not finish in time: ask again, or ask for less.")
        return left
