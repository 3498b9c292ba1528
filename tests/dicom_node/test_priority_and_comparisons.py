"""Priority on the worklist and what models said beside each other, on SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from receiving.images import make_uid

from dicom_node.headers import InstanceHeader
from dicom_node.ledger import ComparedLabel, Ledger, ReceivedInstance, RunState, UnknownRunError
from dicom_node.rules import Priority
from dicom_node.study import (
    Digest,
    SeriesUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyKey,
    StudyUID,
    TransferSyntaxUID,
)

START = datetime(2026, 1, 2, tzinfo=UTC)
CT = SOPClassUID("1.2.840.10008.5.1.4.1.1.2")


def begin(ledger: Ledger, number: int, *, is_run: bool = True) -> str:
    """Receive a study of one image ``number`` minutes after the start and begin its run."""
    at, key = START + timedelta(minutes=number), StudyKey(f"study-{number}")
    received = ReceivedInstance(
        sop_instance_uid=SOPInstanceUID(make_uid(number)),
        sop_class_uid=CT,
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
        digest=Digest(f"digest-{number}"),
        path=f"{number}.dcm",
        size_bytes=1,
        source_ae="SCANNER",
        source_address="",
        association_id="a",
        received_at=at,
    )
    ledger.record_received(received)
    (row,) = ledger.unindexed(10)
    header = InstanceHeader(
        study_uid=StudyUID(make_uid("study", number)),
        series_uid=SeriesUID(make_uid("series", number)),
        sop_instance_uid=received.sop_instance_uid,
        sop_class_uid=CT,
    )
    ledger.mark_indexed(row.instance_id, header, key)
    if is_run:
        ledger.begin_next_run(f"run-{number}", key, Digest("d"), at)
        ledger.mark_assembled(key, f"run-{number}")
    return f"run-{number}"


def test_the_worklist_holds_urgent_studies_first_and_then_those_that_wait_longest(ledger: Ledger) -> None:
    for number in (3, 1, 2):
        begin(ledger, number)
    begin(ledger, 4, is_run=False)
    ledger.set_priority("run-2", Priority.STAT, "chest-xray 1.0.0 calls the study high risk")
    listed = ledger.worklist(10)
    assert [row.last_run_id for row in listed] == ["run-2", "run-1", "run-3"]
    assert (listed[0].priority, listed[1].priority) == (Priority.STAT, Priority.ROUTINE)
    assert "high risk" in listed[0].priority_reason
    assert [row.last_run_id for row in ledger.worklist(1)] == ["run-2"]
    assert [row.study_key for row in ledger.study_overview(10)] == [f"study-{n}" for n in (4, 3, 2, 1)]


def test_a_run_keeps_its_priority_beside_its_state(ledger: Ledger) -> None:
    run_id = begin(ledger, 1)
    assert ledger.run(run_id).priority is Priority.ROUTINE
    ledger.set_priority(run_id, Priority.STAT, "rule emergency")
    ledger.set_run_state(run_id, RunState.DONE)
    row = ledger.run(run_id)
    assert (row.priority, row.priority_reason, row.state) == (
        Priority.STAT, "rule emergency", RunState.DONE,
    )  # fmt: skip
    with pytest.raises(UnknownRunError):
        ledger.set_priority("nope", Priority.STAT, "")


def compared(label: str = "mass", champion: str = "a@1.0.0", challenger: str = "a@2.0.0") -> ComparedLabel:
    return ComparedLabel(
        label=label,
        champion=champion,
        challenger=challenger,
        champion_answer="present",
        challenger_answer="absent",
        champion_probability=0.75,
        champion_count=2,
        overlap=0.5,
    )


def test_a_comparison_is_kept_once_per_case_and_found_by_name_or_version(ledger: Ledger) -> None:
    first = compared()
    for run_id in ("run-1", "run-2", "run-1"):
        ledger.record_comparison(run_id, "a@1.0.0", "a@2.0.0", [first, compared("nodule")], START)
    other = replace(first, challenger="ab@1.0.0")
    ledger.record_comparison("run-1", "a@1.0.0", "ab@1.0.0", [other], START)
    cases = ledger.comparisons_of("a", "a")
    assert len(cases) == 2
    assert all(labels == (first, compared("nodule")) for labels in cases.values())
    assert cases == ledger.comparisons_of("a@1.0.0", "a@2.0.0")
    assert ledger.comparisons_of("a@2.0.0", "a") == {}
    assert list(ledger.comparisons_of("a", "ab").values()) == [(other,)]
    assert ledger.compared_models() == (("a@1.0.0", "a@2.0.0", 2), ("a@1.0.0", "ab@1.0.0", 1))
    assert not any("run" in case for case in cases), "a case does not name its run"
