"""Adapter: takes questions, lets the assistant answer them, and keeps the audit trail in the ledger.

What is asked and answered goes to the ledger and to no log.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import Any, Final

import structlog

from dicom_node.clock import Clock
from dicom_node.ledger import AssistantExchange, Ledger, RunRow
from integration.assistant_asides import AsideReader
from integration.assistant_records import RunRecords
from integration.observability import describe_error
from reporting.assistant.answer import Outcome, show_citation
from reporting.assistant.exchange import AssistantEvent, Exchange
from reporting.assistant.graph import Assistant
from reporting.assistant.question import Question, clean_question
from reporting.assistant.record import StudyRecord

#: Conversations that share a lock wait for each other; one conversation never runs twice at once.
_CONVERSATION_LOCKS: Final = 64

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A question that was taken: about a run that can be asked about, by a known person.

    ``exchange_id`` names its row of the audit trail.
    """

    exchange_id: str
    question: Question
    record: StudyRecord
    row: RunRow
    asked_by: str


class AssistantService:
    """Takes questions, lets the assistant answer them, and keeps the audit trail."""

    def __init__(
        self,
        *,
        assistant: Assistant,
        records: RunRecords,
        ledger: Ledger,
        clock: Clock,
        aside: AsideReader | None = None,
    ) -> None:
        self._aside = aside
        self._assistant = assistant
        self._records = records
        self._ledger = ledger
        self._clock = clock
        self._conversations = tuple(threading.Lock() for _ in range(_CONVERSATION_LOCKS))

    def take(self, question: Question, asked_by: str) -> Inquiry:
        """Check that a question can be worked on; it is not answered yet.

        Raises
        ------
        UnknownRunError, RunNotReadError, NoReadingError, UnusableQuestionError
        """
        row = self._ledger.run(question.run_id)
        record = self._records.record(question.run_id)
        clean_question(question.text, record.identifiers, self._assistant.limits.question_characters)
        return Inquiry(
            exchange_id=uuid.uuid4().hex, question=question, record=record, row=row, asked_by=asked_by
        )

    def answer(self, inquiry: Inquiry, emit: Callable[[AssistantEvent], None], cancel: Event) -> Exchange:
        """Answer a question; whatever becomes of it is in the audit trail before this returns.

        Raises
        ------
        PrereadError
            If there is no answer.
        """
        began, asked_at = time.monotonic(), self._clock()
        try:
            with self._conversation(inquiry.question):
                exchange = self._assistant.ask(inquiry.question, inquiry.record, emit, cancel)
        except BaseException as error:
            is_cancelled = cancel.is_set()
            outcome = Outcome.CANCELLED if is_cancelled else Outcome.FAILED
            seconds = time.monotonic() - began
            row = _row_of(inquiry, asked_at, outcome.value, verdict=describe_error(error), seconds=seconds)
            self._ledger.record_exchange(row)
            log.warning("question_unanswered", run_id=inquiry.question.run_id, error=describe_error(error))
            raise
        self._ledger.record_exchange(_row_of_exchange(inquiry, asked_at, exchange))
        log.info(
            "question_answered",
            run_id=inquiry.question.run_id,
            state=exchange.answer.outcome.value,
            step=exchange.intent,
            count=len(exchange.calls),
        )
        return exchange

    def close(self) -> None:
        """Take no more readings on request."""
        if self._aside is not None:
            self._aside.close()

    @contextmanager
    def _conversation(self, question: Question) -> Iterator[None]:
        """Let the questions of one conversation follow each other."""
        number = hash((question.run_id, question.conversation)) % _CONVERSATION_LOCKS
        with self._conversations[number]:
            yield


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _row_of(inquiry: Inquiry, asked_at: datetime, outcome: str, **values: Any) -> AssistantExchange:
    return AssistantExchange(
        exchange_id=inquiry.exchange_id,
        run_id=inquiry.question.run_id,
        study_key=inquiry.row.run.study_key,
        conversation=inquiry.question.conversation,
        asked_at=asked_at,
        asked_by=inquiry.asked_by,
        question=inquiry.question.text,
        question_sha256=digest_text(inquiry.question.text),
        outcome=outcome,
        **values,
    )


def _row_of_exchange(inquiry: Inquiry, asked_at: datetime, exchange: Exchange) -> AssistantExchange:
    answer = exchange.answer
    return _row_of(
        inquiry,
        asked_at,
        answer.outcome.value,
        refusal=answer.refusal.value if answer.refusal else "",
        intent=exchange.intent,
        planner=exchange.planner.value,
        tools=tuple(
            {
                "tool": one.call.tool.value,
                "arguments": dict(one.call.arguments),
                "result_sha256": one.result_sha256,
                "evidence": one.evidence,
                "seconds": round(one.seconds, 3),
            }
            for one in exchange.calls
        ),
        answer=answer.plain,
        answer_sha256=digest_text(answer.plain),
        citations=tuple(map(show_citation, answer.citations)),
        language_model=exchange.language_model,
        verdict=exchange.verdict,
        seconds=exchange.seconds,
    )
