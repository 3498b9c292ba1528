"""Adapter: SQL of result objects and where each stands at each destination."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    distinct,
    func,
    insert,
    or_,
    select,
    update,
)

from dicom_node.clock import Clock
from dicom_node.errors import PermanentError
from dicom_node.ledger.database import Database
from dicom_node.ledger.records import Delivery, DeliveryState, OutputObject
from dicom_node.ledger.schema import deliveries, outputs, runs
from dicom_node.study import StudyKey


class UnknownDeliveryError(PermanentError):
    """The ledger has no such delivery: queue it first."""


class DeliveryLedger:
    """Result objects and deliveries; part of ``Ledger``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def record_objects(self, run_id: str, objects: Sequence[OutputObject]) -> None:
        """Write the result objects of a run; repeating it replaces rows of the same UID."""
        rows = [
            {
                "object_uid": item.object_uid,
                "run_id": run_id,
                "kind": item.kind,
                "path": item.path,
                "sha256": item.sha256,
                "sop_class_uid": item.sop_class_uid,
                "series_uid": item.series_uid,
            }
            for item in objects
        ]
        if not rows:
            return
        with self._database.writing() as connection:
            uids = [item.object_uid for item in objects]
            connection.execute(delete(outputs).where(outputs.c.object_uid.in_(uids)))
            connection.execute(insert(outputs), rows)

    def objects_of(self, run_id: str) -> tuple[OutputObject, ...]:
        """Return the result objects of a run, by kind and UID."""
        statement = select(outputs).where(outputs.c.run_id == run_id)
        with self._database.reading() as connection:
            rows = connection.execute(statement.order_by(outputs.c.kind, outputs.c.object_uid)).all()
        return tuple(
            OutputObject(
                object_uid=row.object_uid,
                kind=row.kind,
                path=row.path,
                sha256=row.sha256,
                sop_class_uid=row.sop_class_uid,
                series_uid=row.series_uid,
            )
            for row in rows
        )

    def is_own_output(self, sop_instance_uid: str) -> bool:
        """Tell whether we made this object."""
        with self._database.reading() as connection:
            return is_known_output(connection, sop_instance_uid)

    def queue_delivery(
        self, object_uid: str, destination: str, run_id: str, *, at: datetime | None = None
    ) -> None:
        """Queue one object for one destination; a delivery that is there already stays as it is."""
        with self._database.writing() as connection:
            same = _same(object_uid, destination)
            if connection.execute(select(deliveries.c.object_uid).where(same)).first() is not None:
                return
            connection.execute(
                insert(deliveries).values(
                    object_uid=object_uid,
                    destination=destination,
                    run_id=run_id,
                    state=DeliveryState.QUEUED.value,
                    attempts=0,
                    queued_at=at or self._clock(),
                    receipt="",
                    error="",
                )
            )

    def mark_sent(self, object_uid: str, destination: str, *, at: datetime, receipt: str = "") -> None:
        """Note that the destination took the object; a confirmed delivery stays confirmed.

        Raises
        ------
        UnknownDeliveryError
        """
        values = {
            "state": DeliveryState.SENT.value,
            "sent_at": func.coalesce(deliveries.c.sent_at, at),
            "attempts": deliveries.c.attempts + case((deliveries.c.state == DeliveryState.SENT, 0), else_=1),
            "next_attempt_at": None,
            "receipt": receipt,
            "error": "",
        }
        self._mark(object_uid, destination, values)

    def mark_confirmed(self, object_uid: str, destination: str, *, at: datetime, receipt: str) -> None:
        """Note that the destination confirmed that it keeps the object.

        Raises
        ------
        UnknownDeliveryError
        """
        values = {
            "state": DeliveryState.CONFIRMED.value,
            "sent_at": func.coalesce(deliveries.c.sent_at, at),
            "confirmed_at": at,
            "next_attempt_at": None,
            "receipt": receipt,
            "error": "",
        }
        self._mark(object_uid, destination, values)

    def mark_failed(
        self,
        object_uid: str,
        destination: str,
        *,
        error: str,
        at: datetime,
        next_attempt_at: datetime | None,
        permanent: bool,
    ) -> None:
        """Note a failed attempt: queued again for ``next_attempt_at``, or failed for good.

        Raises
        ------
        UnknownDeliveryError
        """
        values = {
            "state": (DeliveryState.FAILED if permanent else DeliveryState.QUEUED).value,
            "attempts": deliveries.c.attempts + 1,
            "sent_at": None,
            "next_attempt_at": None if permanent else (next_attempt_at or at),
            "error": error,
        }
        self._mark(object_uid, destination, values)

    def deliveries_of(self, run_id: str) -> tuple[Delivery, ...]:
        """Return the deliveries of a run, by destination and object."""
        return self._select(deliveries.c.run_id == run_id)

    def pending_deliveries(
        self,
        destination: str | None = None,
        *,
        due_at: datetime | None = None,
        states: Collection[DeliveryState] = (DeliveryState.QUEUED, DeliveryState.SENT),
    ) -> tuple[Delivery, ...]:
        """Return deliveries that are not finished.

        Parameters
        ----------
        destination : str, optional
            Only to this destination.
        due_at : datetime, optional
            Only those whose next attempt is due by then.
        states : collection of DeliveryState
            By default queued and sent but unconfirmed.
        """
        conditions: list[ColumnElement[bool]] = [deliveries.c.state.in_([state.value for state in states])]
        if destination is not None:
            conditions.append(deliveries.c.destination == destination)
        if due_at is not None:
            next_at = deliveries.c.next_attempt_at
            conditions.append(or_(next_at.is_(None), next_at <= due_at))
        return self._select(and_(*conditions))

    def count_delivered_objects(self, study_key: StudyKey, destinations: Collection[str]) -> int:
        """Return how many DICOM results of a study's runs these destinations have confirmed.

        Where such a destination is the study's source, it counts them among the study's instances.
        """
        statement = (
            select(func.count(distinct(deliveries.c.object_uid)))
            .join_from(deliveries, outputs, outputs.c.object_uid == deliveries.c.object_uid)
            .join(runs, runs.c.run_id == outputs.c.run_id)
            .where(
                runs.c.study_key == study_key,
                outputs.c.sop_class_uid != "",
                deliveries.c.state == DeliveryState.CONFIRMED.value,
                deliveries.c.destination.in_(list(destinations)),
            )
        )
        with self._database.reading() as connection:
            return int(connection.execute(statement).scalar_one())

    def requeue(
        self, *, run_id: str | None = None, destination: str | None = None, at: datetime | None = None
    ) -> int:
        """Queue failed and unconfirmed deliveries again, of a run, to a destination, or both.

        Their patience starts anew at ``at``.

        Returns
        -------
        int
            How many were queued again.
        """
        conditions: list[ColumnElement[bool]] = [deliveries.c.state != DeliveryState.CONFIRMED.value]
        if run_id is not None:
            conditions.append(deliveries.c.run_id == run_id)
        if destination is not None:
            conditions.append(deliveries.c.destination == destination)
        values = {
            "state": DeliveryState.QUEUED.value,
            "queued_at": at or self._clock(),
            "sent_at": None,
            "next_attempt_at": None,
            "error": "",
        }
        with self._database.writing() as connection:
            return connection.execute(update(deliveries).where(and_(*conditions)).values(**values)).rowcount

    def _mark(self, object_uid: str, destination: str, values: dict[str, Any]) -> None:
        same = _same(object_uid, destination)
        unconfirmed = deliveries.c.state != DeliveryState.CONFIRMED.value
        with self._database.writing() as connection:
            statement = update(deliveries).where(and_(same, unconfirmed)).values(**values)
            if connection.execute(statement).rowcount:
                return
            if connection.execute(select(deliveries.c.object_uid).where(same)).first() is None:
                raise UnknownDeliveryError("no delivery of this object to this destination")

    def _select(self, condition: ColumnElement[bool]) -> tuple[Delivery, ...]:
        order = (deliveries.c.destination, deliveries.c.queued_at, deliveries.c.object_uid)
        with self._database.reading() as connection:
            rows = connection.execute(select(deliveries).where(condition).order_by(*order)).all()
        return tuple(_to_delivery(row) for row in rows)


def is_known_output(connection: Connection, sop_instance_uid: str) -> bool:
    """Tell whether we made this object, inside a transaction that is under way."""
    statement = select(outputs.c.object_uid).where(outputs.c.object_uid == sop_instance_uid)
    return connection.execute(statement).first() is not None


def _same(object_uid: str, destination: str) -> ColumnElement[bool]:
    return and_(deliveries.c.object_uid == object_uid, deliveries.c.destination == destination)


def _to_delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        object_uid=row.object_uid,
        destination=row.destination,
        run_id=row.run_id,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        queued_at=row.queued_at,
        sent_at=row.sent_at,
        confirmed_at=row.confirmed_at,
        next_attempt_at=row.next_attempt_at,
        receipt=row.receipt,
        error=row.error,
    )
