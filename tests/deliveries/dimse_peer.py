"""A scripted PACS on 127.0.0.1: a pynetdicom SCP that misbehaves as the test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind
from pynetdicom.transport import ThreadedAssociationServer

AE_TITLE = "ARCHIVE"
ABORT, SILENT = -1, -2


@dataclass
class DimsePeer:
    """``statuses`` are the answers to come to C-STORE, then 0x0000; ABORT aborts instead."""

    sop_classes: Sequence[str]
    statuses: list[int] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    encoded: dict[str, bytes] = field(default_factory=dict)
    associations: int = 0
    study_instances: int | None = None
    takes_calling_ae_titles: Sequence[str] = ()
    has_commitment: bool = True
    commitment_status: int = 0x0000
    #: Called with (association, request) after an N-ACTION is answered.
    report: Callable[[object, Dataset], None] | None = None
    requests: list[Dataset] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def store(self, event: evt.Event) -> int:
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == ABORT:
            event.assoc.abort()
            return 0xC000
        if status == SILENT:
            self.released.wait(20)
            return 0xC000
        if status == 0x0000 or status >> 12 == 0xB:
            uid = str(event.request.AffectedSOPInstanceUID)
            self.kept[uid] = self.kept.get(uid, 0) + 1
            self.encoded[uid] = event.encoded_dataset(include_meta=False)
        return status

    def act(self, event: evt.Event) -> tuple[int, None]:
        self.requests.append(event.action_information)
        if self.report is not None:
            threading.Timer(0.05, self.report, (event.assoc, event.action_information)).start()
        return self.commitment_status, None

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if self.study_instances is None:
            return
        found = Dataset()
        found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", event.identifier.StudyInstanceUID
        found.NumberOfStudyRelatedInstances = self.study_instances
        yield 0xFF00, found


@contextmanager
def dimse_peer(peer: DimsePeer, *, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run the SCP; yield its port."""
    entity = AE(ae_title=AE_TITLE)
    entity.require_called_aet = True
    entity.require_calling_aet = list(peer.takes_calling_ae_titles)
    for sop_class in peer.sop_classes:
        entity.add_supported_context(sop_class, ExplicitVRLittleEndian)
    if peer.has_commitment:
        entity.add_supported_context(StorageCommitmentPushModel)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)

    def count(event: evt.Event) -> None:
        peer.associations += 1

    handlers = [
        (evt.EVT_C_STORE, peer.store),
        (evt.EVT_N_ACTION, peer.act),
        (evt.EVT_C_FIND, peer.find),
        (evt.EVT_ACCEPTED, count),
    ]
    server = entity.make_server(
        ("127.0.0.1", 0), evt_handlers=handlers, ssl_context=tls, server_class=ThreadedAssociationServer
    )
    entity._servers.append(server)  # as start_server does, which offers no shorter poll interval
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    unrestricted = _config.UNRESTRICTED_STORAGE_SERVICE  # our own receiver switches it on for the process
    _config.UNRESTRICTED_STORAGE_SERVICE = False
    try:
        yield server.socket.getsockname()[1]
    finally:
        _config.UNRESTRICTED_STORAGE_SERVICE = unrestricted
        peer.released.set()
        server.shutdown()
        thread.join()


def commit(
    association: object, request: Dataset, *, failing: Sequence[str] = (), reason: int = 0x0112
) -> None:
    """Send the storage commitment report on an association."""
    report = Dataset()
    report.TransactionUID = request.TransactionUID
    good, bad = [], []
    for asked in request.ReferencedSOPSequence:
        item = Dataset()
        item.ReferencedSOPClassUID = asked.ReferencedSOPClassUID
        item.ReferencedSOPInstanceUID = asked.ReferencedSOPInstanceUID
        if item.ReferencedSOPInstanceUID in failing:
            item.FailureReason = reason
        (bad if item.ReferencedSOPInstanceUID in failing else good).append(item)
    report.ReferencedSOPSequence = good
    if bad:
        report.FailedSOPSequence = bad
    association.send_n_event_report(
        report, 2 if bad else 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"
    )
