"""Adapter: talks to the ledger's database; which studies may go, and forgetting them.

What the node made stays known (``outputs``) after a study is forgotten, so that
its own results are still recognised when a PACS sends them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from dicom_node.ledger.database import Database
from dicom_node.ledger.records import RunState
from dicom_node.ledger.schema import (
    assistant_exchanges,
    deliveries,
    instances,
    notices,
    outputs,
    runs,
    studies,
)
from dicom_node.study import StudyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What a forgotten study leaves to be removed.

    Attributes
    ----------
    run_ids : tuple of str
        Runs whose folders nobody refers to any more.
    paths : tuple of str
        Stored files, relative to the instance store, that no other row refers to.
    """

    run_ids: tuple[str, ...]
    paths: tuple[str, ...]


class RetentionLedger:
    """What may be forgotten; part of ``Ledger``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def finished_before(self, cutoff: datetime) -> tuple[StudyKey, ...]:
        """Return the studies that stopped changing before a time and whose runs are all done."""
        unfinished = select(runs.c.study_key).where(runs.c.state != RunState.DONE.value)
        statement = (
            select(studies.c.study_key)
            .where(
                studies.c.is_collecting.is_(False),
                studies.c.last_received_at < cutoff,
                studies.c.study_key.not_in(unfinished),
            )
            .order_by(studies.c.last_received_at)
        )
        with self._database.reading() as connection:
            return tuple(StudyKey(key) for key in connection.execute(statement).scalars())

    def removable(self, study_key: StudyKey) -> Forgotten:
        """Return what forgetting a study would leave to be removed; changes nothing."""
        with self._database.reading() as connection:
            return _removable(connection, study_key)

    def forget_study(self, study_key: StudyKey) -> None:
        """Remove a study, its instances, runs and deliveries from the ledger; its results stay known.

        Of what was asked about it the audit trail keeps who, when and the digests, and no text.
        """
        with self._database.writing() as connection:
            of_study = select(runs.c.run_id).where(runs.c.study_key == study_key)
            connection.execute(delete(deliveries).where(deliveries.c.run_id.in_(of_study)))
            connection.execute(delete(instances).where(instances.c.study_key == study_key))
            connection.execute(
                update(assistant_exchanges)
                .where(assistant_exchanges.c.study_key == study_key)
                .values(question="", answer="", tools="[]")
            )
            connection.execute(delete(notices).where(notices.c.study_key == study_key))
            connection.execute(delete(studies).where(studies.c.study_key == study_key))
            connection.execute(
                delete(runs).where(
                    runs.c.study_key == study_key, runs.c.run_id.not_in(select(outputs.c.run_id).distinct())
                )
            )


def _removable(connection: Connection, study_key: StudyKey) -> Forgotten:
    run_ids = connection.execute(select(runs.c.run_id).where(runs.c.study_key == study_key)).scalars().all()
    elsewhere = select(instances.c.path).where(
        (instances.c.study_key != study_key) | instances.c.study_key.is_(None)
    )
    paths = connection.execute(
        select(instances.c.path)
        .where(instances.c.study_key == study_key, instances.c.path.not_in(elsewhere))
        .distinct()
    )
    return Forgotten(run_ids=tuple(run_ids), paths=tuple(paths.scalars()))
