"""Adapter: SQL of the assistant's audit trail: who asked what, which tools answered, what was said."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, insert, select

from dicom_node.ledger.database import Database
from dicom_node.ledger.records import AssistantExchange
from dicom_node.ledger.schema import assistant_exchanges
from dicom_node.study import StudyKey

_LISTS = ("tools", "citations")


class AssistantLedger:
    """The audit trail of the assistant; part of ``Ledger``. Rows are added and never changed by asking."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_exchange(self, exchange: AssistantExchange) -> None:
        """Write one exchange.

        Raises
        ------
        LedgerUnavailableError
        """
        values = asdict(exchange)
        values |= {name: json.dumps(values[name], sort_keys=True) for name in _LISTS}
        with self._database.writing() as connection:
            connection.execute(insert(assistant_exchanges).values(**values))

    def exchanges(self, limit: int, run_id: str | None = None) -> tuple[AssistantExchange, ...]:
        """Return the exchanges last made, newest first; of one run, if it is named."""
        statement = select(assistant_exchanges)
        if run_id is not None:
            statement = statement.where(assistant_exchanges.c.run_id == run_id)
        ordered = statement.order_by(assistant_exchanges.c.asked_at.desc(), assistant_exchanges.c.exchange_id)
        with self._database.reading() as connection:
            return tuple(_to_exchange(row) for row in connection.execute(ordered.limit(limit)))


def _to_exchange(row: Row[Any]) -> AssistantExchange:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name of it
    lists = {name: tuple(json.loads(values[name])) for name in _LISTS}
    return AssistantExchange(**(values | lists | {"study_key": StudyKey(row.study_key)}))
