"""Adapter: SQL of what was received, and over which associations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from dicom_node.headers import InstanceHeader, clean_text
from dicom_node.ledger.database import Database, LedgerContentionError
from dicom_node.ledger.deliveries import is_known_output
from dicom_node.ledger.group_commit import GroupCommit
from dicom_node.ledger.records import InstanceState, ReceivedInstance, Reception, StoredInstance
from dicom_node.ledger.schema import associations, instances
from dicom_node.ledger.studies import StudyHeader, note_instances
from dicom_node.study import Digest, PatientKey, SOPClassUID, SOPInstanceUID, StudyKey, TransferSyntaxUID

#: Bound parameters in one statement; every database takes this many.
_CHUNK = 500
#: Several receiving processes may meet on one row of PostgreSQL; each retry sees what the other wrote.
_CONTENTION_RETRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedInstance:
    """What indexing found in one received row: a header, or the reason why there is none.

    ``patient_key`` and ``studied_at`` are what the header says of the patient and of the study's time.
    """

    instance_id: int
    header: InstanceHeader | None = None
    study_key: StudyKey | None = None
    patient_key: PatientKey | None = None
    studied_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _AssociationEvent:
    association_id: str
    at: datetime
    source_ae: str | None = None
    receiver_id: str = ""
    was_aborted: bool = False


class IntakeLedger:
    """Received instances and associations; part of ``Ledger``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._receptions: GroupCommit[ReceivedInstance, Reception] = GroupCommit(self._record_batch)
        self._association_events: GroupCommit[_AssociationEvent, None] = GroupCommit(self._write_associations)

    def record_received(self, received: ReceivedInstance) -> Reception:
        """Write one received instance; committed when this returns.

        Concurrent callers share commits. The same UID with the same bytes and transfer
        syntax is a duplicate and changes nothing; with others it is a conflict: the row is
        kept beside the first, which stays current.

        Raises
        ------
        LedgerUnavailableError
            If the database cannot commit now; nothing was recorded.
        """
        return self._receptions.submit(received)

    def open_association(
        self, association_id: str, source_ae: str, at: datetime, *, receiver_id: str = ""
    ) -> None:
        """Note that a source opened an association; ``receiver_id`` names the receiving process."""
        self._association_events.submit(
            _AssociationEvent(
                association_id=association_id, at=at, source_ae=clean_text(source_ae), receiver_id=receiver_id
            )
        )

    def close_association(self, association_id: str, at: datetime, *, aborted: bool) -> None:
        """Note that an association ended: released, or aborted (also: connection lost)."""
        self._association_events.submit(
            _AssociationEvent(association_id=association_id, at=at, was_aborted=aborted)
        )

    def close_stale_associations(self, at: datetime, *, receiver_id: str | None = None) -> int:
        """Close as aborted what a dead process left open; call before receiving.

        Parameters
        ----------
        receiver_id : str, optional
            Only those of this receiving process; all if None.

        Returns
        -------
        int
            How many were open.
        """
        statement = update(associations).where(associations.c.closed_at.is_(None))
        if receiver_id is not None:
            statement = statement.where(associations.c.receiver_id == receiver_id)
        with self._database.writing() as connection:
            return connection.execute(statement.values(closed_at=at, was_aborted=True)).rowcount

    def unindexed(self, limit: int) -> tuple[StoredInstance, ...]:
        """Return received rows whose header was not read yet, oldest first."""
        with self._database.reading() as connection:
            return _rows(connection, instances.c.state == InstanceState.RECEIVED, limit)

    def mark_indexed(self, instance_id: int, header: InstanceHeader, study_key: StudyKey) -> None:
        """Record the header of one received instance and bring its study up to date."""
        self.record_indexed(
            [IndexedInstance(instance_id=instance_id, header=header, study_key=study_key)],
        )

    def quarantine_instance(self, instance_id: int, reason: str) -> None:
        """Set one instance aside with its reason; it belongs to no study from then on."""
        self.record_indexed([IndexedInstance(instance_id=instance_id, reason=reason)])

    def record_indexed(self, entries: Sequence[IndexedInstance]) -> None:
        """Record what indexing found in several rows, in one transaction.

        A new current instance of a study that was assembled before makes the study collect
        again; a conflict or one of our own results does not.
        """
        with self._database.writing() as connection:
            for entry in entries:
                _record_entry(connection, entry)
            ids = [entry.instance_id for entry in entries if entry.header is not None]
            headers = {
                entry.study_key: StudyHeader(
                    header=entry.header, patient_key=entry.patient_key, studied_at=entry.studied_at
                )
                for entry in entries
                if entry.header is not None and entry.study_key
            }
            note_instances(connection, ids, headers)

    def quarantined(self, limit: int) -> tuple[StoredInstance, ...]:
        """Return instances set aside with their reasons, newest first."""
        with self._database.reading() as connection:
            condition = instances.c.state == InstanceState.QUARANTINED
            return _rows(connection, condition, limit, newest_first=True)

    def conflicts(self, limit: int) -> tuple[StoredInstance, ...]:
        """Return instances whose UID was known with other bytes, newest first."""
        with self._database.reading() as connection:
            return _rows(connection, instances.c.is_conflict.is_(True), limit, newest_first=True)

    def held_instances(self, sop_instance_uids: Iterable[str]) -> dict[str, str]:
        """Return SOP Instance UID to SOP Class UID for those of the given UIDs that are stored."""
        wanted = sorted(set(sop_instance_uids))
        held: dict[str, str] = {}
        with self._database.reading() as connection:
            for chunk in _chunks(wanted):
                statement = select(instances.c.sop_instance_uid, instances.c.sop_class_uid).where(
                    instances.c.sop_instance_uid.in_(chunk), instances.c.is_conflict.is_(False)
                )
                held.update((row[0], row[1]) for row in connection.execute(statement))
        return held

    def count_instances(self) -> dict[InstanceState, int]:
        """Return how many instances are in each state."""
        statement = select(instances.c.state, func.count()).group_by(instances.c.state)
        with self._database.reading() as connection:
            counts = {InstanceState(state): count for state, count in connection.execute(statement)}
        return {state: counts.get(state, 0) for state in InstanceState}

    def _record_batch(self, batch: Sequence[ReceivedInstance]) -> list[Reception]:
        for _ in range(_CONTENTION_RETRIES):
            with contextlib.suppress(LedgerContentionError):
                return self._insert_batch(batch)
        return self._insert_batch(batch)

    def _insert_batch(self, batch: Sequence[ReceivedInstance]) -> list[Reception]:
        with self._database.writing() as connection:
            known = _known_instances(connection, {received.sop_instance_uid for received in batch})
            receptions: list[Reception] = []
            rows: list[dict[str, Any]] = []
            for received in batch:
                seen = known.setdefault(received.sop_instance_uid, set())
                reception = _classify(received, seen)
                receptions.append(reception)
                if reception != Reception.DUPLICATE:
                    seen.add((received.digest, received.transfer_syntax_uid))
                    rows.append(_to_row(received, is_conflict=reception == Reception.CONFLICT))
            if rows:
                connection.execute(insert(instances), rows)
        return receptions

    def _write_associations(self, batch: Sequence[_AssociationEvent]) -> list[None]:
        with self._database.writing() as connection:
            for event in batch:
                if event.source_ae is not None:
                    connection.execute(
                        insert(associations).values(
                            association_id=event.association_id,
                            source_ae=event.source_ae,
                            receiver_id=event.receiver_id,
                            opened_at=event.at,
                            was_aborted=False,
                        )
                    )
                else:
                    same = associations.c.association_id == event.association_id
                    connection.execute(
                        update(associations)
                        .where(and_(same, associations.c.closed_at.is_(None)))
                        .values(closed_at=event.at, was_aborted=event.was_aborted)
                    )
        return [None] * len(batch)


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def _known_instances(connection: Connection, uids: set[SOPInstanceUID]) -> dict[str, set[tuple[str, str]]]:
    known: dict[str, set[tuple[str, str]]] = {}
    columns = (instances.c.sop_instance_uid, instances.c.digest, instances.c.transfer_syntax_uid)
    for chunk in _chunks(sorted(uids)):
        for uid, digest, syntax in connection.execute(select(*columns).where(columns[0].in_(chunk))):
            known.setdefault(uid, set()).add((digest, syntax))
    return known


