"""Adapter: talks to the ledger's database; all SQL of the node lives in this package.

What was received, which run covers it, and what became of every result. A
commit here is what makes an answer of success true; nothing else may be called
durable.
"""

from __future__ import annotations

from dicom_node.clock import Clock, utc_now
from dicom_node.ledger.assistant import AssistantLedger
from dicom_node.ledger.comparisons import ComparisonLedger
from dicom_node.ledger.database import Database, LedgerError, LedgerUnavailableError
from dicom_node.ledger.deliveries import DeliveryLedger, UnknownDeliveryError
from dicom_node.ledger.intake import IndexedInstance, IntakeLedger
from dicom_node.ledger.leases import LeaseLedger
from dicom_node.ledger.migration import migrate
from dicom_node.ledger.records import (
    AssistantExchange,
    ComparedLabel,
    Delivery,
    DeliveryState,
    InstanceState,
    OutputObject,
    ReceivedInstance,
    Reception,
    Run,
    RunRow,
    RunState,
    SiblingStudy,
    StoredInstance,
    StudyEvidence,
    StudyRow,
)
from dicom_node.ledger.retention import Forgotten, RetentionLedger
from dicom_node.ledger.runs import RunLedger, UnknownRunError
from dicom_node.ledger.studies import StudyLedger

__all__ = [
    "AssistantExchange",
    "ComparedLabel",
    "Delivery",
    "DeliveryState",
    "Forgotten",
    "IndexedInstance",
    "InstanceState",
    "Ledger",
    "LedgerError",
    "LedgerUnavailableError",
    "OutputObject",
    "ReceivedInstance",
    "Reception",
    "Run",
    "RunRow",
    "RunState",
    "SiblingStudy",
    "StoredInstance",
    "StudyEvidence",
    "StudyRow",
    "UnknownDeliveryError",
    "UnknownRunError",
]


class Ledger(
    IntakeLedger,
    StudyLedger,
    RunLedger,
    DeliveryLedger,
    ComparisonLedger,
    LeaseLedger,
    RetentionLedger,
    AssistantLedger,
):
    """The node's memory, on SQLite or PostgreSQL; safe to use from many threads.

    Parameters
    ----------
    database : Database
        Where it is kept.
    clock : callable
        Returns the present as an aware UTC time.
    """

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        IntakeLedger.__init__(self, database)
        StudyLedger.__init__(self, database)
        RunLedger.__init__(self, database, clock)
        DeliveryLedger.__init__(self, database, clock)
        ComparisonLedger.__init__(self, database)
        LeaseLedger.__init__(self, database)
        RetentionLedger.__init__(self, database)
        AssistantLedger.__init__(self, database)
        self._database = database

    @classmethod
    def connect(cls, url: str, *, clock: Clock = utc_now) -> Ledger:
        """Return a ledger on a database URL; nothing is opened before the first use."""
        return cls(Database(url), clock)

    @property
    def url(self) -> str:
        """The database URL, for handing to another process; may hold a password."""
        return self._database.url.render_as_string(hide_password=False)

    def migrate(self) -> None:
        """Bring the database to this version's schema; safe when several processes start at once.

        Raises
        ------
        LedgerUnavailableError, LedgerError
        """
        migrate(self._database)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()
