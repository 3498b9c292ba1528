"""Adapter: talks to the ledger's database; which workers are alive."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, insert, select, update

from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import leases


class LeaseLedger:
    """Leases of workers; part of ``Ledger``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def renew_lease(self, executor_id: str, until: datetime) -> None:
        """Promise that a worker is alive until a time."""
        with self._database.writing() as connection:
            same = leases.c.executor_id == executor_id
            if connection.execute(update(leases).where(same).values(expires_at=until)).rowcount == 0:
                connection.execute(insert(leases).values(executor_id=executor_id, expires_at=until))

    def expired_leases(self, now: datetime) -> tuple[str, ...]:
        """Return the workers whose lease ran out, by name."""
        statement = (
            select(leases.c.executor_id).where(leases.c.expires_at < now).order_by(leases.c.executor_id)
        )
        with self._database.reading() as connection:
            return tuple(connection.execute(statement).scalars())

    def drop_lease(self, executor_id: str) -> bool:
        """Remove a lease; of several callers exactly one is told that it did."""
        with self._database.writing() as connection:
            return connection.execute(delete(leases).where(leases.c.executor_id == executor_id)).rowcount == 1
