"""Every real file we have goes through the receiving side: of all makers, broken and hostile ones too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom.uid import UID, MediaStorageDirectoryStorage
from pynetdicom.sop_class import Verification
from receiving.sender import association, contexts_of, send_all

from dicom_node.intake import Intake, Provenance, index_received
from dicom_node.ledger import InstanceState, Ledger, Reception
from dicom_node.part10 import NotPartTenError, PartTen, split_part10
from dicom_node.scp import ScpSettings, StorageScp
from dicom_node.storage import InstanceStore

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom"
#: Presentation context ids are odd numbers up to 255 (PS3.8 9.3.2.2).
MAX_CONTEXTS = 128
NOT_DICOM = {".csv", ".md", ".txt"}
HERE = Provenance(source_ae="FILES", source_address="127.0.0.1", association_id="files")


@pytest.mark.data
# The sender says so of UIDs that real devices made up; they are sent as they are.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/dicom is not here")
def test_all_real_files(store: InstanceStore, sqlite_ledger: Ledger) -> None:
    paths = [path for path in sorted(DATA.rglob("*")) if path.is_file() and path.suffix not in NOT_DICOM]
    contents = [path.read_bytes() for path in paths]
    by_dimse, direct = _divide(contents)
    assert len(by_dimse) > 400
    intake = Intake(store, sqlite_ledger)
    scp = StorageScp(ScpSettings(port=0), intake)
    scp.start()
    try:
        for batch in _batches(by_dimse):
            assert set(send_all(scp.port, batch)) == {0}
        for content in direct:
            assert intake.accept(content, HERE) in set(Reception)
        with association(scp.port, [(Verification, "1.2.840.10008.1.2")]) as assoc:
            assert assoc.send_c_echo().Status == 0
    finally:
        scp.stop()
    kept = {bytes(_data_set(store.path_of(row.path).read_bytes())) for row in sqlite_ledger.unindexed(10_000)}
    assert kept == {bytes(file.data_set) for file in by_dimse} | {bytes(_data_set(c)) for c in direct}
    while index_received(sqlite_ledger, store, bytes(32)):
        pass
    counts = sqlite_ledger.count_instances()
    assert counts[InstanceState.RECEIVED] == 0
    assert counts[InstanceState.INDEXED] > 400
    bad = sqlite_ledger.quarantined(1000)
    assert bad
    assert all(row.reason and "Phantom" not in row.reason for row in bad)


def _divide(contents: Sequence[bytes]) -> tuple[list[PartTen], list[bytes]]:
    """Tell files that a storage SCU can send from those that only HTTP could bring."""
    by_dimse, direct = [], []
    for content in contents:
        try:
            pieces = split_part10(content)
        except NotPartTenError:
            direct.append(content)
            continue
        meta = pieces.meta()
        # A DICOMDIR is of no storage class: its context is refused, as it should be.
        is_storage = meta.sop_class_uid not in ("", MediaStorageDirectoryStorage)
        is_sendable = is_storage and UID(meta.transfer_syntax_uid).is_valid and len(pieces.data_set) > 0
        if is_sendable and meta.sop_instance_uid:
            by_dimse.append(pieces)
        else:
            direct.append(content)
    return by_dimse, direct


def _batches(files: Sequence[PartTen]) -> list[list[PartTen]]:
    batches: list[list[PartTen]] = [[]]
    for file in files:
        if len(set(contexts_of([*batches[-1], file]))) > MAX_CONTEXTS:
            batches.append([])
        batches[-1].append(file)
    return batches


def _data_set(content: bytes) -> bytes | memoryview:
    try:
        return split_part10(content).data_set
    except NotPartTenError:
        return content
