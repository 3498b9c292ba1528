"""Real associations on loopback, with pynetdicom, DCMTK and peers that misbehave."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)
from receiving.certificates import Authority
from receiving.images import encode_file, encode_pieces, make_image, make_uid
from receiving.sender import associate, association, contexts_of, reference, send_all, store
from stack.waiting import wait_for

from dicom_node.commitment import CommitmentPeer
from dicom_node.dimse_statuses import StoreStatus
from dicom_node.intake import Intake, index_received
from dicom_node.ledger import InstanceState, Ledger
from dicom_node.part10 import PartTen, split_part10
from dicom_node.receiver_pool import ReceiverPool
from dicom_node.scp import ScpSettings, ScpSettingsError, StorageScp
from dicom_node.storage import InstanceStore
from dicom_node.tls import TlsSettingsError, make_client_context

CT = (CTImageStorage, "1.2.840.10008.1.2.1")
SITE_KEY = bytes(32)
#: pynetdicom installs a program of the same name into the environment.
STORESCU = Path("/usr/bin/storescu")


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def node(store: InstanceStore, sqlite_ledger: Ledger, ended: list[str]) -> Iterator[StorageScp]:
    with _running(store, sqlite_ledger, on_association_released=ended.append) as scp:
        yield scp


@contextmanager
def _running(
    store: InstanceStore, ledger: Ledger, *, settings: ScpSettings | None = None, **options: object
) -> Iterator[StorageScp]:
    scp = StorageScp(settings or ScpSettings(port=0), Intake(store, ledger), **options)  # type: ignore[arg-type]
    scp.start()
    try:
        yield scp
    finally:
        scp.stop()


def _stored_data_sets(store: InstanceStore, ledger: Ledger) -> dict[str, bytes]:
    return {
        row.sop_instance_uid: bytes(split_part10(store.path_of(row.path).read_bytes()).data_set)
        for row in ledger.unindexed(10_000)
    }


def _files(count: int, **elements: object) -> list[PartTen]:
    return [encode_pieces(make_image(number=number, **elements)) for number in range(1, count + 1)]


def test_success_means_stored_byte_for_byte_and_recorded(
    node: StorageScp, store: InstanceStore, sqlite_ledger: Ledger, ended: list[str]
) -> None:
    files = _files(5)
    assert send_all(node.port, files) == [StoreStatus.SUCCESS] * 5
    assert _stored_data_sets(store, sqlite_ledger) == {
        file.meta().sop_instance_uid: bytes(file.data_set) for file in files
    }
    wait_for(lambda: ended, what="the end of the association", interval_s=0.01)
    assert index_received(sqlite_ledger, store, SITE_KEY) == 5
    (evidence,) = sqlite_ledger.collecting(datetime.now(UTC))
    assert (evidence.source_ae, evidence.indexed_count, evidence.open_associations) == ("SCANNER", 5, 0)
    assert evidence.last_closed_at is not None
    assert not evidence.was_aborted


def test_verification(node: StorageScp, sqlite_ledger: Ledger) -> None:
    with association(node.port, [(Verification, "1.2.840.10008.1.2")]) as assoc:
        assert assoc.send_c_echo().Status == 0


def test_private_classes_and_syntaxes_and_missing_uids_are_stored(
    node: StorageScp, store: InstanceStore, sqlite_ledger: Ledger
) -> None:
    private = encode_pieces(make_image(SOPClassUID="1.2.826.0.1.3680043.10.1000.9"))
    jpeg = encode_pieces(make_image(number=2))
    jpeg = PartTen(
        bytes(jpeg.header).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"), jpeg.data_set
    )
    bare = encode_pieces(make_image(number=3, SOPInstanceUID=make_uid("bare")))
    bare = PartTen(bare.header, b"\x10\x00\x10\x00PN\x04\x00Anon")
    assert send_all(node.port, [private, jpeg, bare]) == [0, 0, 0]
    assert len(sqlite_ledger.unindexed(10)) == 3
    index_received(sqlite_ledger, store, SITE_KEY)
    (bad,) = sqlite_ledger.quarantined(10)
    assert "SOPClassUID is missing" in bad.reason


def test_sending_again_is_success_and_changes_nothing(node: StorageScp, sqlite_ledger: Ledger) -> None:
    files = _files(2)
    send_all(node.port, files)
    assert send_all(node.port, files) == [0, 0]
    assert sqlite_ledger.count_instances()[InstanceState.RECEIVED] == 2


@pytest.mark.parametrize(
    ("changes", "titles", "reason"),
    [
        ({}, {"called": "OTHER"}, (1, 1, 7)),
        ({"allowed_ae_titles": ("PACS",)}, {}, (1, 1, 3)),
        ({"allowed_addresses": ("192.0.2.0/24", "2001:db8::/32")}, {}, (1, 1, 1)),
    ],
)
def test_who_may_not_associate_is_told_why(
    store: InstanceStore,
    sqlite_ledger: Ledger,
    changes: dict[str, object],
    titles: dict[str, str],
    reason: tuple[int, ...],
) -> None:
    with _running(store, sqlite_ledger, settings=ScpSettings(port=0, **changes)) as scp:  # type: ignore[arg-type]
        assoc = associate(scp.port, [CT], **titles)
        assert assoc.is_rejected
        answer = assoc.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == reason


def test_who_may_associate_does(store: InstanceStore, sqlite_ledger: Ledger) -> None:
    settings = ScpSettings(port=0, allowed_ae_titles=("SCANNER",), allowed_addresses=("127.0.0.0/8",))
    with _running(store, sqlite_ledger, settings=settings) as scp:
        assert send_all(scp.port, _files(1)) == [0]


def test_too_many_associations_are_refused_for_now(store: InstanceStore, sqlite_ledger: Ledger) -> None:
    with (
        _running(store, sqlite_ledger, settings=ScpSettings(port=0, maximum_associations=1)) as scp,
        association(scp.port, [CT]),
    ):
        second = associate(scp.port, [CT])
        assert second.is_rejected
        answer = second.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)


def test_no_room_is_out_of_resources(tmp_path: Path, sqlite_ledger: Ledger) -> None:
    full = InstanceStore(tmp_path / "full", min_free_bytes=2**62, min_free_fraction=0)
    with _running(full, sqlite_ledger) as scp:
        assert send_all(scp.port, _files(1)) == [StoreStatus.OUT_OF_RESOURCES]
    assert sqlite_ledger.unindexed(10) == ()


def test_a_ledger_that_is_down_is_out_of_resources(store: InstanceStore) -> None:
    down = Ledger.connect("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with _running(store, down) as scp:
        assert send_all(scp.port, _files(1)) == [StoreStatus.OUT_OF_RESOURCES]


def test_a_port_in_use_is_named(node: StorageScp, store: InstanceStore, sqlite_ledger: Ledger) -> None:
    with pytest.raises(ScpSettingsError, match=r"dicom\.port"):
        StorageScp(ScpSettings(port=node.port), Intake(store, sqlite_ledger)).start()
    with pytest.raises(ScpSettingsError, match="allowed_addresses"):
        StorageScp(ScpSettings(port=0, allowed_addresses=("nonsense",)), Intake(store, sqlite_ledger))


# -- peers that misbehave --------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00" + struct.pack(">L", 0xFFFFFFFF),
        b"\x01\x00\x00\x00\x00\x40" + bytes(64),
        b"\x04\x00\x00\x00\x00\x10" + bytes(16),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_garbage_ends_one_connection_only(node: StorageScp, junk: bytes) -> None:
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as peer:
        peer.sendall(junk)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(4096):
            pass
    assert send_all(node.port, _files(1)) == [0]


def test_silent_clients_block_nobody(node: StorageScp) -> None:
    silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(10)]
    assert send_all(node.port, _files(2)) == [0, 0]
    for peer in silent:
        peer.close()


def test_an_abort_inside_a_store_keeps_what_was_acknowledged(
    node: StorageScp, store: InstanceStore, sqlite_ledger: Ledger, ended: list[str]
) -> None:
    files = _files(3, size=128)
    assoc = associate(node.port, contexts_of(files))
    assert store_first(assoc, files) == 0
    _send_half_a_store(assoc)
    assoc.abort()
    wait_for(lambda: ended, what="the end of the association", interval_s=0.01)
    index_received(sqlite_ledger, store, SITE_KEY)
    (evidence,) = sqlite_ledger.collecting(datetime.now(UTC))
    assert (evidence.indexed_count, evidence.open_associations, evidence.was_aborted) == (1, 0, True)
    assert list((store.root / "incoming").iterdir()) == []


def test_a_connection_that_breaks_counts_as_aborted(
    node: StorageScp, store: InstanceStore, sqlite_ledger: Ledger, ended: list[str]
) -> None:
    files = _files(1, size=128)
    assoc = associate(node.port, contexts_of(files))
    assert store_first(assoc, files) == 0
    _send_half_a_store(assoc)
    assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: ended, what="the end of the association", interval_s=0.01)
    index_received(sqlite_ledger, store, SITE_KEY)
    (evidence,) = sqlite_ledger.collecting(datetime.now(UTC))
    assert (evidence.open_associations, evidence.was_aborted) == (0, True)
    assoc.kill()


def test_a_peer_that_stops_inside_a_pdu_is_dropped(
    store: InstanceStore, sqlite_ledger: Ledger, ended: list[str]
) -> None:
    settings = ScpSettings(port=0, network_timeout_s=1.0)
    with _running(store, sqlite_ledger, settings=settings, on_association_released=ended.append) as scp:
        files = _files(1, size=128)
        assoc = associate(scp.port, contexts_of(files))
        assert store_first(assoc, files) == 0
        _send_half_a_store(assoc)
        wait_for(lambda: ended, what="the end of the association", timeout_s=15, interval_s=0.05)
        assoc.kill()
        assert send_all(scp.port, files) == [0]


def store_first(assoc: object, files: list[PartTen]) -> int:
    return store(assoc, files[0])  # type: ignore[arg-type]


def _send_half_a_store(assoc: object) -> None:
    """Write a P-DATA-TF header that announces more than follows."""
    body = struct.pack(">LBB", 50_000, 1, 0) + bytes(1000)
    assoc.dul.socket.socket.sendall(b"\x04\x00" + struct.pack(">L", 50_004) + body)  # type: ignore[attr-defined]


# -- TLS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture
def secure(store: InstanceStore, sqlite_ledger: Ledger, authority: Authority) -> Iterator[StorageScp]:
    settings = ScpSettings(port=0, tls=authority.issue("server"), handshake_timeout_s=5)
    with _running(store, sqlite_ledger, settings=settings) as scp:
        yield scp


def test_both_sides_prove_who_they_are(secure: StorageScp, authority: Authority) -> None:
    files = _files(3, size=256)
    assert send_all(secure.port, files, tls=make_client_context(authority.issue("client"))) == [0, 0, 0]


def test_a_stranger_is_kept_out(secure: StorageScp, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("client", trusts=authority)
    assert not associate(secure.port, [CT], tls=make_client_context(stranger)).is_established
    assert not associate(secure.port, [CT]).is_established


def test_a_silent_client_does_not_hold_up_the_handshake_of_others(
    secure: StorageScp, authority: Authority
) -> None:
    silent = [socket.create_connection(("127.0.0.1", secure.port)) for _ in range(3)]
    assert send_all(secure.port, _files(1), tls=make_client_context(authority.issue("client"))) == [0]
    for peer in silent:
        peer.close()


def test_a_missing_certificate_stops_the_start(
    store: InstanceStore, sqlite_ledger: Ledger, authority: Authority
) -> None:
    files = authority.issue("server")
    files.key_file.unlink()
    with pytest.raises(TlsSettingsError):
        StorageScp(ScpSettings(port=0, tls=files), Intake(store, sqlite_ledger)).start()


# -- storage commitment ----------------------------------------------------------------------


def test_a_source_gets_its_commitment_report(store: InstanceStore, sqlite_ledger: Ledger) -> None:
    reports: list[tuple[int, Dataset]] = []

    def take(event: evt.Event) -> tuple[int, None]:
        reports.append((event.event_type, event.event_information))
        return 0, None

    source = AE(ae_title="SCANNER")
    source.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    listener = source.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)]
    )
    peers = {"SCANNER": CommitmentPeer(host="127.0.0.1", port=listener.server_address[1])}
    kept, missing = make_image(number=1), make_image(number=2)
    with _running(store, sqlite_ledger, commitment_peers=peers) as scp:
        send_all(scp.port, [encode_pieces(kept)])
        assert _ask_for_commitment(scp.port, [kept], "1.2.3") == 0
        wait_for(lambda: len(reports) == 1, what="the first report", interval_s=0.05)
        assert _ask_for_commitment(scp.port, [kept, missing], "1.2.4") == 0
        wait_for(lambda: len(reports) == 2, what="the second report", interval_s=0.05)
        assert _ask_for_commitment(scp.port, [kept], "1.2.5", calling="UNKNOWN") == 0x0124
    listener.shutdown()
    (first_type, first), (second_type, second) = reports
    assert (first_type, first.TransactionUID, "FailedSOPSequence" in first) == (1, "1.2.3", False)
    assert (second_type, second.TransactionUID) == (2, "1.2.4")
    assert [item.ReferencedSOPInstanceUID for item in second.ReferencedSOPSequence] == [kept.SOPInstanceUID]
    (failed,) = second.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (missing.SOPInstanceUID, 0x0112)


def _ask_for_commitment(port: int, images: list[Dataset], transaction: str, calling: str = "SCANNER") -> int:
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = [reference(image) for image in images]
    with association(port, [(StorageCommitmentPushModel, "1.2.840.10008.1.2")], calling=calling) as assoc:
        status, _ = assoc.send_n_action(
            request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    return int(status.Status)


@pytest.mark.parametrize("with_role", [True, False])
def test_reports_of_a_pacs_reach_the_callback(
    store: InstanceStore, sqlite_ledger: Ledger, with_role: bool
) -> None:
    reports: list[object] = []

    def note(*report: object) -> None:
        reports.append(report)

    report = Dataset()
    report.TransactionUID = "1.2.3"
    report.ReferencedSOPSequence = [reference(make_image(number=1))]
    failed = reference(make_image(number=2))
    failed.FailureReason = 0x0112
    report.FailedSOPSequence = [failed]
    with _running(store, sqlite_ledger, on_commitment_report=note) as scp:
        pacs = AE(ae_title="PACS")
        pacs.add_requested_context(StorageCommitmentPushModel)
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if with_role else []
        assoc = pacs.associate("127.0.0.1", scp.port, ae_title="PREREAD", ext_neg=roles)
        assert assoc.is_established
        if not with_role:
            # pynetdicom as SCU refuses to send without the role; real peers do send.
            for context in assoc.accepted_contexts:
                context._as_scp = True
        status, _ = assoc.send_n_event_report(
            report, 2, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        assoc.release()
    assert status.Status == 0
    assert reports == [
        ("1.2.3", (make_image(number=1).SOPInstanceUID,), ((make_image(number=2).SOPInstanceUID, 0x0112),))
    ]


# -- other toolkits, other processes ---------------------------------------------------------


@pytest.mark.skipif(not STORESCU.exists(), reason="DCMTK is not installed (apt-get install dcmtk)")
def test_dcmtk_sends(node: StorageScp, sqlite_ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"{number}.dcm").write_bytes(encode_file(make_image(number=number, size=64)))
    command = [
        str(STORESCU),
        "-aet",
        "DCMTK",
        "-aec",
        "PREREAD",
        "+sd",
        "127.0.0.1",
        str(node.port),
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    rows = sqlite_ledger.unindexed(10)
    assert len(rows) == 5
    assert {row.source_ae for row in rows} == {"DCMTK"}


def test_eight_senders_at_once(node: StorageScp, store: InstanceStore, sqlite_ledger: Ledger) -> None:
    statuses: list[int] = []

    def send(sender: int) -> None:
        files = [encode_pieces(make_image(f"s{sender}", number=number, size=64)) for number in range(10)]
        statuses.extend(send_all(node.port, files))

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 80
    assert len(_stored_data_sets(store, sqlite_ledger)) == 80


@pytest.mark.slow
def test_receiver_processes_share_a_port(
    store: InstanceStore, sqlite_ledger: Ledger, ended: list[str]
) -> None:
    settings = ScpSettings(port=0, receiver_processes=2)
    with _running(store, sqlite_ledger, settings=settings, on_association_released=ended.append) as scp:
        for number in range(6):
            assert send_all(scp.port, [encode_pieces(make_image(number=number))]) == [0]
        wait_for(lambda: len(ended) == 6, what="six ends", interval_s=0.05)
        assert len(sqlite_ledger.unindexed(10)) == 6
        pool = scp._receiver
        assert isinstance(pool, ReceiverPool)
        victim = pool.process_ids[0]
        pool.kill_process(victim)
        wait_for(lambda: len(pool.process_ids) == 2 and victim not in pool.process_ids, what="a new process")
        for number in range(6):
            assert send_all(scp.port, [encode_pieces(make_image(number=number))]) == [0]
