"""Adapter: ``preread doctor``: looks at everything a node needs and says what is wrong and what to do."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.errors import PrereadError
from dicom_node.ledger import Ledger
from inference.packages import discover
from integration.connections import HttpEndpoint, open_http_client, translate_http_errors
from integration.destinations import CStoreSettings, DestinationSettings, FhirSettings, FolderSettings
from integration.language import look_at_language
from integration.pacs import open_association
from integration.settings import Settings
from integration.site import load_site_key, open_store, read_rules

_IMPLICIT_VR = "1.2.840.10008.1.2"
_GIGABYTE = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One thing that was looked at; ``advice`` says what to do where it is not well."""

    subject: str
    is_well: bool
    detail: str


def examine(settings: Settings) -> Iterator[Diagnosis]:
    """Look at folders, database, rules, models, ports and destinations, one after the other."""
    yield _try("data folder", lambda: _look_at_folder(settings))
    yield _try("ledger", lambda: _look_at_ledger(settings))
    yield _try("routing rules", lambda: f"{len(read_rules(settings.rules_file).rules)} rules")
    yield from _look_at_models(settings)
    for name, host, port in (
        ("DICOM port", settings.dicom.host, settings.dicom.port),
        ("HTTP port", settings.http.host, settings.http.port),
    ):
        yield _look_at_port(name, host, port)
    yield _try("language model", lambda: look_at_language(settings))
    for destination in settings.effective_destinations:
        yield _try(f"destination {destination.name}", lambda d=destination: _look_at_destination(d))  # type: ignore[misc]


def _try(subject: str, look: Callable[[], str]) -> Diagnosis:
    try:
        return Diagnosis(subject=subject, is_well=True, detail=look())
    except (PrereadError, OSError) as error:
        return Diagnosis(subject=subject, is_well=False, detail=str(error))


def _look_at_folder(settings: Settings) -> str:
    load_site_key(settings.data_dir)
    if not open_store(settings).has_room():
        raise OSError(
            "the disk is below the watermark, instances would be refused: "
            "free space or lower store.minimum_free_mb"
        )
    return f"{shutil.disk_usage(settings.data_dir).free / _GIGABYTE:.0f} GB free"


def _look_at_ledger(settings: Settings) -> str:
    ledger = Ledger.connect(settings.ledger_url)
    try:
        ledger.migrate()
        counts = ledger.count_instances()
    finally:
        ledger.close()
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "empty"


def _look_at_models(settings: Settings) -> Iterator[Diagnosis]:
    catalogue = discover(settings.models_dir)
    if not catalogue.packages and not catalogue.broken:
        yield Diagnosis(subject="models", is_well=False, detail="no model package found: set models_dir")
    for package in catalogue.packages:
        yield Diagnosis(
            subject=f"model {package.card.name} {package.card.version}",
            is_well=True,
            detail=package.card.title,
        )
    for broken in catalogue.broken:
        yield Diagnosis(subject="model", is_well=False, detail=broken.reason)


def _look_at_port(name: str, host: str, port: int) -> Diagnosis:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            detail = f"{host}:{port} is taken: a node runs already, or choose another port"
            return Diagnosis(subject=name, is_well=False, detail=detail)
    return Diagnosis(subject=name, is_well=True, detail=f"{host}:{port} is free")


def _look_at_destination(destination: DestinationSettings) -> str:
    match destination:
        case FolderSettings():
            destination.path.mkdir(parents=True, exist_ok=True)
            return f"folder {destination.path}"
        case CStoreSettings():
            with open_association(destination, [(str(Verification), _IMPLICIT_VR)]):
                return "the PACS answers"
        case FhirSettings():
            return _get(destination, "metadata", "application/fhir+json")
        case _:
            return _get(destination, "studies?limit=1", "application/dicom+json")


def _get(endpoint: HttpEndpoint, path: str, media_type: str) -> str:
    with open_http_client(endpoint) as client, translate_http_errors("HTTP"):
        response = client.get(f"{endpoint.base_url}/{path}", headers={"Accept": media_type})
    if response.is_success:
        return "answers"
    raise OSError(f"answers HTTP {response.status_code}: check url and auth")
