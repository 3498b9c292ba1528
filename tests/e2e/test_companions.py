"""The companion servers themselves: where they listen, whom they let in, what they keep."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from stack.modality import make_study, send
from stack.servers import fhir_server, ohif_site, orthanc_server

from orthanc.companions import OrthancSettings


def status_of(url, *, method="GET", credentials=None, body=None):
    request = urllib.request.Request(url, method=method, data=body)
    if credentials:
        request.add_header("Authorization", f"Basic {credentials}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    with orthanc_server(OrthancSettings(folder=tmp_path_factory.mktemp("orthanc"))) as server:
        yield server


def addresses_of_this_machine():
    listed = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    found = [word.split("/")[0] for line in listed.splitlines() for word in line.split() if "/" in word]
    return [address for address in found if not address.startswith("127.")]


@pytest.mark.orthanc
def test_orthanc_is_reached_on_loopback_and_nowhere_else(orthanc):
    for port in (orthanc.http_port, orthanc.dicom_port):
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        for address in addresses_of_this_machine():
            with pytest.raises(OSError), socket.create_connection((address, port), timeout=2):
                pass


@pytest.mark.orthanc
def test_orthanc_lets_nobody_in_without_a_password_and_the_viewer_only_read(orthanc):
    viewer = orthanc.viewer_credentials
    assert status_of(f"{orthanc.url}/system") == 401
    assert status_of(f"{orthanc.url}/dicom-web/studies", credentials=viewer) == 200
    assert status_of(f"{orthanc.url}/dicom-web/studies", method="POST", credentials=viewer, body=b"{}") == 403
    assert status_of(f"{orthanc.url}/studies", credentials=viewer) == 403
    assert status_of(f"{orthanc.url}/tools/shutdown", method="POST", credentials=viewer, body=b"") == 403


@pytest.mark.orthanc
def test_orthanc_takes_images_from_known_senders_that_call_it_by_its_name(orthanc):
    study = make_study(90, slices=1)
    assert send(study, orthanc.dicom_port, calling="STRANGER") == [None]
    assert send(study, orthanc.dicom_port, called="WRONG") == [None]
    assert send(study, orthanc.dicom_port) == [0]


@pytest.mark.orthanc
def test_what_orthanc_holds_is_never_replaced(orthanc):
    first, second = make_study(91, slices=1), make_study(91, slices=1)
    second[0].SeriesDescription = "changed"
    assert send(first, orthanc.dicom_port) == [0]
    assert send(second, orthanc.dicom_port) == [0]

    answer = orthanc.get(f"/dicom-web/studies/{first[0].StudyInstanceUID}/series?includefield=0008103E")

    assert answer[0]["0008103E"]["Value"] == ["AX FLAIR"]


@pytest.mark.orthanc
@pytest.mark.ohif
def test_ohif_is_isolated_and_its_way_to_the_archive_is_for_reading(orthanc, tmp_path):
    with ohif_site(orthanc, tmp_path) as site:
        with urllib.request.urlopen(site, timeout=20) as page:
            assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert page.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
        assert status_of(f"{site}/dicom-web/studies") == 200
        assert status_of(f"{site}/dicom-web/studies", method="POST", body=b"{}") == 403
        with urllib.request.urlopen(f"{site}/app-config.js", timeout=20) as config:
            assert b"disableEditing: true" in config.read()


def post_json(url, body, **headers):
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/fhir+json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def patient_entry(value, **changes):
    return {
        "fullUrl": f"urn:uuid:00000000-0000-4000-8000-{value:012d}",
        "resource": {
            "resourceType": "Patient",
            "identifier": [{"system": "urn:test", "value": str(value)}],
            **changes,
        },
        "request": {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier=urn:test|{value}"},
    }


@pytest.mark.fhir_server
def test_the_fhir_server_keeps_transactions_whole_and_conditional(tmp_path):
    with fhir_server(tmp_path) as server:
        good = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [patient_entry(1), patient_entry(2)],
        }
        bad = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [patient_entry(3), patient_entry(4, birthDate="1960-13-45")],
        }

        def count():
            with urllib.request.urlopen(f"{server.url}/Patient?_count=100", timeout=20) as answer:
                return len(json.load(answer).get("entry", []))

        assert post_json(server.url, good)[0] == 200
        assert post_json(server.url, good)[0] == 200
        assert count() == 2, "a conditional create must not duplicate"

        status, outcome = post_json(server.url, bad)
        assert (status, outcome["resourceType"]) == (400, "OperationOutcome")
        assert count() == 2, "a transaction that fails must leave nothing behind"
