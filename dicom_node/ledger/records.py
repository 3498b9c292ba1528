"""Pure. The values that go into the ledger and come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from dicom_node.rules import Priority
from dicom_node.study import Digest, SOPClassUID, SOPInstanceUID, StudyKey, StudyUID, TransferSyntaxUID


class Reception(StrEnum):
    """What the ledger made of a received instance."""

    NEW = "new"
    #: The same bytes under the same UID were here already: nothing changed.
    DUPLICATE = "duplicate"
    #: Other bytes under a known UID: kept and shown, the first stays current.
    CONFLICT = "conflict"


class InstanceState(StrEnum):
    """Where a received instance stands."""

    RECEIVED = "received"
    INDEXED = "indexed"
    QUARANTINED = "quarantined"


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DELIVERING = "delivering"
    DONE = "done"
    QUARANTINED = "quarantined"


class DeliveryState(StrEnum):
    """Where one object stands at one destination."""

    #: To be sent, for the first time or again.
    QUEUED = "queued"
    #: The destination took it; not yet confirmed (storage commitment).
    SENT = "sent"
    CONFIRMED = "confirmed"
    #: Will not be tried again by itself.
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One stored file and where it came from; UIDs as the sender gave them, possibly empty."""

    sop_instance_uid: SOPInstanceUID
    sop_class_uid: SOPClassUID
    transfer_syntax_uid: TransferSyntaxUID
    digest: Digest
    path: str
    size_bytes: int
    source_ae: str
    source_address: str
    association_id: str
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """A row of the ledger: one received instance."""

    instance_id: int
    sop_instance_uid: SOPInstanceUID
    sop_class_uid: SOPClassUID
    transfer_syntax_uid: TransferSyntaxUID
    digest: Digest
    path: str
    size_bytes: int
    source_ae: str
    association_id: str
    received_at: datetime
    state: InstanceState
    study_key: StudyKey | None = None
    reason: str = ""
    is_conflict: bool = False
    is_own_result: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEvidence:
    """Everything that bears on whether a study is complete; the input of ``completeness``.

    Attributes
    ----------
    first_received_at : datetime
        First instance since the study was last assembled, or ever.
    last_received_at : datetime
        Last new instance of the study.
    indexed_count : int
        Current instances that are not our own results.
    arrived_count : int
        Likewise with our own results, which a PACS counts too.
    open_associations : int
        Open associations that sent instances of this study.
    unindexed_count : int
        Received rows of this source or of these associations whose study is not known yet.
    last_closed_at : datetime or None
        When the last association that sent instances of it ended.
    was_aborted : bool
        Whether that one ended by abort or broke off.
    expected_count : int or None
        Instances that a notification announced.
    stable_at : datetime or None
        When the source last said that the study is stable.
    """

    study_key: StudyKey
    source_ae: str
    first_received_at: datetime
    last_received_at: datetime
    indexed_count: int
    arrived_count: int
    open_associations: int = 0
    unindexed_count: int = 0
    last_closed_at: datetime | None = None
    was_aborted: bool = False
    expected_count: int | None = None
    stable_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiblingStudy:
    """Another study of the same patient, as pairing looks at it.

    Attributes
    ----------
    studied_at : datetime
        When it was acquired, or else first received.
    is_collecting : bool
        Whether no run covers it yet.
    """

    study_key: StudyKey
    studied_at: datetime
    last_received_at: datetime
    is_collecting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One study as the console lists it."""

    study_key: StudyKey
    study_uid: StudyUID
    source_ae: str
    description: str
    is_collecting: bool
    first_received_at: datetime
    last_received_at: datetime
    instance_count: int
    run_count: int
    last_run_id: str | None = None
    last_run_state: RunState | None = None
    priority: Priority = Priority.ROUTINE
    priority_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One reading of one instance set of a study; versions count from 1."""

    run_id: str
    study_key: StudyKey
    version: int
    instance_digest: Digest
    predecessor: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run and where it stands.

    ``decision`` is the routing decision as JSON, if made; ``priority_reason`` says which rule or which
    finding gave the run its priority.
    """

    run: Run
    state: RunState
    reason: str = ""
    crash_count: int = 0
    attempt: int = 1
    decision: Mapping[str, Any] | None = None
    priority: Priority = Priority.ROUTINE
    priority_reason: str = ""
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedLabel:
    """What two models said of one label on one study.

    Attributes
    ----------
    champion, challenger : str
        ``name@version`` of the active model and of its shadow.
    label : str
        Concept of the finding, scale of the estimate, or ``triage``.
    champion_answer, challenger_answer : str
        ``present``, ``absent``, a category, ``refused`` or ``failed``.
    champion_probability, challenger_probability : float or None
        0 to 1, that the label is present.
    champion_count, challenger_count : int
        Findings of this label.
    overlap : float or None
        Dice coefficient of what both outlined; None if neither outlined anything.
    """

    label: str
    champion: str
    challenger: str
    champion_answer: str
    challenger_answer: str
    champion_probability: float | None = None
    challenger_probability: float | None = None
    champion_count: int = 0
    challenger_count: int = 0
    overlap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputObject:
    """One result object of a run; ``path`` is relative to the data directory."""

    object_uid: str
    kind: str
    path: str
    sha256: str
    sop_class_uid: str
    series_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One object on its way to one destination."""

    object_uid: str
    destination: str
    run_id: str
    state: DeliveryState
    attempts: int
    queued_at: datetime
    sent_at: datetime | None = None
    confirmed_at: datetime | None = None
    next_attempt_at: datetime | None = None
    receipt: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantExchange:
    """One question to the assistant and all that became of it: a row of the audit trail.

    Attributes
    ----------
    exchange_id : str
        Unique; known to the person who asked.
    asked_by : str
        Who asked, as the HTTP interface knows it.
    question, answer : str
        The texts; empty once their study is forgotten. They are nowhere else, and never in a log.
    question_sha256, answer_sha256 : str
        Their digests, which stay.
    outcome : str
        ``answered``, ``refused``, ``failed`` or ``cancelled``.
    tools : tuple of mappings
        Tool, arguments, digest of the result, seconds.
    citations : tuple of mappings
        Id, kind, findings, source, licence.
    language_model : str
        Identity of the language model that took part; empty if none did.
    verdict : str
        What the checks said of its wording.
    """

    exchange_id: str
    run_id: str
    study_key: StudyKey
    conversation: str
    asked_at: datetime
    asked_by: str
    question: str
    question_sha256: str
    outcome: str
    refusal: str = ""
    intent: str = ""
    planner: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    answer: str = ""
    answer_sha256: str = ""
    citations: tuple[Mapping[str, Any], ...] = ()
    language_model: str = ""
    verdict: str = ""
    seconds: float = 0.0