def _classify(received: ReceivedInstance, seen: set[tuple[str, str]]) -> Reception:
    if (received.digest, received.transfer_syntax_uid) in seen:
        return Reception.DUPLICATE
    # Without a UID there is nothing that two instances could disagree about.
    return Reception.CONFLICT if seen and received.sop_instance_uid else Reception.NEW


def _to_row(received: ReceivedInstance, *, is_conflict: bool) -> dict[str, Any]:
    return {
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "digest": received.digest,
        "path": received.path,
        "size_bytes": received.size_bytes,
        "source_ae": received.source_ae,
        "source_address": received.source_address,
        "association_id": received.association_id,
        "received_at": received.received_at,
        "state": InstanceState.RECEIVED.value,
        "reason": "",
        "is_conflict": is_conflict,
        "is_own_result": False,
    }


def _record_entry(connection: Connection, entry: IndexedInstance) -> None:
    values: dict[str, Any]
    if entry.header is None:
        values = {"state": InstanceState.QUARANTINED.value, "reason": entry.reason, "study_key": None}
    else:
        late = _late_identity(connection, entry.instance_id, entry.header)
        values = _header_values(entry.header) | {"study_key": entry.study_key} | late
        # An archive may coerce the manufacturer that headers are recognised by.
        values["is_own_result"] |= is_known_output(connection, entry.header.sop_instance_uid)
    connection.execute(update(instances).where(instances.c.instance_id == entry.instance_id).values(**values))


