from __future__ import annotations

import base64
import io
import json
import socket
import urllib.request

import pydicom
import pytest
from deliveries.contract import DestinationContract, Rig, deliver_until_finished
from deliveries.http_peer import Answer, http_peer
from deliveries.results import SEGMENTATION, make_item, make_items
from fakes import FakeClock, FakeDeliveryLedger
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from stack.servers import orthanc_server, require_orthanc

from integration import stow
from integration.connections import BasicAuth, BearerAuth
from integration.delivery import DestinationUnavailableError, ReceiptState, deliver_run
from integration.destinations import StowSettings, build_destination
from integration.stow import parse_store_answer, split_batches
from orthanc.companions import OrthancServer, OrthancSettings


def build(url, clock, **changes):
    settings = StowSettings(name="pacs", url=url, timeout_s=changes.pop("timeout_s", 20), **changes)
    return build_destination(settings, clock=clock, new_uid=lambda: "2.25.1")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(clock):
    return FakeDeliveryLedger(clock)


@pytest.fixture
def items(tmp_path):
    return make_items(tmp_path / "run")


def sequence(tag, items, reason=None, reason_tag="00081197"):
    value = [
        {
            "00081150": {"vr": "UI", "Value": [item.sop_class_uid]},
            "00081155": {"vr": "UI", "Value": [item.object_uid]},
            **({reason_tag: {"vr": "US", "Value": [reason]}} if reason is not None else {}),
        }
        for item in items
    ]
    return {tag: {"vr": "SQ", "Value": value}}


def stored(items, warning=None):
    return sequence("00081199", items, warning, "00081196")


def failed(items, reason):
    return sequence("00081198", items, reason)


class Archive:
    """A script that stores everything and answers queries; the first answers to POST can be set."""

    def __init__(self, items, *first_answers):
        self.items = {item.object_uid: item for item in items}
        self.first_answers = list(first_answers)
        self.kept: list[str] = []
        self.shows = True

    def __call__(self, call):
        if call.method == "GET":
            uid = call.path.partition("SOPInstanceUID=")[2]
            found = [{"00080018": {"vr": "UI", "Value": [uid]}}] if self.shows and uid in self.kept else []
            return Answer(200, json.dumps(found).encode(), {"Content-Type": "application/dicom+json"})
        if self.first_answers:
            answer = self.first_answers.pop(0)
            if answer is not None:
                return answer
        bodies = call.parts
        taken = [item for item in self.items.values() if item.path.read_bytes() in bodies]
        self.kept += [item.object_uid for item in taken]
        return Answer(200, json.dumps(stored(taken)).encode())


def answer(status, *modules):
    return Answer(
        status, json.dumps({key: value for module in modules for key, value in module.items()}).encode()
    )


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    with orthanc_server(OrthancSettings(folder=tmp_path_factory.mktemp("orthanc"))) as server:
        yield server


