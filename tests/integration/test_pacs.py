from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from deliveries.contract import DestinationContract, Rig, deliver_until_finished
from deliveries.dimse_peer import ABORT, AE_TITLE, SILENT, DimsePeer, commit, dimse_peer
from deliveries.http_peer import Answer, http_peer
from deliveries.ledgers import note_run
from deliveries.results import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE, SEGMENTATION, make_items
from fakes import FakeClock, FakeDeliveryLedger
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel
from stack.servers import orthanc_server
from stack.waiting import wait_for

from dicom_node.ledger import Ledger
from integration import connections
from integration.commitment import CommitmentReport, CommitmentRequest, record_commitment
from integration.connections import BasicAuth, HttpEndpoint
from integration.delivery import DestinationUnavailableError, deliver_run
from integration.destinations import CStoreSettings, build_destination
from integration.pacs import expected_instances, read_commitment_report
from integration.sources import FindQuery, QidoQuery, SourceSettings
from orthanc.companions import OrthancSettings

#: pynetdicom leaves the socket of a refused connection to the garbage collector.
LEAVES_SOCKETS = "ignore::pytest.PytestUnraisableExceptionWarning"
SOP_CLASSES = (SEGMENTATION, COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE)


def build(port, clock, **changes):
    values = {"ae_title": AE_TITLE, "timeout_s": 10, "commitment_linger_s": 0, **changes}
    settings = CStoreSettings(name="pacs", host="127.0.0.1", port=port, **values)
    return build_destination(settings, clock=clock, new_uid=generate_uid)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(clock):
    return FakeDeliveryLedger(clock)


@pytest.fixture
def items(tmp_path):
    return make_items(tmp_path / "run")


@pytest.fixture
def peer():
    return DimsePeer(SOP_CLASSES)


# -- C-STORE --------------------------------------------------------------------------------------


class TestPacsWithoutCommitmentKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, clock, items, peer):
        with dimse_peer(peer) as port:
            yield Rig(
                build(port, clock), items, lambda: {uid: min(1, copies) for uid, copies in peer.kept.items()}
            )


class TestPacsThatReportsOnTheSameAssociationKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, clock, items, peer):
        peer.report = commit
        with dimse_peer(peer) as port:
            yield Rig(
                build(port, clock, commitment=True, commitment_linger_s=10),
                items,
                lambda: {uid: min(1, copies) for uid, copies in peer.kept.items()},
            )


def test_one_association_carries_the_bytes_of_the_files(items, ledger, clock, peer):
    with dimse_peer(peer) as port:
        outcome = deliver_run(build(port, clock), items, ledger, clock)
    assert len(outcome.confirmed) == 3
    assert peer.associations == 1
    for item in items:
        assert item.path.read_bytes().endswith(peer.encoded[item.object_uid])
        assert len(peer.encoded[item.object_uid]) > 4096
    receipts = {row.receipt for row in ledger.rows.values()}
    assert receipts == {"accepted by C-STORE status 0x0000: success; storage commitment not configured"}


def test_out_of_resources_is_sent_again(items, ledger, clock, peer):
    peer.statuses = [0xA700, 0x0000, 0xA700]
    with dimse_peer(peer) as port:
        destination = build(port, clock)
        outcome = deliver_run(destination, items, ledger, clock)
        assert (len(outcome.confirmed), len(outcome.pending)) == (1, 2)
        assert "0xA700: out of resources" in outcome.reason
        clock.advance(outcome.retry_after_s)
        assert len(deliver_run(destination, items, ledger, clock).confirmed) == 3
    assert set(peer.kept.values()) == {1}


def test_a_warning_is_stored_and_said(items, ledger, clock, peer):
    peer.statuses = [0xB000, 0xB006, 0xB007]
    with dimse_peer(peer) as port:
        assert len(deliver_run(build(port, clock), items, ledger, clock).confirmed) == 3
    assert "0xB000: stored, data elements coerced" in " ".join(row.receipt for row in ledger.rows.values())


def test_another_status_is_final_for_its_object(items, ledger, clock, peer):
    peer.statuses = [0xC123]
    with dimse_peer(peer) as port:
        outcome = deliver_run(build(port, clock), items, ledger, clock)
    assert (len(outcome.failed), len(outcome.confirmed)) == (1, 2)
    assert "0xC123: cannot understand" in outcome.reason


