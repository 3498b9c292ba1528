"""Adapter: SQL of studies as they collect, and the evidence that they are complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, exists, func, insert, or_, select, update

from dicom_node.headers import InstanceHeader
from dicom_node.ledger.database import Database
from dicom_node.ledger.records import InstanceState, RunState, SiblingStudy, StudyEvidence, StudyRow
from dicom_node.ledger.schema import associations, instances, notices, runs, studies
from dicom_node.rules import Priority
from dicom_node.study import (
    Digest,
    Instance,
    PatientKey,
    Series,
    SeriesUID,
    SOPClassUID,
    SOPInstanceUID,
    Study,
    StudyKey,
    StudyUID,
    TransferSyntaxUID,
    digest_instance_set,
)

#: Rows that belong to a study as it will be read: indexed, current, not our own results.
_IS_CURRENT = and_(
    instances.c.state == InstanceState.INDEXED,
    instances.c.is_conflict.is_(False),
    instances.c.is_own_result.is_(False),
)


class StudyLedger:
    """Studies and what was announced of them; part of ``Ledger``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def study(self, study_key: StudyKey) -> Study:
        """Return a study as received: indexed instances, no conflicts, no results of our own.

        ``Series.header`` is left empty; whoever needs it reads the files.

        Raises
        ------
        KeyError
            If the ledger has no such study.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(studies).where(studies.c.study_key == study_key)).one_or_none()
            if row is None:
                raise KeyError(study_key)
            series = _read_series(connection, study_key)
        return Study(
            study_key=study_key,
            study_uid=StudyUID(row.study_uid),
            source_ae=row.source_ae,
            description=row.description,
            series=series,
        )

    def note_stable(self, study_key: StudyKey, at: datetime) -> None:
        """Note that the source calls the study stable; may come before its first instance."""
        self._notice(study_key, {"stable_at": at})

    def note_expected(self, study_key: StudyKey, count: int, at: datetime) -> None:
        """Note how many instances the source will have sent in the end."""
        self._notice(study_key, {"expected_count": count, "expected_at": at})

    def collecting(self, now: datetime) -> tuple[StudyEvidence, ...]:
        """Return the evidence for every study that is not assembled, oldest first.

        Parameters
        ----------
        now : datetime
            Rows received later than this (another clock) are left for the next look.
        """
        with self._database.reading() as connection:
            statement = (
                select(studies, notices.c.stable_at, notices.c.expected_count)
                .join_from(studies, notices, notices.c.study_key == studies.c.study_key, isouter=True)
                .where(studies.c.is_collecting.is_(True), studies.c.first_received_at <= now)
                .order_by(studies.c.collecting_since, studies.c.study_key)
            )
            rows = connection.execute(statement).all()
            return tuple(_gather_evidence(connection, row) for row in rows)

    def siblings(self, study_key: StudyKey) -> tuple[SiblingStudy, ...]:
        """Return this study and the other studies of its patient, this one first, then by key.

        Studies match by Patient ID and its issuer; one without a Patient ID has no sibling.

        Raises
        ------
        KeyError
            If the ledger has no such study.
        """
        with self._database.reading() as connection:
            own = connection.execute(select(studies).where(studies.c.study_key == study_key)).one_or_none()
            if own is None:
                raise KeyError(study_key)
            others: Sequence[Row[Any]] = ()
            if own.patient_key is not None:
                others = connection.execute(
                    select(studies)
                    .where(studies.c.patient_key == own.patient_key, studies.c.study_key != study_key)
                    .order_by(studies.c.study_key)
                ).all()
        return tuple(_to_sibling(row) for row in (own, *others))

    def mark_assembled(self, study_key: StudyKey, run_id: str, partners: Sequence[StudyKey] = ()) -> bool:
        """Stop collecting: ``run_id`` covers the study, and the partner studies that it is read with.

        Returns
        -------
        bool
            False if the study or a partner gained instances that the run does not cover; it then
            keeps collecting, and the next run will be its successor.
        """
        with self._database.writing() as connection:
            covered = connection.execute(
                select(runs.c.instance_digest).where(runs.c.run_id == run_id)
            ).scalar_one_or_none()
            is_covered = covered is not None and covered == _instance_digest(
                connection, (study_key, *partners)
            )
            values: dict[str, Any] = {"last_run_id": run_id}
            if is_covered:
                values["is_collecting"] = False
            connection.execute(update(studies).where(studies.c.study_key == study_key).values(**values))
        return is_covered

    def collect_again(self, study_key: StudyKey, at: datetime) -> None:
        """Put a study back to collecting, for example to read it again after a change of rules."""
        with self._database.writing() as connection:
            connection.execute(
                update(studies)
                .where(studies.c.study_key == study_key)
                .values(is_collecting=True, collecting_since=at)
            )

    def study_overview(self, limit: int) -> tuple[StudyRow, ...]:
        """Return the studies last received, newest first."""
        return self._overview(limit, studies.c.last_received_at.desc())

    def worklist(self, limit: int) -> tuple[StudyRow, ...]:
        """Return the studies in the order in which people should look at them.

        Urgent ones first, then those that have waited longest. A study is listed from its first
        run on.
        """
        is_urgent = case((runs.c.priority == Priority.STAT.value, 0), else_=1)
        return self._overview(limit, is_urgent, studies.c.first_received_at, is_run_begun=True)

    def _overview(
        self, limit: int, *order: ColumnElement[Any], is_run_begun: bool = False
    ) -> tuple[StudyRow, ...]:
        counted = (
            select(func.count(instances.c.instance_id))
            .where(instances.c.study_key == studies.c.study_key, _IS_CURRENT)
            .correlate(studies)
            .scalar_subquery()
        )
        all_runs = runs.alias()
        run_count = (
            select(func.count(all_runs.c.run_id))
            .where(all_runs.c.study_key == studies.c.study_key)
            .correlate(studies)
            .scalar_subquery()
        )
        statement = (
            select(
                studies,
                counted.label("instance_count"),
                run_count.label("run_count"),
                runs.c.state.label("run_state"),
                runs.c.priority,
                runs.c.priority_reason,
            )
            .join_from(studies, runs, runs.c.run_id == studies.c.last_run_id, isouter=not is_run_begun)
            .order_by(*order, studies.c.study_key)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return tuple(_to_study_row(row) for row in connection.execute(statement))

    def _notice(self, study_key: StudyKey, values: Mapping[str, Any]) -> None:
        with self._database.writing() as connection:
            same = notices.c.study_key == study_key
            if connection.execute(update(notices).where(same).values(**values)).rowcount == 0:
                connection.execute(insert(notices).values(study_key=study_key, **values))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyHeader:
    """What one of a study's headers says of the study as a whole."""

    header: InstanceHeader
    patient_key: PatientKey | None = None
    studied_at: datetime | None = None