@pytest.mark.orthanc
class TestOrthancKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, orthanc, tmp_path, clock):
        items = make_items(tmp_path / "run")
        auth = BasicAuth(type="basic", user=orthanc.user, password=SecretStr(orthanc.password))

        def count_kept():
            return {
                item.object_uid: len(
                    orthanc.request(
                        "POST",
                        "/tools/find",
                        {"Level": "Instance", "Query": {"SOPInstanceUID": item.object_uid}},
                    )
                )
                for item in items
            }

        return Rig(build(orthanc.dicomweb_url, clock, auth=auth), items, count_kept)

    def test_the_proof_is_a_query(self, rig, ledger, clock):
        deliver_until_finished(rig, ledger, clock)
        assert all(row.receipt.endswith("found by QIDO-RS") for row in ledger.rows.values())

    def test_the_archive_keeps_the_very_bytes_of_the_pixels(self, rig, ledger, clock, orthanc):
        deliver_until_finished(rig, ledger, clock)
        item = rig.items[0]
        found = orthanc.request(
            "POST", "/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": item.object_uid}}
        )
        request = urllib.request.Request(f"{orthanc.url}/instances/{found[0]}/file")
        login = base64.b64encode(f"{orthanc.user}:{orthanc.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request) as response:
            kept = pydicom.dcmread(io.BytesIO(response.read()))
        assert kept == pydicom.dcmread(item.path)

    def test_a_wrong_password_waits_for_the_right_one(self, rig, orthanc, ledger, clock):
        auth = BasicAuth(type="basic", user=orthanc.user, password=SecretStr("wrong"))
        outcome = deliver_run(build(orthanc.dicomweb_url, clock, auth=auth), rig.items, ledger, clock)
        assert len(outcome.pending) == 3
        assert "HTTP 401" in outcome.reason
        clock.advance(outcome.retry_after_s)
        assert len(deliver_run(rig.destination, rig.items, ledger, clock).confirmed) == 3


@pytest.mark.orthanc
def test_an_archive_that_is_down_at_first_gets_everything_once(tmp_path, items, ledger, clock):
    require_orthanc()
    server = OrthancServer(OrthancSettings(folder=tmp_path / "orthanc"))
    auth = BasicAuth(type="basic", user=server.user, password=SecretStr(server.password))
    destination = build(server.dicomweb_url, clock, auth=auth, timeout_s=3)
    for _ in range(3):
        outcome = deliver_run(destination, items, ledger, clock)
        assert len(outcome.pending) == 3
        assert "cannot connect" in outcome.reason
        clock.advance(outcome.retry_after_s)
    server.start()
    try:
        assert len(deliver_run(destination, items, ledger, clock).confirmed) == 3
        assert server.get("/statistics")["CountInstances"] == 3
    finally:
        server.stop()


class TestArchiveInTestKeepsTheContract(DestinationContract):
    @pytest.fixture
    def rig(self, tmp_path, clock, items):
        archive = Archive(items)
        with http_peer(archive) as (_, url):
            yield Rig(
                build(f"{url}/dicom-web", clock),
                items,
                lambda: {uid: min(1, archive.kept.count(uid)) for uid in archive.items},
            )


def test_after_a_503_every_byte_is_sent_again(tmp_path, ledger, clock):
    items = [make_item(tmp_path / "run", "segmentation", SEGMENTATION, "1.2.3", size=1500)]
    archive = Archive(items, Answer(503, b"busy", {"Retry-After": "7"}))
    with http_peer(archive) as (peer, url):
        destination = build(url, clock)
        first = deliver_run(destination, items, ledger, clock)
        assert (first.pending, first.retry_after_s) == ((items[0].object_uid,), 7)
        clock.advance(7)
        assert deliver_run(destination, items, ledger, clock).is_finished
        bodies = [call.parts for call in peer.posts()]
    assert bodies == [[items[0].path.read_bytes()]] * 2
    assert len(bodies[0][0]) > 2_000_000


def test_a_request_says_what_it_is(items, ledger, clock):
    auth = BearerAuth(type="bearer", token=SecretStr("token-1"))
    with http_peer(Archive(items)) as (peer, url):
        deliver_run(build(f"{url}/dicom-web/", clock, auth=auth), items, ledger, clock)
        (post,) = peer.posts()
        queries = [call for call in peer.calls if call.method == "GET"]
    assert post.path == "/dicom-web/studies"
    assert post.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert post.headers["accept"] == "application/dicom+json"
    assert "transfer-encoding" not in post.headers
    assert int(post.headers["content-length"]) == len(post.body)
    assert {call.headers["authorization"] for call in [post, *queries]} == {"Bearer token-1"}
    assert len(queries) == 3


def test_a_200_with_a_failure_inside_is_no_success(items, ledger, clock):
    archive = Archive(items, answer(200, stored(items[:2]), failed(items[2:], 0xA700)))
    archive.kept += [item.object_uid for item in items[:2]]
    with http_peer(archive) as (_, url):
        outcome = deliver_run(build(url, clock), items, ledger, clock)
    assert outcome.pending == (items[2].object_uid,)
    assert "0xA700: out of resources" in outcome.reason


def test_a_200_that_forgets_an_object_is_no_success_for_it(items, ledger, clock):
    archive = Archive(items, answer(200, stored(items[:2])))
    archive.kept += [item.object_uid for item in items[:2]]
    with http_peer(archive) as (_, url):
        outcome = deliver_run(build(url, clock), items, ledger, clock)
    assert outcome.pending == (items[2].object_uid,)
    assert "does not name this object" in outcome.reason


def test_a_200_without_words_is_believed_only_when_the_query_shows_the_objects(items, ledger, clock):
    archive = Archive(items, Answer(200, b"<NativeDicomModel/>"))
    with http_peer(archive) as (peer, url):
        destination = build(url, clock, confirm_timeout_s=60)
        assert len(deliver_run(destination, items, ledger, clock).pending) == 3
        clock.advance(60)
        lost = deliver_run(destination, items, ledger, clock)
        assert "not found by QIDO-RS" in lost.reason
        clock.advance(lost.retry_after_s)
        assert len(deliver_run(destination, items, ledger, clock).confirmed) == 3
        assert len(peer.posts()) == 2


def test_a_conflict_is_final_object_by_object(items, ledger, clock):
    archive = Archive(items, answer(409, failed(items[:1], 0xC000), failed(items, 0x0122)))
    with http_peer(archive) as (_, url):
        outcome = deliver_run(build(url, clock), items, ledger, clock)
    assert len(outcome.failed) == 3
    assert all("0x0122: SOP Class not supported" in row.error for row in ledger.rows.values())


def test_a_conflict_over_what_is_already_there_is_success(items, ledger, clock):
    """The archive stored the objects, the answer was lost, and the second attempt is refused."""
    archive = Archive(items, answer(409, failed(items, 0xC000)))
    archive.kept += [item.object_uid for item in items]
    with http_peer(archive) as (_, url):
        assert len(deliver_run(build(url, clock), items, ledger, clock).confirmed) == 3
    assert all("already stored" in row.receipt for row in ledger.rows.values())


def test_one_bad_object_does_not_take_the_others_with_it(items, ledger, clock):
    archive = Archive(items, Answer(400, b"bad"), None, Answer(400, b"bad"), None)
    with http_peer(archive) as (peer, url):
        outcome = deliver_run(build(url, clock), items, ledger, clock)
        assert [len(call.parts) for call in peer.posts()] == [3, 1, 1, 1]
    assert outcome.failed == (items[1].object_uid,)
    assert set(outcome.confirmed) == {items[0].object_uid, items[2].object_uid}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Answer(200, b'{"00081199"', missing_bytes=500), "connection broke"),
        (Answer(is_silent=True), "no answer in time"),
        (Answer(302, b"", {"Location": "http://127.0.0.1:1/"}), "redirect"),
        (Answer(500, b"Patient Synthetic^Case not found"), "HTTP 500, server error"),
        (Answer(404, b""), "check the address"),
    ],
)
def test_a_broken_answer_delays_and_loses_nothing(items, ledger, clock, broken, reason):
    archive = Archive(items, broken)
    with http_peer(archive) as (_, url):
        destination = build(url, clock, timeout_s=0.5)
        outcome = deliver_run(destination, items, ledger, clock)
        assert len(outcome.pending) == 3
        assert reason in outcome.reason
        assert "Synthetic" not in outcome.reason
        assert "127.0.0.1" not in outcome.reason
        clock.advance(outcome.retry_after_s)
        assert len(deliver_run(destination, items, ledger, clock).confirmed) == 3


