"""Adapter: brings a ledger database to this version's schema with Alembic.

The scripts lie in ``migrations/versions`` and travel with the package. Two
processes may start at once: the whole upgrade runs in one transaction under a
lock, and the second finds nothing to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from dicom_node.ledger.database import Database

_SCRIPTS: Final = Path(__file__).parent / "migrations"
#: Any number that nobody else locks in this database: "preread" in telephone digits.
_ADVISORY_LOCK: Final = 7_737_323


def migrate(database: Database, revision: str = "head") -> None:
    """Upgrade the database to ``revision``.

    Raises
    ------
    LedgerUnavailableError
        If the database does not answer.
    LedgerError
        If it refuses, for example because it is of a newer version.
    """
    with database.writing() as connection:
        # SQLite holds its write lock since BEGIN IMMEDIATE.
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        config = Config()
        config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
