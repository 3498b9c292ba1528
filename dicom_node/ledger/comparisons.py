"""Adapter: SQL of comparisons: what an active model and its shadow said of the same studies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, delete, func, insert, or_, select

from dicom_node.ledger.database import Database
from dicom_node.ledger.records import ComparedLabel
from dicom_node.ledger.schema import comparisons

_CASE_HEX_DIGITS: Final = 20
_FIELDS: Final = tuple(ComparedLabel.__dataclass_fields__)


class ComparisonLedger:
    """Comparisons of models; part of ``Ledger``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_comparison(
        self, run_id: str, champion: str, challenger: str, labels: Sequence[ComparedLabel], at: datetime
    ) -> None:
        """Keep what two models said in one run, in place of what was kept of it before."""
        case_id = _name_case(run_id)
        with self._database.writing() as connection:
            connection.execute(
                delete(comparisons).where(
                    comparisons.c.case_id == case_id,
                    comparisons.c.champion == champion,
                    comparisons.c.challenger == challenger,
                )
            )
            if labels:
                rows = [{"case_id": case_id, "compared_at": at, **asdict(label)} for label in labels]
                connection.execute(insert(comparisons), rows)

    def comparisons_of(self, champion: str, challenger: str) -> dict[str, tuple[ComparedLabel, ...]]:
        """Return what was kept of two models, by case.

        Parameters
        ----------
        champion, challenger : str
            ``name@version``, or ``name`` for all its versions.
        """
        statement = (
            select(comparisons)
            .where(
                _is_model(comparisons.c.champion, champion), _is_model(comparisons.c.challenger, challenger)
            )
            .order_by(comparisons.c.compared_at, comparisons.c.case_id, comparisons.c.label)
        )
        found: dict[str, list[ComparedLabel]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(statement):
                found.setdefault(row.case_id, []).append(
                    ComparedLabel(**{name: getattr(row, name) for name in _FIELDS})
                )
        return {case_id: tuple(labels) for case_id, labels in found.items()}

    def compared_models(self) -> tuple[tuple[str, str, int], ...]:
        """Return the pairs that were compared: champion, challenger, number of studies."""
        statement = select(
            comparisons.c.champion, comparisons.c.challenger, func.count(comparisons.c.case_id.distinct())
        ).group_by(comparisons.c.champion, comparisons.c.challenger)
        with self._database.reading() as connection:
            rows = connection.execute(statement.order_by(comparisons.c.champion, comparisons.c.challenger))
            return tuple((champion, challenger, int(count)) for champion, challenger, count in rows)


def _name_case(run_id: str) -> str:
    """Return the name of a case: once its run is forgotten, nothing leads back to the study."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:_CASE_HEX_DIGITS]


def _is_model(column: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    return column == wanted if "@" in wanted else or_(column == wanted, column.startswith(f"{wanted}@"))
