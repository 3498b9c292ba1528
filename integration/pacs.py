"""Adapter: talks DIMSE to a PACS: C-STORE, storage commitment, and how large a study is there.

The only outward module that imports pynetdicom. It knows the protocol and no
policy: what a status means is in ``statuses``, what to do about it in
``cstore``.

References
----------
DICOM PS3.4 Annexes B (Storage), C (Query/Retrieve), J (Storage Commitment); PS3.7 Annex D.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom makes these names at run time
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
)

from integration.commitment import CommitmentReport
from integration.connections import CONNECT_TIMEOUT_S, DimsePeer
from integration.delivery import DestinationUnavailableError
from integration.dicomweb import DicomWebReader
from integration.sources import FindQuery, QidoQuery, SourceSettings

if TYPE_CHECKING:
    from pynetdicom.association import Association

# Identifiers of queries hold patient data, and pynetdicom logs them unless told not to.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
# Send files as they are, in chunks: nothing is decoded, re-encoded or held in memory.
_config.STORE_SEND_CHUNKED_DATASET = True

#: PS3.8 9.3.2.2: presentation context IDs are the odd numbers 1 to 255.
MAX_PRESENTATION_CONTEXTS = 128
#: Storage Commitment Push Model SOP Instance, PS3.4 J.3.5.
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_REQUEST_COMMITMENT_ACTION = 1
_STATUS_PENDING = frozenset({0xFF00, 0xFF01})
_SUCCESS = 0x0000
_MAX_PDU_BYTES = 131072

PresentationContext = tuple[str, str]
"""SOP Class UID and transfer syntax UID."""

COMMITMENT_CONTEXTS: tuple[PresentationContext, ...] = (
    (StorageCommitmentPushModel, ImplicitVRLittleEndian),
    (StorageCommitmentPushModel, ExplicitVRLittleEndian),
)
_FIND_CONTEXTS: tuple[PresentationContext, ...] = (
    (StudyRootQueryRetrieveInformationModelFind, ImplicitVRLittleEndian),
    (StudyRootQueryRetrieveInformationModelFind, ExplicitVRLittleEndian),
)


class PacsAssociation:
    """An association with a PACS. Every method raises `DestinationUnavailableError` if it breaks."""

    def __init__(self, association: Association, reports: _Reports) -> None:
        self._association = association
        self._reports = reports
        self._accepted = frozenset(
            (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in association.accepted_contexts
        )
        self._message_id = 0

    def accepts(self, context: PresentationContext) -> bool:
        """Whether the PACS takes this SOP Class in this transfer syntax."""
        return context in self._accepted

    def accepts_sop_class(self, sop_class_uid: str) -> bool:
        """Whether the PACS takes this SOP Class in any transfer syntax proposed."""
        return any(accepted == sop_class_uid for accepted, _ in self._accepted)

    def store(self, path: Path) -> int:
        """Send one Part-10 file as it is (C-STORE); return the status."""
        status = self._call(lambda: self._association.send_c_store(path, msg_id=self._next_message_id()))
        return _status_of(status)

    def request_commitment(self, transaction_uid: str, references: Sequence[tuple[str, str]]) -> int:
        """Ask for storage commitment (N-ACTION); return the status.

        Parameters
        ----------
        transaction_uid : str
            New for every request.
        references : sequence of (str, str)
            SOP Class UID and SOP Instance UID of each object.
        """
        request = Dataset()
        request.TransactionUID = transaction_uid
        request.ReferencedSOPSequence = [_reference(*reference) for reference in references]
        status, _ = self._call(
            lambda: self._association.send_n_action(
                request, _REQUEST_COMMITMENT_ACTION, StorageCommitmentPushModel, _COMMITMENT_INSTANCE
            )
        )
        return _status_of(status)

    def wait_for_report(self, transaction_uid: str, timeout_s: float) -> CommitmentReport | None:
        """Return the report if the PACS sends it on this association in time; most use another one."""
        return self._reports.wait_for(transaction_uid, timeout_s)

    def count_study_instances(self, study_uid: str) -> int | None:
        """Return Number of Study Related Instances (C-FIND, STUDY level); None if not told."""
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        query.StudyInstanceUID = study_uid
        query.NumberOfStudyRelatedInstances = None
        answers = self._call(
            lambda: list(self._association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind))
        )
        if not answers or _status_of(answers[-1][0]) != _SUCCESS:
            return None
        matches = [
            found for status, found in answers if status.Status in _STATUS_PENDING and found is not None
        ]
        if len(matches) != 1:
            return None
        count = matches[0].get("NumberOfStudyRelatedInstances")
        return int(count) if count not in {None, ""} else None

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _call(self, request: Callable[[], Any]) -> Any:  # pynetdicom's answers are untyped
        try:
            return request()
        except (RuntimeError, OSError) as error:
            raise DestinationUnavailableError("DIMSE: the association broke") from error


@contextmanager
def open_association(peer: DimsePeer, contexts: Sequence[PresentationContext]) -> Iterator[PacsAssociation]:
    """Open an association for the block; it is released, or aborted if the block fails.

    Parameters
    ----------
    peer : DimsePeer
        Whom to call.
    contexts : sequence of PresentationContext
        What to propose, at most 128; one transfer syntax per context, so that
        the PACS answers for each.

    Yields
    ------
    PacsAssociation
        Also where the PACS refused every context: `PacsAssociation.accepts` then says no to all.

    Raises
    ------
    DestinationUnavailableError
        If there is no association: unreachable, rejected, aborted or silent.
    """
    entity = AE(ae_title=peer.calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = peer.timeout_s
    entity.network_timeout = peer.timeout_s
    entity.connection_timeout = min(CONNECT_TIMEOUT_S, peer.timeout_s)
    entity.requested_contexts = [build_context(*context) for context in contexts]
    reports = _Reports()
    tls_args = (peer.tls.build_context(), peer.host) if peer.tls is not None else None
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            ae_title=peer.ae_title,
            max_pdu=_MAX_PDU_BYTES,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports.receive)],
            tls_args=tls_args,
        )
    except OSError as error:  # what pynetdicom does not handle itself: the host name is looked up first
        raise DestinationUnavailableError("DIMSE: the host name is not known: check host") from error
    is_refused_whole = bool(association.rejected_contexts) and not association.accepted_contexts
    if not association.is_established and not is_refused_whole:
        raise DestinationUnavailableError(_why_not(association))
    try:
        yield PacsAssociation(association, reports)
    except BaseException:
        if association.is_established:
            association.abort()
        raise
    if association.is_established:
        association.release()


def expected_instances(source: SourceSettings, study_uid: str) -> int | None:
    """Return how many instances a study has at its source.

    Parameters
    ----------
    source : SourceSettings
        Where the study came from.
    study_uid : str
        Study Instance UID.

    Returns
    -------
    int or None
        Number of Study Related Instances (0020,1208); None where the source is
        not asked, not reachable, or does not say. Never raises for the source's
        sake: completeness then rests on the quiet period.
    """
    try:
        if isinstance(source.query, QidoQuery):
            with DicomWebReader(source.query.endpoint) as reader:
                return reader.count_instances(study_uid)
        if isinstance(source.query, FindQuery):
            with open_association(source.query.peer, _FIND_CONTEXTS) as association:
                if not association.accepts_sop_class(StudyRootQueryRetrieveInformationModelFind):
                    return None
                return association.count_study_instances(study_uid)
    except DestinationUnavailableError:
        return None
    return None


class _Reports:
    """Storage commitment reports that arrive on the association that asked."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._by_transaction: dict[str, CommitmentReport] = {}

    def receive(self, event: evt.Event) -> tuple[int, None]:
        """Handle an N-EVENT-REPORT; runs in pynetdicom's thread."""
        report = read_commitment_report(event.event_information)
        with self._condition:
            self._by_transaction[report.transaction_uid] = report
            self._condition.notify_all()
        return _SUCCESS, None

    def wait_for(self, transaction_uid: str, timeout_s: float) -> CommitmentReport | None:
        with self._condition:
            self._condition.wait_for(lambda: transaction_uid in self._by_transaction, timeout_s)
            return self._by_transaction.get(transaction_uid)