def test_a_closed_port_is_unavailable(items, clock):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(DestinationUnavailableError, match="cannot connect"):
        list(build(f"http://127.0.0.1:{port}", clock).send(items))


def test_an_archive_without_queries_is_taken_at_its_word(items, ledger, clock):
    archive = Archive(items)
    with http_peer(archive) as (peer, url):
        destination = build(url, clock, is_confirmed_by_query=False)
        assert len(deliver_run(destination, items, ledger, clock).confirmed) == 3
        assert not [call for call in peer.calls if call.method == "GET"]
    assert all("not confirmed by query" in row.receipt for row in ledger.rows.values())


def test_a_warning_is_stored_and_said(items, clock):
    with http_peer(lambda call: answer(202, stored(items, 0xB000))) as (_, url):
        receipts = list(build(url, clock).send(items))
    assert {receipt.state for receipt in receipts} == {ReceiptState.SENT}
    assert "warning 0xB000" in receipts[0].detail


def test_requests_stay_small(tmp_path, clock, monkeypatch):
    items = make_items(tmp_path)
    size = max(item.path.stat().st_size for item in items)
    assert [len(batch) for batch in split_batches(items, size * 2)] == [2, 1]
    assert [len(batch) for batch in split_batches(items, 1)] == [1, 1, 1]
    monkeypatch.setattr(stow, "MAX_REQUEST_BYTES", size * 2)
    with http_peer(Archive(items)) as (peer, url):
        assert len(list(build(url, clock).send(items))) == 3
        assert [len(call.parts) for call in peer.posts()] == [2, 1]


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["00081198", "00081199", "Value", "00081155"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_answer_can_be_read(body):
    parse_store_answer(body)
