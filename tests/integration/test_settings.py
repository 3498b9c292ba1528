from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from integration.settings import Settings, SettingsError, is_loopback, load_settings

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("PREREAD_"):
            monkeypatch.delenv(name)


def names_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    for name, info in model.model_fields.items():
        kinds = [t for t in [info.annotation] if isinstance(t, type) and issubclass(t, BaseModel)]
        if kinds:
            yield from names_of(kinds[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info.description


@pytest.mark.parametrize(("name", "description"), list(names_of(Settings)))
def test_every_setting_is_described_and_documented(name: str, description: str | None) -> None:
    assert description, f"{name} has no description"
    assert re.search(rf"^\| `{re.escape(name)}` \|", DOCUMENTATION.read_text(), re.MULTILINE), (
        f"{name} is not in docs/settings.md"
    )


def test_the_defaults_need_nothing() -> None:
    settings = load_settings()
    assert settings.ledger_url.startswith("sqlite:///")
    assert settings.dicom.host == settings.http.host == "127.0.0.1"
    assert [d.name for d in settings.effective_destinations] == ["outbox"]


def test_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "preread.yaml"
    config.write_text("dicom: {port: 4242, ae_title: FROM_FILE}\n")
    monkeypatch.setenv("PREREAD_CONFIG", "")
    monkeypatch.setenv("PREREAD_DICOM__PORT", "4343")
    settings = load_settings(config)
    assert settings.dicom.port == 4343
    assert settings.dicom.ae_title == "FROM_FILE"


def test_an_unknown_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREREAD_CONFIG", "")
    config = tmp_path / "preread.yaml"
    config.write_text("dicom: {prot: 4242}\n")
    with pytest.raises(SettingsError, match=r"dicom\.prot"):
        load_settings(config)


def test_an_open_http_port_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREREAD_HTTP__HOST", "0.0.0.0")
    with pytest.raises(SettingsError, match=r"http\.token"):
        load_settings()
    monkeypatch.setenv("PREREAD_HTTP__TOKEN", "secret")
    assert "secret" not in repr(load_settings())


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        load_settings(Path("nowhere.yaml"))


def test_destination_names_are_unique(tmp_path: Path) -> None:
    twice = {"name": "pacs", "type": "folder", "path": str(tmp_path)}
    with pytest.raises(SettingsError, match="unique"):
        load_settings(destinations=[twice, twice])


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pacs", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
