"""docker-compose.yml, without an engine: what can be said of it by reading it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

#: What differs on purpose: where Orthanc runs, not how it behaves.
OF_THE_PLACE = {
    "IndexDirectory",
    "StorageDirectory",
    "Plugins",
    "LuaScripts",
    "HttpPort",
    "DicomPort",
    "RemoteAccessAllowed",
    "DicomCheckModalityHost",
    "RegisteredUsers",
    "DicomModalities",
    "OHIF",
}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())


def fill_defaults(text):
    return re.sub(r"\$\{[A-Z_]+(?::-([^}]*))?(?::\?[^}]*)?\}", lambda word: word[1] or "", text)


def test_orthanc_is_configured_as_in_its_own_file(compose):
    lines = (REPOSITORY / "orthanc" / "orthanc.json").read_text().splitlines()
    own = json.loads(fill_defaults("\n".join(line for line in lines if not line.strip().startswith("//"))))
    composed = json.loads(fill_defaults(compose["services"]["orthanc"]["environment"]["ORTHANC_JSON"]))

    assert set(own) - OF_THE_PLACE == set(composed) - OF_THE_PLACE
    for name in set(own) - OF_THE_PLACE:
        assert composed[name] == own[name], name
    assert set(composed["RegisteredUsers"]) == set(own["RegisteredUsers"])
    for modality, peer in own["DicomModalities"].items():
        rights = {key: value for key, value in peer.items() if key.startswith("Allow")}
        assert rights.items() <= composed["DicomModalities"][modality].items()


def test_every_port_is_published_on_loopback_alone(compose):
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port


def test_every_image_is_pinned(compose):
    for name, service in compose["services"].items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name


def test_every_secret_comes_from_the_environment_file_and_none_is_committed(compose):
    text = (REPOSITORY / "docker-compose.yml").read_text()
    example = (REPOSITORY / "env.example").read_text()
    offered = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))

    assert set(re.findall(r"\$\{([A-Z_]+)", text)) == set(offered)
    assert all(not value for name, value in offered.items() if name.endswith(("PASSWORD", "TOKEN")))
    for name in offered:
        if name.endswith(("PASSWORD", "TOKEN")):
            assert f"${{{name}:?" in text, f"{name} must be demanded"


def test_the_node_runs_without_privileges(compose):
    node = compose["services"]["preread"]
    assert node["read_only"] is True
    assert node["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in node["security_opt"]
    assert re.search(r"^USER 10001", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)


def test_the_nodes_environment_is_one_it_understands(compose, monkeypatch, tmp_path):
    settings = pytest.importorskip("integration.settings")
    for name, value in compose["services"]["preread"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{[A-Z_]+[^}]*\}", "x", str(value)))

    loaded = settings.load_settings()

    assert [destination.name for destination in loaded.destinations] == ["orthanc", "ehr"]
    assert loaded.dicom.port == 11112
    assert loaded.http.token is not None
