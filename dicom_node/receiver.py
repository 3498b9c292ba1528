"""Adapter: one DICOM server that receives studies.

Storage (every SOP Class and transfer syntax, private ones too), Verification
and Storage Commitment. The handler of a C-STORE does four things: take the raw
bytes, make the file durable, commit the row, answer. It never decodes a Data
Set.
"""

from __future__ import annotations

import ipaddress
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import time
    StorageCommitmentPushModel,
    Verification,
)

from dicom_node.commitment import CommitmentScp, read_report
from dicom_node.dimse_statuses import REJECT_ADDRESS, CommitmentStatus, StoreStatus
from dicom_node.errors import PermanentError, TransientError
from dicom_node.headers import clean_text
from dicom_node.intake import Intake, Provenance
from dicom_node.ledger import Reception
from dicom_node.part10 import PartTen, build_header
from dicom_node.tls import TlsSettings, make_server_context
from dicom_node.transport import ReceiverServer, stop_waiting_for_request

#: PS3.8 D.1: larger PDUs cost fewer turns of the state machine (1.6 times the throughput of 16 KiB).
MAXIMUM_PDU_BYTES: Final = 131_072
#: PS3.7 D.3.3.2. A UID derived from a UUID (PS3.5 B.2), so that no organization root is claimed.
IMPLEMENTATION_CLASS_UID: Final = "2.25.273432711386930432575953740436445795976"
IMPLEMENTATION_VERSION_NAME: Final = "PREREAD_1"

#: How often the accept loop looks whether it should stop, in seconds.
_POLL_S: Final = 0.1
#: (Transaction UID, committed SOP Instance UIDs, failed ones with their Failure Reason)
CommitmentReportHandler = Callable[[str, tuple[str, ...], tuple[tuple[str, int], ...]], None]

log = structlog.get_logger(__name__)


