"""The assistant's audit trail, on SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dicom_node.ledger import AssistantExchange, Ledger
from dicom_node.study import StudyKey

START = datetime(2026, 1, 2, tzinfo=UTC)


def exchange(number: int, run_id: str = "run-1") -> AssistantExchange:
    return AssistantExchange(
        exchange_id=f"x{number}",
        run_id=run_id,
        study_key=StudyKey(f"study-of-{run_id}"),
        conversation="default",
        asked_at=START + timedelta(minutes=number),
        asked_by="token",
        question="How large is it?",
        question_sha256="q" * 64,
        outcome="answered",
        intent="size",
        planner="rules",
        tools=({"tool": "measurements", "arguments": {}, "result_sha256": "r" * 64, "seconds": 0.1},),
        answer="It measures 1.2 mL.",
        answer_sha256="a" * 64,
        citations=({"id": "model/F1", "finding_ids": ["model/F1"]},),
        language_model="none",
        verdict="",
        seconds=0.2,
    )


def test_what_was_asked_is_read_back_newest_first(ledger: Ledger) -> None:
    rows = [exchange(1), exchange(2, "run-2"), exchange(3)]
    for row in rows:
        ledger.record_exchange(row)
    assert ledger.exchanges(10) == tuple(reversed(rows))
    assert ledger.exchanges(10, "run-1") == (rows[2], rows[0])
    assert ledger.exchanges(1) == (rows[2],)


def test_forgetting_a_study_empties_the_texts_and_keeps_who_asked_when(ledger: Ledger) -> None:
    ledger.record_exchange(exchange(1))
    ledger.record_exchange(exchange(2, "run-2"))
    ledger.forget_study(StudyKey("study-of-run-1"))
    kept, forgotten = ledger.exchanges(10)
    assert kept == exchange(2, "run-2")
    assert forgotten == replace(exchange(1), question="", answer="", tools=())