def read_commitment_report(information: Dataset) -> CommitmentReport:
    """Return the value of an N-EVENT-REPORT's Event Information (PS3.4 Table J.3-2)."""
    committed = information.get("ReferencedSOPSequence") or []
    failed = information.get("FailedSOPSequence") or []
    return CommitmentReport(
        transaction_uid=str(information.get("TransactionUID", "")),
        committed=tuple(str(item.ReferencedSOPInstanceUID) for item in committed),
        failed=tuple(
            (str(item.ReferencedSOPInstanceUID), int(item.get("FailureReason", 0x0110))) for item in failed
        ),
    )


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _status_of(answer: Dataset) -> int:
    """Return the status of an answer; pynetdicom gives an empty one for a timeout or an abort."""
    if "Status" not in answer:
        raise DestinationUnavailableError("DIMSE: no answer in time, or the peer aborted the association")
    return int(answer.Status)


def _why_not(association: Association) -> str:
    if association.is_rejected:
        primitive = association.acceptor.primitive
        reason = primitive.reason_str if primitive is not None else "no reason given"
        return f"DIMSE: association rejected ({reason}): check the AE titles on both sides"
    if association.acceptor.primitive is None and not association.is_aborted:
        return "DIMSE: cannot connect: check host and port"
    return "DIMSE: no association: the peer is unreachable, silent or aborted it"
