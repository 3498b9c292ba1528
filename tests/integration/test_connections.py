from __future__ import annotations

import json
import ssl

import pytest
from deliveries.certificates import make_certificate
from deliveries.dimse_peer import AE_TITLE, DimsePeer, dimse_peer
from deliveries.http_peer import Answer, http_peer
from deliveries.results import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE, SEGMENTATION, make_items
from fakes import FakeClock, FakeDeliveryLedger
from pydantic import SecretStr, TypeAdapter, ValidationError
from pydicom.uid import generate_uid

from integration.connections import BasicAuth, HttpEndpoint, TlsClient, parse_retry_after
from integration.delivery import DICOM_KINDS, DestinationUnavailableError, deliver_run
from integration.destinations import CStoreSettings, DestinationSettings, StowSettings, build_destination


@pytest.fixture(scope="module")
def server_files(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("server"), "localhost")


@pytest.fixture(scope="module")
def client_files(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("client"), "preread")


@pytest.fixture
def server_context(server_files, client_files):
    """A server that wants to see this node's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_files.cert_file)
    context.load_cert_chain(server_files.cert_file, server_files.key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def mutual_tls(server_files, client_files):
    return TlsClient(
        ca_file=server_files.cert_file, cert_file=client_files.cert_file, key_file=client_files.key_file
    )


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def items(tmp_path):
    return make_items(tmp_path / "run")


def deliver(settings, items, clock):
    destination = build_destination(settings, clock=clock, new_uid=generate_uid)
    return deliver_run(destination, items, FakeDeliveryLedger(clock), clock)


def test_storing_and_asking_go_over_mutual_tls(items, clock, server_context, mutual_tls):
    def archive(call):
        if call.method == "GET":
            uid = call.path.partition("SOPInstanceUID=")[2]
            body = json.dumps([{"00080018": {"vr": "UI", "Value": [uid]}}]).encode()
            return Answer(200, body, {"Content-Type": "application/dicom+json"})
        return Answer(200, b"")

    with http_peer(archive, tls=server_context) as (_, address):
        url = address.replace("127.0.0.1", "localhost")
        assert len(deliver(StowSettings(name="pacs", url=url, tls=mutual_tls), items, clock).confirmed) == 3
        stranger = deliver(StowSettings(name="pacs", url=url), items, clock)
    assert len(stranger.pending) == 3
    assert "certificates" in stranger.reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_dimse_goes_over_mutual_tls(items, clock, server_context, mutual_tls):
    peer = DimsePeer((SEGMENTATION, COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE))
    with dimse_peer(peer, tls=server_context) as port:
        values = {"name": "pacs", "host": "localhost", "port": port, "ae_title": AE_TITLE, "timeout_s": 5}
        assert len(deliver(CStoreSettings(**values, tls=mutual_tls), items, clock).confirmed) == 3
        assert len(deliver(CStoreSettings(**values, tls=TlsClient()), items, clock).pending) == 3
    assert set(peer.kept.values()) == {1}


def test_tls_files_that_do_not_fit_are_named_not_shown(server_files, client_files, tmp_path):
    for tls in (
        TlsClient(ca_file=tmp_path / "missing.pem"),
        TlsClient(cert_file=server_files.cert_file, key_file=client_files.key_file),
    ):
        with pytest.raises(DestinationUnavailableError, match="check ca_file") as caught:
            tls.build_context()
        assert str(tmp_path) not in str(caught.value)


def test_a_key_without_a_certificate_is_a_mistake(client_files):
    with pytest.raises(ValidationError, match="key_file needs cert_file"):
        TlsClient(key_file=client_files.key_file)


def test_old_tls_is_not_spoken():
    assert TlsClient().build_context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_retry_after_is_seconds_or_a_date(clock):
    assert parse_retry_after("120", clock()) == 120
    assert parse_retry_after("Fri, 02 Jan 2026 03:05:05 GMT", clock()) == 60
    assert parse_retry_after("Fri, 02 Jan 2020 03:05:05 GMT", clock()) == 0
    assert parse_retry_after("soon", clock()) is None
    assert parse_retry_after("\u0663", clock()) is None
    assert parse_retry_after(None, clock()) is None


@pytest.mark.parametrize("url", ["http://user:word@host/", "http://host/?token=1", "ftp://host/"])
def test_an_address_carries_no_secret(url):
    with pytest.raises(ValidationError):
        HttpEndpoint(url=url)


def test_secrets_do_not_print():
    auth = BasicAuth(type="basic", user="preread", password=SecretStr("sesame"))
    assert "sesame" not in repr(StowSettings(name="pacs", url="http://host/dicom-web", auth=auth))


def test_every_type_of_destination_is_told_by_its_tag(tmp_path):
    adapter = TypeAdapter(tuple[DestinationSettings, ...])
    built = adapter.validate_python(
        [
            {"type": "folder", "name": "outbox", "path": str(tmp_path)},
            {
                "type": "stow",
                "name": "pacs",
                "url": "https://pacs.example/dicom-web",
                "segmentation": "LABELMAP",
            },
            {
                "type": "cstore",
                "name": "archive",
                "host": "archive",
                "ae_title": "ARCHIVE",
                "commitment": True,
            },
            {"type": "fhir", "name": "ehr", "url": "https://ehr.example/fhir"},
        ]
    )
    profiles = [build_destination(one, clock=FakeClock(), new_uid=generate_uid).profile for one in built]
    assert [profile.name for profile in profiles] == ["outbox", "pacs", "archive", "ehr"]
    assert profiles[0].kinds == {*map(str, DICOM_KINDS), "bundle", "report"}
    assert profiles[1].segmentation == "LABELMAP"
    assert profiles[1].kinds == set(map(str, DICOM_KINDS))
    assert profiles[3].kinds == {"bundle"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "folder", "name": "Out Box", "path": "x"},
        {"type": "fhir", "name": "ehr", "url": "https://ehr.example", "kinds": ["segmentation"]},
        {"type": "stow", "name": "pacs", "url": "https://pacs.example", "kind": ["segmentation"]},
        {"type": "pigeon", "name": "pigeon"},
    ],
)
def test_a_mistake_in_a_destination_is_an_error(wrong):
    with pytest.raises(ValidationError):
        TypeAdapter(DestinationSettings).validate_python(wrong)