def note_instances(
    connection: Connection, instance_ids: Sequence[int], headers: Mapping[StudyKey, StudyHeader]
) -> None:
    """Bring studies up to date with newly indexed instances, inside the caller's transaction."""
    if not instance_ids:
        return
    statement = (
        select(
            instances.c.study_key,
            func.min(instances.c.source_ae).label("source_ae"),
            func.min(instances.c.received_at).label("first"),
            func.max(instances.c.received_at).label("last"),
        )
        .where(instances.c.instance_id.in_(instance_ids), _IS_CURRENT)
        .group_by(instances.c.study_key)
    )
    for row in connection.execute(statement).all():
        _note_study(connection, row, headers[row.study_key])


def _note_study(connection: Connection, row: Row[Any, Any, Any, Any], told: StudyHeader) -> None:
    header = told.header
    same = studies.c.study_key == row.study_key
    known = connection.execute(select(studies).where(same)).one_or_none()
    if known is None:
        connection.execute(
            insert(studies).values(
                study_key=row.study_key,
                study_uid=header.study_uid,
                source_ae=row.source_ae,
                description=header.study_description,
                is_collecting=True,
                first_received_at=row.first,
                collecting_since=row.first,
                last_received_at=row.last,
                patient_key=told.patient_key,
                studied_at=told.studied_at,
            )
        )
        return
    since = known.collecting_since if known.is_collecting else row.first
    connection.execute(
        update(studies)
        .where(same)
        .values(
            is_collecting=True,
            collecting_since=min(since, row.first) if known.is_collecting else since,
            first_received_at=min(known.first_received_at, row.first),
            last_received_at=max(known.last_received_at, row.last),
            description=known.description or header.study_description,
            patient_key=known.patient_key or told.patient_key,
            studied_at=known.studied_at or told.studied_at,
        )
    )


