"""Adapter: one database, SQLite or PostgreSQL, behind two kinds of transaction.

SQLite runs in WAL with ``synchronous=FULL`` (a commit survives power loss), and
takes its write lock at BEGIN, so that a transaction that will write never has
to upgrade. Everything foreign that SQLAlchemy raises ends here.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.errors import PermanentError, TransientError

#: How long a writer waits for another process to finish its transaction.
BUSY_TIMEOUT_S: Final = 30.0
_WAL_RETRY_S: Final = 0.01
_POOL_SIZE: Final = 8
_POOL_OVERFLOW: Final = 56
_WRITES = "preread_writes"


class LedgerUnavailableError(TransientError):
    """The ledger's database did not answer: check that it runs and has room; the call may be repeated."""


class LedgerContentionError(LedgerUnavailableError):
    """Another process wrote the same row at the same time: the same call sees it when repeated."""


class LedgerError(PermanentError):
    """The ledger refused a statement: run ``preread doctor``, the schema may be of another version."""


class Database:
    """Connections to the ledger's database.

    Parameters
    ----------
    url : str
        SQLAlchemy URL: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql+psycopg://...``.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _create_engine(url, is_sqlite=self.is_sqlite)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection inside a transaction that only reads.

        Raises
        ------
        LedgerUnavailableError, LedgerError
        """
        with _translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection inside a transaction that is durable when the block ends.

        Raises
        ------
        LedgerUnavailableError, LedgerError
        """
        with _translated(), self.engine.connect() as connection:
            writer = connection.execution_options(**{_WRITES: True})
            with writer.begin():
                yield writer

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PoolTimeoutError) as error:
        raise LedgerUnavailableError("the ledger's database does not answer: check it, retry") from error
    except IntegrityError as error:
        # Two processes inserted the same row at once: the second try sees it.
        raise LedgerContentionError("the ledger was written to at the same time: retry") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise LedgerUnavailableError("the connection to the ledger broke: retry") from error
        raise LedgerError("the ledger refused a statement: run `preread doctor`") from error
    except SQLAlchemyError as error:
        raise LedgerError("the ledger refused a statement: run `preread doctor`") from error


def _create_engine(url: str, *, is_sqlite: bool) -> Engine:
    if not is_sqlite:
        return create_engine(url, pool_size=_POOL_SIZE, max_overflow=_POOL_OVERFLOW, pool_pre_ping=True)
    engine = create_engine(
        url,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(dbapi_connection: Any, record: object) -> None:
    del record
    assert isinstance(dbapi_connection, sqlite3.Connection)
    # The driver must not open transactions by itself: _begin_sqlite does.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def switch_to_wal(database: sqlite3.Connection | sqlite3.Cursor) -> None:
    """Turn write-ahead logging on; it is a property of the file and lasts.

    When several processes meet a new file, SQLite refuses all but one of them at once, without
    regard to its busy timeout: it could not tell the wait from a deadlock. So the wait is here.
    """
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_WAL_RETRY_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
