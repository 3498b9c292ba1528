"""Adapter: takes instances in, over whatever protocol, and reads their headers later.

One order for DIMSE and STOW-RS: the file is durable, the row is committed, and
only then may anybody say success. Headers are read by ``index_received``,
outside of the receive path, so that a hostile file can cost a sender nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.clock import Clock, utc_now
from dicom_node.headers import (
    HeaderUnavailableError,
    UnreadableInstanceError,
    clean_text,
    read_header,
    read_study_time,
)
from dicom_node.ledger import IndexedInstance, Ledger, ReceivedInstance, Reception, StoredInstance
from dicom_node.part10 import NotPartTenError, PartTen, split_part10
from dicom_node.storage import InstanceStore, MissingFileError
from dicom_node.study import (
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
    derive_patient_key,
    derive_study_key,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an instance came from.

    Attributes
    ----------
    source_ae : str
        Calling AE title, or the name of the HTTP client.
    source_address : str
        IP address.
    association_id : str
        Of the association, or of the HTTP request.
    """

    source_ae: str
    source_address: str
    association_id: str


class Intake:
    """Makes received instances durable.

    Parameters
    ----------
    store : InstanceStore
        Keeps the files.
    ledger : Ledger
        Keeps the rows.
    clock : callable
        Returns the present as an aware UTC time.
    """

    def __init__(self, store: InstanceStore, ledger: Ledger, clock: Clock = utc_now) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock

    @property
    def store(self) -> InstanceStore:
        """Where the files are kept."""
        return self._store

    @property
    def ledger(self) -> Ledger:
        """Where the rows are kept."""
        return self._ledger

    def accept(self, part10: bytes | memoryview | PartTen, provenance: Provenance) -> Reception:
        """Keep one file and its row; both are durable when this returns.

        Bytes that are no Part 10 file are kept as they are: indexing will quarantine
        them with a reason, where a person sees them.

        Raises
        ------
        StorageFullError, StorageUnavailableError
            If the file cannot be kept now.
        LedgerUnavailableError
            If the row cannot be committed now; the file stays, sending again finds it.
        """
        pieces = part10 if isinstance(part10, PartTen) else _split(part10)
        meta = pieces.meta()
        stored = self._store.put(pieces)
        return self._ledger.record_received(
            ReceivedInstance(
                sop_instance_uid=SOPInstanceUID(clean_text(meta.sop_instance_uid)),
                sop_class_uid=SOPClassUID(clean_text(meta.sop_class_uid)),
                transfer_syntax_uid=TransferSyntaxUID(clean_text(meta.transfer_syntax_uid)),
                digest=stored.digest,
                path=stored.path,
                size_bytes=stored.size_bytes,
                source_ae=clean_text(provenance.source_ae),
                source_address=provenance.source_address,
                association_id=provenance.association_id,
                received_at=self._clock(),
            )
        )

    def open_association(self, provenance: Provenance, *, receiver_id: str = "") -> None:
        """Note that a source began to send."""
        self._ledger.open_association(
            provenance.association_id, provenance.source_ae, self._clock(), receiver_id=receiver_id
        )

    def close_association(self, association_id: str, *, aborted: bool) -> None:
        """Note that a source ended, or broke off."""
        self._ledger.close_association(association_id, self._clock(), aborted=aborted)


def index_received(ledger: Ledger, store: InstanceStore, site_key: bytes, *, limit: int = 500) -> int:
    """Read the headers of received instances, oldest first; quarantine what cannot be read.

    Parameters
    ----------
    site_key : bytes
        The site's secret, for study keys.
    limit : int
        Most instances in one call, and in one commit.

    Returns
    -------
    int
        How many rows were settled. A file that could not be opened just now stays for the next call.

    Raises
    ------
    LedgerUnavailableError
        If the ledger cannot be read or written now.
    """
    entries = [_index(row, store, site_key) for row in ledger.unindexed(limit)]
    settled = [entry for entry in entries if entry is not None]
    if settled:
        ledger.record_indexed(settled)
    return len(settled)


def _index(row: StoredInstance, store: InstanceStore, site_key: bytes) -> IndexedInstance | None:
    try:
        header = read_header(store.path_of(row.path))
    except HeaderUnavailableError:
        return None
    except (UnreadableInstanceError, MissingFileError) as error:
        return IndexedInstance(instance_id=row.instance_id, reason=str(error))
    if row.sop_instance_uid not in ("", header.sop_instance_uid):
        reason = "the sender announced another SOP Instance UID than the Data Set has"
        return IndexedInstance(instance_id=row.instance_id, reason=reason)
    study_key = derive_study_key(header.study_uid, site_key)
    return IndexedInstance(
        instance_id=row.instance_id,
        header=header,
        study_key=study_key,
        patient_key=derive_patient_key(
            header.header.get("PatientID", ""), header.header.get("IssuerOfPatientID", ""), site_key
        ),
        studied_at=read_study_time(header.header),
    )


def _split(part10: bytes | memoryview) -> PartTen:
    try:
        return split_part10(part10)
    except NotPartTenError:
        return PartTen(b"", part10)
