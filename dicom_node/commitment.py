"""Adapter: Storage Commitment Push Model on the receiving side (PS3.4 Annex J).

A source asks (N-ACTION) whether we keep what it sent; we answer on a new
association (N-EVENT-REPORT) from the ledger alone. Reports that a PACS sends to
us about our own results are read here too; what to do with them is the caller's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from dicom_node.dimse_statuses import CommitmentStatus, FailureReason
from dicom_node.errors import TransientError

_REQUEST_COMMITMENT: Final = 1
_ALL_COMMITTED: Final = 1
_SOME_FAILED: Final = 2
#: Waits between attempts to report, in seconds; a source that was away for longer asks again.
_REPORT_WAITS_S: Final = (0.2, 2.0, 10.0, 60.0)

log = structlog.get_logger(__name__)


class HeldInstances(Protocol):
    """Knows what is stored durably; ``Ledger`` does."""

    def held_instances(self, sop_instance_uids: Sequence[str]) -> Mapping[str, str]:
        """Return SOP Instance UID to SOP Class UID for those that are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentPeer:
    """Where the reports for one AE title go."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A storage commitment report: what is committed, and what failed with its Failure Reason."""

    transaction_uid: str
    committed: tuple[str, ...] = ()
    failed: tuple[tuple[str, int], ...] = ()


class CommitmentScp:
    """Answers storage commitment requests.

    Parameters
    ----------
    ae_title : str
        Ours.
    held : HeldInstances
        Knows what is stored.
    peers : mapping
        Calling AE title to where its reports go; others are refused.
    sleep : callable
        Waits between attempts to report.
    """

    def __init__(
        self,
        ae_title: str,
        held: HeldInstances,
        peers: Mapping[str, CommitmentPeer],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ae_title = ae_title
        self._held = held
        self._peers = peers
        self._sleep = sleep

    def answer(self, event: evt.Event) -> CommitmentStatus:
        """Judge one N-ACTION request; if it is good, report on a new association."""
        caller = event.assoc.requestor.ae_title.strip()
        peer = self._peers.get(caller)
        if peer is None:
            return CommitmentStatus.NOT_AUTHORIZED
        if event.action_type != _REQUEST_COMMITMENT:
            return CommitmentStatus.NO_SUCH_ACTION
        try:
            request = event.action_information
            transaction_uid = str(request.TransactionUID)
            wanted = _read_references(request)
        except Exception:  # noqa: BLE001 - whatever pydicom raises on what a peer sent
            return CommitmentStatus.INVALID_ARGUMENT
        try:
            held = self._held.held_instances([uid for uid, _ in wanted])
        except TransientError:
            return CommitmentStatus.PROCESSING_FAILURE
        report = _make_report(transaction_uid, wanted, held)
        threading.Thread(
            target=self._report, args=(caller, peer, report), name="preread-commitment", daemon=True
        ).start()
        return CommitmentStatus.SUCCESS

    def _report(self, caller: str, peer: CommitmentPeer, report: Dataset) -> None:
        for wait_s in _REPORT_WAITS_S:
            self._sleep(wait_s)
            if self._send_report(caller, peer, report):
                log.info("commitment_reported", count=len(report.get("ReferencedSOPSequence", ())))
                return
        log.warning("commitment_report_failed", reason="the source cannot be reached")

    def _send_report(self, caller: str, peer: CommitmentPeer, report: Dataset) -> bool:
        ae = AE(ae_title=self._ae_title)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        assoc = ae.associate(peer.host, peer.port, ae_title=caller, ext_neg=[role])
        if not assoc.is_established:
            return False
        try:
            event_type = _SOME_FAILED if "FailedSOPSequence" in report else _ALL_COMMITTED
            status, _ = assoc.send_n_event_report(
                report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            return bool("Status" in status and status.Status == CommitmentStatus.SUCCESS)
        except (RuntimeError, ValueError):
            # The peer did not accept our role, or went away.
            return False
        finally:
            assoc.release()


def read_report(event: evt.Event) -> Report:
    """Read an N-EVENT-REPORT that a PACS sent about what we stored there.

    Raises
    ------
    ValueError
        If it is no storage commitment report.
    """
    if event.event_type not in (_ALL_COMMITTED, _SOME_FAILED):
        raise ValueError("no event type of the Storage Commitment Push Model")
    try:
        information = event.event_information
        return Report(
            transaction_uid=str(information.TransactionUID),
            committed=tuple(str(item.ReferencedSOPInstanceUID) for item in _items(information, "Referenced")),
            failed=tuple(
                (str(item.ReferencedSOPInstanceUID), int(item.get("FailureReason", 0)))
                for item in _items(information, "Failed")
            ),
        )
    except Exception as error:
        raise ValueError("the event information cannot be read") from error


def _items(information: Dataset, kind: str) -> Sequence[Dataset]:
    items: Any = information.get(f"{kind}SOPSequence")
    return items or ()


def _read_references(request: Dataset) -> list[tuple[str, str]]:
    return [
        (str(item.ReferencedSOPInstanceUID), str(item.ReferencedSOPClassUID))
        for item in request.ReferencedSOPSequence
    ]


def _make_report(transaction_uid: str, wanted: list[tuple[str, str]], held: Mapping[str, str]) -> Dataset:
    report = Dataset()
    report.TransactionUID = transaction_uid
    committed, failed = [], []
    for uid, sop_class in wanted:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = uid
        if held.get(uid) == sop_class:
            committed.append(item)
            continue
        is_known = uid in held
        reason = FailureReason.CLASS_INSTANCE_CONFLICT if is_known else FailureReason.NO_SUCH_INSTANCE
        item.FailureReason = int(reason)
        failed.append(item)
    if committed:
        report.ReferencedSOPSequence = committed
    if failed:
        report.FailedSOPSequence = failed
    return report