class ScpSettingsError(PermanentError):
    """The application entity cannot start as configured: the message names the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpSettings:
    """How the application entity listens.

    Attributes
    ----------
    allowed_ae_titles, allowed_addresses : tuple of str
        Calling AE titles, and IP addresses or networks (CIDR); empty allows all.
    network_timeout_s : float
        Silence after which an association is aborted.
    request_timeout_s, handshake_timeout_s : float
        Longest wait for the A-ASSOCIATE-RQ and for a TLS handshake.
    receiver_processes : int
        Processes that listen on the port; see ``receivers``.
    """

    ae_title: str = "PREREAD"
    host: str = "127.0.0.1"
    port: int = 11112
    require_called_ae_title: bool = True
    allowed_ae_titles: tuple[str, ...] = ()
    allowed_addresses: tuple[str, ...] = ()
    maximum_associations: int = 64
    network_timeout_s: float = 60.0
    request_timeout_s: float = 30.0
    handshake_timeout_s: float = 10.0
    receiver_processes: int = 1
    tls: TlsSettings | None = None


@dataclass(slots=True)
class _Session:
    """What one association did so far; touched by its own threads only."""

    provenance: Provenance
    is_open: bool = False
    is_closed: bool = False
    count: int = 0
    size_bytes: int = 0
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Receiver:
    """One listening server in this process.

    Parameters
    ----------
    settings : ScpSettings
        How to listen; ``receiver_processes`` only says whether the port is shared.
    intake : Intake
        Makes instances durable.
    on_association_released : callable, optional
        Called with the association id after an association that sent images ended.
    on_commitment_report : callable, optional
        Called with what a PACS reports of a storage commitment that we asked for.
    commitment : CommitmentScp, optional
        Answers storage commitment requests; without it they are refused.
    receiver_id : str
        Name of this process in the ledger.
    """

    def __init__(
        self,
        settings: ScpSettings,
        intake: Intake,
        *,
        on_association_released: Callable[[str], None] | None = None,
        on_commitment_report: CommitmentReportHandler | None = None,
        commitment: CommitmentScp | None = None,
        receiver_id: str = "",
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._on_released = on_association_released
        self._on_report = on_commitment_report
        self._commitment = commitment
        self._receiver_id = receiver_id
        self._networks = _parse_networks(settings.allowed_addresses)
        self._sessions: WeakKeyDictionary[Association, _Session] = WeakKeyDictionary()
        self._server: ReceiverServer | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return self._settings.port if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, and return.

        Raises
        ------
        ScpSettingsError
            If the address or port cannot be bound.
        TlsSettingsError
            If a TLS file cannot be used.
        """
        _configure_pynetdicom()
        settings = self._settings
        tls = None if settings.tls is None else make_server_context(settings.tls)
        ae = _make_ae(settings)
        try:
            server = ae.make_server(
                (settings.host, settings.port),
                evt_handlers=self._handlers(),
                server_class=ReceiverServer,
                tls=tls,
                handshake_timeout_s=settings.handshake_timeout_s,
                request_timeout_s=settings.request_timeout_s,
                is_port_shared=settings.receiver_processes > 1,
            )
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise ScpSettingsError(f"dicom.port: cannot listen on {where}: is it in use?") from error
        assert isinstance(server, ReceiverServer)
        ae._servers.append(server)  # noqa: SLF001 - as start_server does; shutdown removes it
        self._server = server
        threading.Thread(
            target=server.serve_forever, args=(_POLL_S,), name="preread-dicom", daemon=True
        ).start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop listening, and end the associations that are open: what was not answered is not here."""
        if self._server is None:
            return
        self._server.shutdown()
        associations = self._server.active_associations
        for assoc in associations:
            stop_waiting_for_request(assoc)
            if assoc.is_established:
                assoc.abort(block=False)
        for assoc in associations:
            assoc.join(timeout=timeout_s)
        self._server = None

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_C_ECHO, lambda _event: int(StoreStatus.SUCCESS)),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_N_EVENT_REPORT, self._on_event_report),
            (evt.EVT_RELEASED, lambda event: self._end(event.assoc, aborted=False)),
            (evt.EVT_ABORTED, lambda event: self._end(event.assoc, aborted=True)),
            (evt.EVT_CONN_CLOSE, self._on_connection_closed),
        ]

    def _on_requested(self, event: evt.Event) -> None:
        """Reject peers whose address may not associate; titles are checked by pynetdicom."""
        address = event.assoc.requestor.address
        if not self._networks or any(ipaddress.ip_address(address) in net for net in self._networks):
            return
        log.warning("association_rejected", reason="address not allowed")
        event.assoc.acse.send_reject(*REJECT_ADDRESS)
        evt.trigger(event.assoc, evt.EVT_REJECTED, {})
        event.assoc.kill()

    def _on_connection_closed(self, event: evt.Event) -> None:
        stop_waiting_for_request(event.assoc)
        self._end(event.assoc, aborted=True)

    def _on_store(self, event: evt.Event) -> int:
        session = self._session(event.assoc)
        request = cast("C_STORE", event.request)
        sop_class = str(request.AffectedSOPClassUID or "")
        try:
            status = self._store(request, str(event.context.transfer_syntax), session)
        except TransientError as error:
            log.warning(
                "instance_refused", sop_class=sop_class, error=type(error).__name__, reason=str(error)
            )
            status = StoreStatus.OUT_OF_RESOURCES
        except Exception as error:
            log.exception("instance_failed", sop_class=sop_class, error=type(error).__name__)
            status = StoreStatus.PROCESSING_FAILURE
        if status != StoreStatus.SUCCESS:
            session.refused += 1
        return int(status)

    def _store(self, request: C_STORE, transfer_syntax: str, session: _Session) -> StoreStatus:
        if request.DataSet is None:
            return StoreStatus.CANNOT_UNDERSTAND
        data_set = request.DataSet.getvalue()
        header = build_header(
            sop_class_uid=str(request.AffectedSOPClassUID or ""),
            sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
            transfer_syntax_uid=transfer_syntax,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            source_ae=session.provenance.source_ae,
        )
        self._note_open(session)
        reception = self._intake.accept(PartTen(header, data_set), session.provenance)
        session.count += 1
        session.size_bytes += len(data_set)
        if reception == Reception.CONFLICT:
            log.warning("instance_conflicted", association=session.provenance.association_id)
        return StoreStatus.SUCCESS

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        if self._commitment is None:
            return int(CommitmentStatus.NOT_AUTHORIZED), None
        return int(self._commitment.answer(event)), None

    def _on_event_report(self, event: evt.Event) -> tuple[int, None]:
        try:
            report = read_report(event)
        except ValueError:
            return int(CommitmentStatus.INVALID_ARGUMENT), None
        try:
            if self._on_report is not None:
                self._on_report(report.transaction_uid, report.committed, report.failed)
        except Exception as error:
            log.exception("commitment_report_failed", error=type(error).__name__)
            return int(CommitmentStatus.PROCESSING_FAILURE), None
        return int(CommitmentStatus.SUCCESS), None

    def _session(self, assoc: Association) -> _Session:
        session = self._sessions.get(assoc)
        if session is None:
            session = _Session(
                Provenance(
                    source_ae=clean_text(assoc.requestor.ae_title),
                    source_address=assoc.requestor.address,
                    association_id=uuid.uuid4().hex,
                )
            )
            self._sessions[assoc] = session
        return session

    def _note_open(self, session: _Session) -> None:
        """Write the association into the ledger before its first instance: assembling waits for it."""
        if not session.is_open:
            self._intake.open_association(session.provenance, receiver_id=self._receiver_id)
            session.is_open = True

    def _end(self, assoc: Association, *, aborted: bool) -> None:
        session = self._sessions.get(assoc)
        if session is None:
            return
        with session.lock:
            if session.is_closed:
                return
            session.is_closed = True
        association_id = session.provenance.association_id
        log.info(
            "association_ended",
            association=association_id,
            state="aborted" if aborted else "released",
            count=session.count,
            bytes=session.size_bytes,
            failed=session.refused,
        )
        if not session.is_open:
            return
        try:
            self._intake.close_association(association_id, aborted=aborted)
        except TransientError as error:
            # The study then waits for the maximum wait instead of the release.
            log.error("association_end_not_recorded", association=association_id, reason=str(error))
        if self._on_released is not None:
            self._on_released(association_id)


def _configure_pynetdicom() -> None:
    """Set the process-wide switches of pynetdicom: take every storage class, log no identifiers."""
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"


def _make_ae(settings: ScpSettings) -> AE:
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
    ae.maximum_associations = settings.maximum_associations
    ae.network_timeout = settings.network_timeout_s
    ae.acse_timeout = settings.request_timeout_s
    ae.dimse_timeout = settings.network_timeout_s
    ae.require_called_aet = settings.require_called_ae_title
    ae.require_calling_aet = list(settings.allowed_ae_titles)
    ae.add_supported_context(Verification)
    # Both roles: peers ask us to commit (they are SCU), and report what we asked for (they are SCP).
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    return ae


def _parse_networks(
    addresses: tuple[str, ...],
) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(address, strict=False) for address in addresses)
    except ValueError as error:
        raise ScpSettingsError("dicom.allowed_addresses: an entry is no IP address or network") from error