def _header_values(header: InstanceHeader) -> dict[str, Any]:
    return {
        "state": InstanceState.INDEXED.value,
        "reason": "",
        "sop_class_uid": header.sop_class_uid,
        "series_uid": header.series_uid,
        "modality": header.modality,
        "series_description": header.series_description,
        "body_part": header.body_part,
        "series_number": header.series_number,
        "instance_number": header.instance_number,
        "number_of_frames": header.number_of_frames,
        "is_own_result": header.is_own_result,
    }


def _late_identity(connection: Connection, instance_id: int, header: InstanceHeader) -> dict[str, Any]:
    """Give a row without a UID that of its Data Set; a copy is set aside, a conflict marked."""
    row = connection.execute(select(instances).where(instances.c.instance_id == instance_id)).one_or_none()
    if row is None or row.sop_instance_uid:
        return {}
    same_uid = instances.c.sop_instance_uid == header.sop_instance_uid
    twins = connection.execute(
        select(instances.c.digest, instances.c.transfer_syntax_uid).where(same_uid)
    ).all()
    if (row.digest, row.transfer_syntax_uid) in {(twin.digest, twin.transfer_syntax_uid) for twin in twins}:
        reason = "a copy of an instance that is here already"
        return {"state": InstanceState.QUARANTINED.value, "reason": reason, "study_key": None}
    return {"sop_instance_uid": header.sop_instance_uid, "is_conflict": bool(twins)}


def _rows(
    connection: Connection, condition: Any, limit: int, *, newest_first: bool = False
) -> tuple[StoredInstance, ...]:
    order = instances.c.instance_id.desc() if newest_first else instances.c.instance_id
    statement = select(instances).where(condition).order_by(order).limit(limit)
    return tuple(_to_stored(row) for row in connection.execute(statement))


def _to_stored(row: Row[Any]) -> StoredInstance:
    return StoredInstance(
        instance_id=row.instance_id,
        sop_instance_uid=SOPInstanceUID(row.sop_instance_uid),
        sop_class_uid=SOPClassUID(row.sop_class_uid),
        transfer_syntax_uid=TransferSyntaxUID(row.transfer_syntax_uid),
        digest=Digest(row.digest),
        path=row.path,
        size_bytes=row.size_bytes,
        source_ae=row.source_ae,
        association_id=row.association_id,
        received_at=row.received_at,
        state=InstanceState(row.state),
        study_key=StudyKey(row.study_key) if row.study_key is not None else None,
        reason=row.reason,
        is_conflict=row.is_conflict,
        is_own_result=row.is_own_result,
    )