@pytest.mark.parametrize(("status", "timeout_s"), [(ABORT, 10), (SILENT, 1)])
def test_an_abort_or_silence_delays_and_keeps_what_was_taken(items, ledger, clock, peer, status, timeout_s):
    peer.statuses = [0x0000, status]
    with dimse_peer(peer) as port:
        outcome = deliver_run(build(port, clock, timeout_s=timeout_s), items, ledger, clock)
        assert (len(outcome.confirmed), len(outcome.pending)) == (1, 2)
        clock.advance(outcome.retry_after_s)
        assert len(deliver_run(build(port, clock), items, ledger, clock).confirmed) == 3
    assert set(peer.kept.values()) == {1}


@pytest.mark.parametrize("sop_classes", [(COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE), ()])
def test_a_refused_sop_class_is_final_and_named(items, ledger, clock, sop_classes):
    peer = DimsePeer(sop_classes)
    with dimse_peer(peer) as port:
        outcome = deliver_run(build(port, clock), items, ledger, clock)
    assert (len(outcome.confirmed), len(outcome.failed)) == (len(sop_classes), 3 - len(sop_classes))
    error = ledger.rows[items[0].object_uid, "pacs"].error
    assert "does not take Segmentation Storage in Explicit VR Little Endian" in error


@pytest.mark.parametrize(("called", "calling"), [("OTHER", ()), (AE_TITLE, ("SOMEBODY",))])
def test_a_rejected_association_waits_for_the_administrator(items, ledger, clock, called, calling):
    with dimse_peer(DimsePeer(SOP_CLASSES, takes_calling_ae_titles=calling)) as port:
        outcome = deliver_run(build(port, clock, ae_title=called), items, ledger, clock)
    assert len(outcome.pending) == 3
    assert "rejected" in outcome.reason
    assert "AE title" in outcome.reason


@pytest.mark.filterwarnings(LEAVES_SOCKETS)
def test_a_pacs_that_is_down_at_first_gets_everything_once(items, ledger, clock, peer):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed_port = listener.getsockname()[1]
    outcome = deliver_run(build(closed_port, clock), items, ledger, clock)
    assert len(outcome.pending) == 3
    assert "DIMSE" in outcome.reason
    clock.advance(outcome.retry_after_s)
    with dimse_peer(peer) as port:
        assert len(deliver_run(build(port, clock), items, ledger, clock).confirmed) == 3
    assert set(peer.kept.values()) == {1}


def test_a_peer_that_accepts_tcp_and_says_nothing_is_given_up(items, clock):
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(DestinationUnavailableError):
        list(build(listener.getsockname()[1], clock, timeout_s=0.5).send(items))


def test_more_kinds_of_objects_than_an_association_can_carry(items, ledger, clock, peer, monkeypatch):
    monkeypatch.setattr("integration.cstore.MAX_PRESENTATION_CONTEXTS", 2)
    with dimse_peer(peer) as port:
        assert len(deliver_run(build(port, clock), items, ledger, clock).confirmed) == 3
    assert peer.associations == 2


# -- storage commitment ---------------------------------------------------------------------------