def _gather_evidence(connection: Connection, row: Row[Any]) -> StudyEvidence:
    of_study = instances.c.study_key == row.study_key
    counts = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(case((instances.c.is_own_result.is_(False), 1), else_=0)), 0),
        ).where(of_study, instances.c.state == InstanceState.INDEXED, instances.c.is_conflict.is_(False))
    ).one()
    senders = (
        select(associations)
        .where(
            exists().where(of_study, instances.c.association_id == associations.c.association_id),
        )
        .subquery()
    )
    open_count = connection.execute(
        select(func.count()).select_from(senders).where(senders.c.closed_at.is_(None))
    ).scalar_one()
    last_closed = connection.execute(
        select(senders.c.closed_at, senders.c.was_aborted)
        .where(senders.c.closed_at.is_not(None))
        .order_by(senders.c.closed_at.desc())
        .limit(1)
    ).one_or_none()
    unindexed = connection.execute(
        select(func.count()).where(
            instances.c.state == InstanceState.RECEIVED,
            or_(
                instances.c.source_ae == row.source_ae,
                instances.c.association_id.in_(select(senders.c.association_id)),
            ),
        )
    ).scalar_one()
    return StudyEvidence(
        study_key=StudyKey(row.study_key),
        source_ae=row.source_ae,
        first_received_at=row.collecting_since,
        last_received_at=row.last_received_at,
        indexed_count=int(counts[1]),
        arrived_count=int(counts[0]),
        open_associations=open_count,
        unindexed_count=unindexed,
        last_closed_at=None if last_closed is None else last_closed.closed_at,
        was_aborted=False if last_closed is None else last_closed.was_aborted,
        expected_count=row.expected_count,
        stable_at=row.stable_at,
    )


def _read_series(connection: Connection, study_key: StudyKey) -> tuple[Series, ...]:
    statement = (
        select(instances)
        .where(instances.c.study_key == study_key, _IS_CURRENT)
        .order_by(instances.c.series_uid, instances.c.instance_number, instances.c.sop_instance_uid)
    )
    groups = groupby(connection.execute(statement), key=lambda row: row.series_uid)
    series = [_to_series(SeriesUID(uid), tuple(rows)) for uid, rows in groups]
    return tuple(sorted(series, key=lambda s: (s.series_number is None, s.series_number or 0, s.series_uid)))


def _to_series(series_uid: SeriesUID, rows: Sequence[Row[Any]]) -> Series:
    """Build one series; where instances disagree, the first (by number, then UID) speaks for it."""
    ordered = sorted(
        rows, key=lambda r: (r.instance_number is None, r.instance_number or 0, r.sop_instance_uid)
    )
    first = ordered[0]
    return Series(
        series_uid=series_uid,
        modality=first.modality,
        description=first.series_description,
        body_part=first.body_part,
        series_number=first.series_number,
        instances=tuple(_to_instance(row) for row in ordered),
    )


def _to_instance(row: Row[Any]) -> Instance:
    return Instance(
        sop_instance_uid=SOPInstanceUID(row.sop_instance_uid),
        sop_class_uid=SOPClassUID(row.sop_class_uid),
        transfer_syntax_uid=TransferSyntaxUID(row.transfer_syntax_uid),
        digest=Digest(row.digest),
        path=row.path,
        size_bytes=row.size_bytes,
        instance_number=row.instance_number,
        number_of_frames=row.number_of_frames,
    )


def _instance_digest(connection: Connection, study_keys: Iterable[StudyKey]) -> Digest:
    members = [series for key in study_keys for series in _read_series(connection, key)]
    return digest_instance_set(tuple(instance for series in members for instance in series.instances))


def _to_sibling(row: Row[Any]) -> SiblingStudy:
    return SiblingStudy(
        study_key=StudyKey(row.study_key),
        studied_at=row.studied_at or row.first_received_at,
        last_received_at=row.last_received_at,
        is_collecting=row.is_collecting,
    )


def _to_study_row(row: Row[Any]) -> StudyRow:
    return StudyRow(
        study_key=StudyKey(row.study_key),
        study_uid=StudyUID(row.study_uid),
        source_ae=row.source_ae,
        description=row.description,
        is_collecting=row.is_collecting,
        first_received_at=row.first_received_at,
        last_received_at=row.last_received_at,
        instance_count=row.instance_count,
        run_count=row.run_count,
        last_run_id=row.last_run_id,
        last_run_state=RunState(row.run_state) if row.run_state is not None else None,
        priority=Priority(row.priority or Priority.ROUTINE),
        priority_reason=row.priority_reason or "",
    )
