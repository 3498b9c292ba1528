"""Pure, but for ``record_commitment``, which writes to the ledger it is given. Storage commitment, our side.

A PACS that took our objects promises to keep them in a report that comes on
another association, perhaps after a restart of this node. What was asked is
therefore part of the ledger's receipt, written before the question is put.
The wire protocol lives in ``pacs``; the listening side in ``dicom_node.scp``.

References
----------
DICOM PS3.4 Annex J (Storage Commitment Service Class).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from dicom_node.clock import Clock
from integration.delivery import DeliveryRow, Receipt, ReceiptState
from integration.statuses import COMMITMENT_FAILURE_REASONS, Verdict, classify

#: Enough to recognise a late answer to an earlier question without growing for ever.
_REMEMBERED_TRANSACTIONS = 8
_ASKED = re.compile(r"storage commitment asked at (?P<at>\S+), transactions? (?P<uids>[0-9. ]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """What was asked for one object: transaction UIDs, the newest last, and when."""

    transactions: tuple[str, ...] = ()
    asked_at: datetime | None = None

    @classmethod
    def from_detail(cls, detail: str) -> CommitmentRequest:
        """Return the request that a receipt's detail tells of; an empty one if none."""
        match = _ASKED.search(detail)
        if match is None:
            return cls()
        return cls(transactions=tuple(match["uids"].split()), asked_at=datetime.fromisoformat(match["at"]))

    def to_detail(self) -> str:
        """Return the receipt detail that `from_detail` reads back."""
        if self.asked_at is None:
            return "storage commitment not yet asked"
        word = "transaction" if len(self.transactions) == 1 else "transactions"
        return (
            f"storage commitment asked at {self.asked_at.isoformat()}, {word} {' '.join(self.transactions)}"
        )

    def ask(self, transaction_uid: str, at: datetime) -> CommitmentRequest:
        """Return this request with one more question put."""
        transactions = (*self.transactions, transaction_uid)[-_REMEMBERED_TRANSACTIONS:]
        return replace(self, transactions=transactions, asked_at=at)

    def is_due(self, now: datetime, timeout_s: float) -> bool:
        """Nothing was asked yet, or the answer is overdue."""
        return self.asked_at is None or (now - self.asked_at).total_seconds() >= timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """An N-EVENT-REPORT: SOP Instance UIDs committed, and failed with their Failure Reason."""

    transaction_uid: str
    committed: tuple[str, ...] = ()
    failed: tuple[tuple[str, int], ...] = ()


class CommitmentLedger(Protocol):
    """The ledger as commitment reports need it."""

    def pending_deliveries(self, destination: str) -> Sequence[DeliveryRow]:
        """Return the queued and sent deliveries to a destination."""

    def mark_confirmed(self, object_uid: str, destination: str, *, at: datetime, receipt: str) -> None:
        """Note that a destination keeps an object."""

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
        """Note that a destination does not keep an object."""


def receipts_of(report: CommitmentReport) -> tuple[Receipt, ...]:
    """Return what a report says, object by object."""
    committed = tuple(
        Receipt(
            object_uid=object_uid,
            state=ReceiptState.CONFIRMED,
            detail=f"storage commitment reported, transaction {report.transaction_uid}",
        )
        for object_uid in report.committed
    )
    return committed + tuple(_failure(object_uid, reason) for object_uid, reason in report.failed)


def record_commitment(
    report: CommitmentReport, destinations: Iterable[str], ledger: CommitmentLedger, clock: Clock
) -> int:
    """Write a storage commitment report into the ledger.

    A line of the report counts only where both its SOP Instance UID and the
    transaction were asked for, so that a stray or forged report changes nothing.

    Parameters
    ----------
    report : CommitmentReport
        As received by the listening application entity.
    destinations : iterable of str
        Names of the destinations that use storage commitment.
    ledger : CommitmentLedger
        Where deliveries are kept.
    clock : callable
        Returns the present time, aware UTC.

    Returns
    -------
    int
        Deliveries that the report decided.
    """
    receipts = {receipt.object_uid: receipt for receipt in receipts_of(report)}
    decided = 0
    for destination in destinations:
        for row in ledger.pending_deliveries(destination):
            receipt = receipts.get(row.object_uid)
            asked = CommitmentRequest.from_detail(row.receipt).transactions
            if receipt is None or row.state != "sent" or report.transaction_uid not in asked:
                continue
            _write(receipt, destination, ledger, clock())
            decided += 1
    return decided


def _write(receipt: Receipt, destination: str, ledger: CommitmentLedger, now: datetime) -> None:
    if receipt.state is ReceiptState.CONFIRMED:
        ledger.mark_confirmed(receipt.object_uid, destination, at=now, receipt=receipt.detail)
        return
    ledger.mark_failed(
        receipt.object_uid,
        destination,
        error=receipt.detail,
        at=now,
        next_attempt_at=now if receipt.retry else None,
        permanent=not receipt.retry,
    )


def _failure(object_uid: str, reason: int) -> Receipt:
    row = classify(reason, COMMITMENT_FAILURE_REASONS)
    return Receipt(
        object_uid=object_uid,
        state=ReceiptState.FAILED,
        detail=f"storage commitment refused, failure reason 0x{reason:04X}: {row.meaning}",
        retry=row.verdict is Verdict.RETRY,
    )