def test_objects_stay_sent_until_the_report_even_over_a_restart(items, clock, peer, tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger.connect(url, clock=clock)
    ledger.migrate()
    note_run(ledger, items, clock())
    with dimse_peer(peer) as port:
        assert len(deliver_run(build(port, clock, commitment=True), items, ledger, clock).pending) == 3
    ledger.close()

    ledger = Ledger.connect(url, clock=clock)
    report = CommitmentReport(
        transaction_uid=str(peer.requests[0].TransactionUID),
        committed=tuple(item.object_uid for item in items[:2]),
        failed=((items[2].object_uid, 0x0112),),
    )
    assert record_commitment(report, ["pacs"], ledger, clock) == 3
    assert record_commitment(report, ["pacs"], ledger, clock) == 0, "a report sent twice changes nothing"
    with dimse_peer(peer) as port:
        outcome = deliver_run(build(port, clock, commitment=True), items, ledger, clock)
    assert set(outcome.confirmed) == {items[0].object_uid, items[1].object_uid}
    assert peer.kept == {items[0].object_uid: 1, items[1].object_uid: 1, items[2].object_uid: 2}
    assert len(peer.requests) == 2, "what was not kept is sent and asked for again"
    ledger.close()


def test_a_report_that_comes_before_the_attempt_ends_counts(items, clock, ledger, peer):
    """The transaction is on record before it is asked, so the listening side can match it at once."""
    reported = threading.Event()

    def report_elsewhere(association, request):
        report = CommitmentReport(
            transaction_uid=str(request.TransactionUID), committed=tuple(item.object_uid for item in items)
        )
        assert record_commitment(report, ["pacs"], ledger, clock) == 3
        reported.set()

    peer.report = report_elsewhere
    with dimse_peer(peer) as port:
        destination = build(port, clock, commitment=True, commitment_linger_s=1)
        assert len(deliver_run(destination, items, ledger, clock).confirmed) == 3
    assert reported.is_set()


def test_an_overdue_report_is_asked_for_again_and_either_answer_counts(items, ledger, clock, peer):
    with dimse_peer(peer) as port:
        destination = build(port, clock, commitment=True, commitment_timeout_s=60)
        deliver_run(destination, items, ledger, clock)
        clock.advance(59)
        deliver_run(destination, items, ledger, clock)
        assert len(peer.requests) == 1
        clock.advance(1)
        deliver_run(destination, items, ledger, clock)
    first, second = (str(request.TransactionUID) for request in peer.requests)
    assert first != second
    assert set(peer.kept.values()) == {1}
    late = CommitmentReport(transaction_uid=first, committed=tuple(item.object_uid for item in items))
    assert record_commitment(late, ["pacs"], ledger, clock) == 3


@pytest.mark.parametrize(
    ("has_commitment", "status", "reason"),
    [(False, 0x0000, "does not offer storage commitment"), (True, 0x0110, "answered 0x0110")],
)
def test_a_pacs_that_cannot_be_asked_leaves_objects_sent(
    items, ledger, clock, has_commitment, status, reason
):
    peer = DimsePeer(SOP_CLASSES, has_commitment=has_commitment, commitment_status=status)
    with dimse_peer(peer) as port:
        outcome = deliver_run(build(port, clock, commitment=True), items, ledger, clock)
    assert len(outcome.pending) == 3
    assert reason in outcome.reason
    assert {row.state for row in ledger.rows.values()} == {"sent"}


def test_a_refusal_to_keep_is_final_where_asking_again_is_useless(items, ledger, clock, peer):
    bad = items[0].object_uid
    peer.report = lambda association, request: commit(association, request, failing=[bad], reason=0x0122)
    with dimse_peer(peer) as port:
        destination = build(port, clock, commitment=True, commitment_linger_s=10)
        outcome = deliver_run(destination, items, ledger, clock)
    assert (outcome.failed, len(outcome.confirmed)) == ((bad,), 2)
    assert "0x0122" in outcome.reason


def test_a_forged_report_changes_nothing(items, ledger, clock, peer):
    with dimse_peer(peer) as port:
        deliver_run(build(port, clock, commitment=True), items, ledger, clock)
    before = dict(ledger.rows)
    uids = tuple(item.object_uid for item in items)
    transaction_uid = str(peer.requests[0].TransactionUID)
    assert (
        record_commitment(CommitmentReport(transaction_uid="2.25.1", committed=uids), ["pacs"], ledger, clock)
        == 0
    )
    stray = CommitmentReport(transaction_uid=transaction_uid, committed=("1.2.3",))
    assert record_commitment(stray, ["pacs"], ledger, clock) == 0
    elsewhere = CommitmentReport(transaction_uid=transaction_uid, committed=uids)
    assert record_commitment(elsewhere, ["other"], ledger, clock) == 0
    assert ledger.rows == before


@given(
    uids=st.lists(st.from_regex(r"2\.25\.[1-9][0-9]{0,30}", fullmatch=True), max_size=12),
    at=st.datetimes(timezones=st.just(FakeClock()().tzinfo)),
)
def test_what_was_asked_survives_in_the_receipt(uids, at):
    request = CommitmentRequest()
    for uid in uids:
        request = request.ask(uid, at)
    assert CommitmentRequest.from_detail(f"C-STORE status 0x0000; {request.to_detail()}") == request
    assert request.transactions == tuple(uids[-8:])


@pytest.fixture(scope="module")
def report_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory, report_port):
    settings = OrthancSettings(
        folder=tmp_path_factory.mktemp("orthanc"), preread_dicom_port=report_port, preread_ae_title="PREREAD"
    )
    with orthanc_server(settings) as server:
        yield server


@contextlib.contextmanager
def listening(port, ledger, clock):
    """The node's listening side in small: what dicom_node.scp does with reports."""
    entity = AE(ae_title="PREREAD")
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)

    def receive(event):
        record_commitment(read_commitment_report(event.event_information), ["pacs"], ledger, clock)
        return 0x0000, None

    handlers = [(evt.EVT_N_EVENT_REPORT, receive)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield
    finally:
        server.shutdown()


@pytest.mark.orthanc
class TestOrthancWithCommitmentKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, orthanc, clock, ledger, items, report_port):
        destination = build(orthanc.dicom_port, clock, ae_title=orthanc.ae_title, commitment=True)

        def count_kept():
            query = "/tools/find"
            return {
                item.object_uid: len(
                    orthanc.request(
                        "POST", query, {"Level": "Instance", "Query": {"SOPInstanceUID": item.object_uid}}
                    )
                )
                for item in items
            }

        with listening(report_port, ledger, clock):
            yield Rig(_Patient(destination, ledger), items, count_kept)

    def test_the_receipt_names_the_report(self, rig, ledger, clock):
        deliver_until_finished(rig, ledger, clock)
        assert {row.receipt.split(",")[0] for row in ledger.rows.values()} == {"storage commitment reported"}


