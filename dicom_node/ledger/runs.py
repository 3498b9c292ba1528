"""Adapter: SQL of runs: which reading covers which instance set of a study."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from dicom_node.clock import Clock
from dicom_node.errors import PermanentError
from dicom_node.ledger.database import Database
from dicom_node.ledger.records import Run, RunRow, RunState
from dicom_node.ledger.schema import runs
from dicom_node.rules import Priority
from dicom_node.study import Digest, StudyKey


class UnknownRunError(PermanentError):
    """The ledger has no run of this id: list the runs of the study."""


class RunLedger:
    """Runs; part of ``Ledger``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def begin_run(self, run: Run) -> None:
        """Write a run in state queued; a run that is there already stays as it is."""
        with self._database.writing() as connection:
            _insert_run(connection, run)

    def begin_next_run(self, run_id: str, study_key: StudyKey, instance_digest: Digest, at: datetime) -> Run:
        """Write the next version of a study's run, linked to the one before, and return it.

        Idempotent: a run that is there already is returned as it was begun.
        """
        with self._database.writing() as connection:
            existing = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
            if existing is not None:
                return _to_run(existing)
            statement = select(runs.c.run_id, runs.c.version).where(runs.c.study_key == study_key)
            last = connection.execute(statement.order_by(runs.c.version.desc()).limit(1)).one_or_none()
            run = Run(
                run_id=run_id,
                study_key=study_key,
                version=1 if last is None else last.version + 1,
                instance_digest=instance_digest,
                predecessor=None if last is None else last.run_id,
                created_at=at,
            )
            _insert_run(connection, run)
        return run

    def set_run_state(self, run_id: str, state: RunState, reason: str | None = None) -> None:
        """Set where a run stands; ``reason`` says why it was quarantined.

        Raises
        ------
        UnknownRunError
        """
        self._update(run_id, {"state": state.value, "reason": reason or ""})

    def record_decision(self, run_id: str, decision: Mapping[str, object]) -> None:
        """Keep the routing decision of a run, as JSON.

        Raises
        ------
        UnknownRunError
        """
        self._update(run_id, {"decision": json.dumps(decision, sort_keys=True)})

    def set_priority(self, run_id: str, priority: Priority, reason: str) -> None:
        """Set how soon a run is read and looked at, and why.

        Raises
        ------
        UnknownRunError
        """
        self._update(run_id, {"priority": priority.value, "priority_reason": reason})

    def count_crash(self, run_id: str) -> int:
        """Add one crash to a run and return how many there are.

        Raises
        ------
        UnknownRunError
        """
        with self._database.writing() as connection:
            same = runs.c.run_id == run_id
            connection.execute(update(runs).where(same).values(crash_count=runs.c.crash_count + 1))
            count = connection.execute(select(runs.c.crash_count).where(same)).scalar_one_or_none()
        if count is None:
            raise UnknownRunError("no run of this id")
        return int(count)

    def begin_attempt(self, run_id: str) -> int:
        """Put a run back to queued, to be read from the start; return the number of the attempt.

        Raises
        ------
        UnknownRunError
        """
        with self._database.writing() as connection:
            same = runs.c.run_id == run_id
            connection.execute(
                update(runs)
                .where(same)
                .values(
                    attempt=runs.c.attempt + 1,
                    crash_count=0,
                    state=RunState.QUEUED.value,
                    reason="",
                    updated_at=self._clock(),
                )
            )
            attempt = connection.execute(select(runs.c.attempt).where(same)).scalar_one_or_none()
        if attempt is None:
            raise UnknownRunError("no run of this id")
        return int(attempt)

    def run(self, run_id: str) -> RunRow:
        """Return one run.

        Raises
        ------
        UnknownRunError
        """
        with self._database.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
        if row is None:
            raise UnknownRunError("no run of this id")
        return _to_run_row(row)

    def runs_of(self, study_key: StudyKey) -> tuple[RunRow, ...]:
        """Return the runs of a study, first version first."""
        statement = select(runs).where(runs.c.study_key == study_key).order_by(runs.c.version)
        with self._database.reading() as connection:
            return tuple(_to_run_row(row) for row in connection.execute(statement))

    def runs_in(self, states: Collection[RunState]) -> tuple[RunRow, ...]:
        """Return the runs in any of these states, oldest first."""
        wanted = [state.value for state in states]
        statement = select(runs).where(runs.c.state.in_(wanted)).order_by(runs.c.created_at, runs.c.run_id)
        with self._database.reading() as connection:
            return tuple(_to_run_row(row) for row in connection.execute(statement))

    def _update(self, run_id: str, values: Mapping[str, Any]) -> None:
        with self._database.writing() as connection:
            statement = update(runs).where(runs.c.run_id == run_id)
            if connection.execute(statement.values(updated_at=self._clock(), **values)).rowcount == 0:
                raise UnknownRunError("no run of this id")


def _insert_run(connection: Connection, run: Run) -> None:
    if connection.execute(select(runs.c.run_id).where(runs.c.run_id == run.run_id)).first() is not None:
        return
    connection.execute(
        insert(runs).values(
            run_id=run.run_id,
            study_key=run.study_key,
            version=run.version,
            instance_digest=run.instance_digest,
            predecessor=run.predecessor,
            created_at=run.created_at,
            updated_at=run.created_at,
            state=RunState.QUEUED.value,
            reason="",
            crash_count=0,
        )
    )


def _to_run(row: Row[Any]) -> Run:
    return Run(
        run_id=row.run_id,
        study_key=StudyKey(row.study_key),
        version=row.version,
        instance_digest=Digest(row.instance_digest),
        predecessor=row.predecessor,
        created_at=row.created_at,
    )


def _to_run_row(row: Row[Any]) -> RunRow:
    return RunRow(
        run=_to_run(row),
        state=RunState(row.state),
        reason=row.reason,
        crash_count=row.crash_count,
        attempt=row.attempt,
        decision=None if row.decision is None else json.loads(row.decision),
        priority=Priority(row.priority),
        priority_reason=row.priority_reason,
        updated_at=row.updated_at,
    )
