"""Adapter: stores DICOM objects in a PACS over DIMSE (C-STORE), and asks it to commit to keeping them.

One association per attempt. With storage commitment an object stays ``sent``
until the PACS reports; without it the C-STORE status is all the proof there
is, and the receipt says so.

References
----------
DICOM PS3.4 Annex B (Storage Service Class), Annex J (Storage Commitment).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pydicom
from pydicom.filereader import read_file_meta_info

from dicom_node.clock import Clock
from integration.commitment import CommitmentRequest, receipts_of
from integration.connections import DimsePeer
from integration.delivery import (
    Awaiting,
    DeliveryItem,
    DestinationProfile,
    DestinationRejectedError,
    DestinationUnavailableError,
    Receipt,
    ReceiptState,
)
from integration.pacs import (
    COMMITMENT_CONTEXTS,
    MAX_PRESENTATION_CONTEXTS,
    PacsAssociation,
    PresentationContext,
    open_association,
)
from integration.statuses import C_STORE_STATUSES, Verdict, classify

_SUCCESS = 0x0000
#: N-ACTION status for a transaction the PACS already works on (PS3.3 C.14.1.1).
_DUPLICATE_TRANSACTION = 0x0131


class CStoreDestination:
    """A PACS reached over DIMSE.

    Parameters
    ----------
    profile : DestinationProfile
        Name and wishes.
    peer : DimsePeer
        Whom to call.
    has_commitment : bool
        Whether the PACS is asked for storage commitment.
    commitment_timeout_s : float
        How long a report may take before it is asked for again, seconds.
    commitment_linger_s : float
        How long to wait for a report on the association that asked, seconds.
    clock : callable
        Returns the present time, aware UTC.
    new_uid : callable
        Returns a new UID for a transaction.
    """

    def __init__(
        self,
        *,
        profile: DestinationProfile,
        peer: DimsePeer,
        has_commitment: bool,
        commitment_timeout_s: float,
        commitment_linger_s: float,
        clock: Clock,
        new_uid: Callable[[], str],
    ) -> None:
        self._profile = profile
        self._peer = peer
        self._has_commitment = has_commitment
        self._commitment_timeout_s = commitment_timeout_s
        self._commitment_linger_s = commitment_linger_s
        self._clock = clock
        self._new_uid = new_uid

    @property
    def profile(self) -> DestinationProfile:
        """What this destination wants."""
        return self._profile

    def send(self, items: Sequence[DeliveryItem]) -> Iterator[Receipt]:
        """Store the objects over one association (more only for over 128 presentation contexts).

        Raises
        ------
        DestinationUnavailableError
            If there is no association or it breaks.
        DestinationRejectedError
            If an object is missing from the run folder.
        """
        contexts = {item.object_uid: read_context(item) for item in items}
        distinct = sorted(set(contexts.values()))
        for start in range(0, len(distinct), MAX_PRESENTATION_CONTEXTS):
            proposed = distinct[start : start + MAX_PRESENTATION_CONTEXTS]
            with open_association(self._peer, proposed) as association:
                for item in items:
                    if contexts[item.object_uid] in proposed:
                        yield self._store(association, item, contexts[item.object_uid])

    def confirm(self, awaiting: Sequence[Awaiting]) -> Iterator[Receipt]:
        """Ask for storage commitment where it is due; the transaction is on record before it is asked.

        Raises
        ------
        DestinationUnavailableError
            If the PACS cannot be asked or does not take the question.
        """
        if not self._has_commitment:
            for entry in awaiting:
                yield self._confirmed_by_status(entry.item, entry.detail)
            return
        now = self._clock()
        due = [
            entry
            for entry in awaiting
            if CommitmentRequest.from_detail(entry.detail).is_due(now, self._commitment_timeout_s)
        ]
        if not due:
            return
        with open_association(self._peer, COMMITMENT_CONTEXTS) as association:
            if not any(association.accepts(context) for context in COMMITMENT_CONTEXTS):
                raise DestinationUnavailableError(
                    "DIMSE: the peer does not offer storage commitment: allow it there, or switch it off here"
                )
            transaction_uid = self._new_uid()
            for entry in due:
                request = CommitmentRequest.from_detail(entry.detail).ask(transaction_uid, now)
                yield _receipt(entry.item, ReceiptState.SENT, request.to_detail())
            yield from self._ask(association, transaction_uid, [entry.item for entry in due])

    def _ask(
        self, association: PacsAssociation, transaction_uid: str, items: Sequence[DeliveryItem]
    ) -> Iterator[Receipt]:
        references = [(item.sop_class_uid or "", item.object_uid) for item in items]
        status = association.request_commitment(transaction_uid, references)
        if status not in {_SUCCESS, _DUPLICATE_TRANSACTION}:
            raise DestinationUnavailableError(f"DIMSE: storage commitment request answered 0x{status:04X}")
        report = association.wait_for_report(transaction_uid, self._commitment_linger_s)
        if report is not None:
            asked = {item.object_uid for item in items}
            yield from (receipt for receipt in receipts_of(report) if receipt.object_uid in asked)

    def _store(
        self, association: PacsAssociation, item: DeliveryItem, context: PresentationContext
    ) -> Receipt:
        if not association.accepts(context):
            transfer_syntax = pydicom.uid.UID(context[1]).name
            detail = (
                f"DIMSE: the peer does not take {pydicom.uid.UID(context[0]).name} in {transfer_syntax}: "
                "allow it there, or choose another kind or encoding here"
            )
            return _receipt(item, ReceiptState.FAILED, detail)
        status = association.store(item.path)
        row = classify(status, C_STORE_STATUSES)
        detail = f"C-STORE status 0x{status:04X}: {row.meaning}"
        if row.verdict is not Verdict.ACCEPTED:
            return _receipt(item, ReceiptState.FAILED, detail, retry=row.verdict is Verdict.RETRY)
        if self._has_commitment:
            return _receipt(item, ReceiptState.SENT, f"{detail}; {CommitmentRequest().to_detail()}")
        return self._confirmed_by_status(item, f"accepted by {detail}")

    def _confirmed_by_status(self, item: DeliveryItem, detail: str) -> Receipt:
        return _receipt(item, ReceiptState.CONFIRMED, f"{detail}; storage commitment not configured")


def read_context(item: DeliveryItem) -> PresentationContext:
    """Return the SOP Class and transfer syntax of an object's file.

    Raises
    ------
    DestinationRejectedError
        If the file is missing or not a Part-10 file.
    """
    try:
        meta = read_file_meta_info(item.path)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except (OSError, AttributeError, pydicom.errors.InvalidDicomError) as error:
        raise DestinationRejectedError(
            "a result object is missing from the run folder or not readable: encode the run again"
        ) from error


def _receipt(item: DeliveryItem, state: ReceiptState, detail: str, *, retry: bool = False) -> Receipt:
    return Receipt(object_uid=item.object_uid, state=state, detail=detail, retry=retry)