class _Patient:
    """Waits, after each question, for the report to arrive on its own association."""

    def __init__(self, destination, ledger):
        self._destination, self._ledger, self.profile = destination, ledger, destination.profile

    def send(self, items):
        return self._destination.send(items)

    def confirm(self, awaiting):
        yield from self._destination.confirm(awaiting)
        uids = {entry.item.object_uid for entry in awaiting}
        wait_for(
            lambda: all(
                row.state == "confirmed" for row in self._ledger.rows.values() if row.object_uid in uids
            ),
            what="Orthanc's storage commitment report",
            timeout_s=20,
        )


# -- how large a study is at its source -----------------------------------------------------------


def source(query):
    return SourceSettings(ae_title="SCANNER", query=query)


def find_query(port, **changes):
    values = {"ae_title": AE_TITLE, "timeout_s": 5, **changes}
    return FindQuery(peer={"host": "127.0.0.1", "port": port, **values})


@pytest.mark.parametrize("count", [0, 321, None])
def test_a_source_is_asked_by_c_find(count, caplog):
    with dimse_peer(DimsePeer((), study_instances=count)) as port:
        assert expected_instances(source(find_query(port)), "1.2.3") == count
    assert "1.2.3" not in caplog.text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            Answer(
                200,
                b'[{"00201208": {"vr": "IS", "Value": [42]}}]',
                {"Content-Type": "application/dicom+json"},
            ),
            42,
        ),
        (Answer(200, b'[{"00201208": {"vr": "IS"}}]', {"Content-Type": "application/dicom+json"}), None),
        (Answer(204), None),
        (Answer(200, b"[]", {"Content-Type": "application/dicom+json"}), None),
        (Answer(503), None),
        (Answer(401), None),
        (Answer(200, b"<html>login</html>", {"Content-Type": "text/html"}), None),
        (Answer(200, b'{"not": "a list"}', {"Content-Type": "application/dicom+json"}), None),
        (Answer(is_silent=True), None),
    ],
)
def test_a_source_is_asked_by_qido(answer, expected):
    with http_peer(lambda call: answer) as (peer, url):
        query = QidoQuery(endpoint=HttpEndpoint(url=f"{url}/dicom-web", timeout_s=0.5))
        assert expected_instances(source(query), "1.2.3") == expected
        assert len(peer.calls) == 1, "no retries behind our back"
        assert peer.calls[0].path.startswith("/dicom-web/studies?")


@pytest.mark.filterwarnings(LEAVES_SOCKETS)
def test_an_unreachable_source_says_nothing(caplog):
    caplog.set_level("DEBUG")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert expected_instances(source(find_query(port)), "1.2.3") is None
    assert (
        expected_instances(source(QidoQuery(endpoint={"url": f"http://127.0.0.1:{port}"})), "1.2.3") is None
    )
    assert expected_instances(source(None), "1.2.3") is None
    assert "1.2.3" not in caplog.text


def test_an_unknown_host_is_unavailable(items, clock):
    settings = CStoreSettings(name="pacs", host="pacs.invalid", ae_title=AE_TITLE, timeout_s=5)
    with pytest.raises(DestinationUnavailableError):
        list(build_destination(settings, clock=clock, new_uid=generate_uid).send(items))


@pytest.mark.orthanc
def test_orthanc_says_how_large_a_study_is(orthanc, tmp_path, ledger, clock):
    study_uid = generate_uid()
    items = make_items(tmp_path, study_uid=study_uid)
    list(build(orthanc.dicom_port, clock, ae_title=orthanc.ae_title).send(items))
    auth = BasicAuth(type="basic", user=orthanc.user, password=SecretStr(orthanc.password))
    assert (
        expected_instances(source(QidoQuery(endpoint={"url": orthanc.dicomweb_url, "auth": auth})), study_uid)
        == 3
    )
    assert (
        expected_instances(source(find_query(orthanc.dicom_port, ae_title=orthanc.ae_title)), study_uid) == 3
    )


@pytest.mark.parametrize("title", ["", " " * 16, "A" * 17, "BACK\\SLASH", "NEW\nLINE"])
def test_an_ae_title_follows_its_value_representation(title):
    with pytest.raises(ValueError, match="ae_title"):
        connections.DimsePeer(host="pacs", ae_title=title)
