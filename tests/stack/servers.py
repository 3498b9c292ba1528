"""Adapter: the companion servers for tests; a test that asks for one that is not installed is skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orthanc import companions, install, loopback
from orthanc.companions import FhirServer, OrthancServer, OrthancSettings


def require_orthanc() -> None:
    """Skip the test unless Orthanc, its DICOMweb plugin and network namespaces are there."""
    wanted = {"Orthanc", "Orthanc's DICOMweb plugin"}
    missing = [part for part in install.missing_parts() if part.name in wanted]
    if missing:
        pytest.skip(f"{missing[0].name} is not installed: {missing[0].remedy}")
    if not loopback.can_isolate():
        pytest.skip("Orthanc listens on every interface, and this machine allows no network namespace")


def require_fhir_server() -> None:
    """Skip the test unless Node and the FHIR server's packages are there."""
    if shutil.which("node") is None or not (companions.FHIR_SERVER / "node_modules").is_dir():
        pytest.skip("the FHIR server is not installed: python -m orthanc.install --fetch")


@contextmanager
def orthanc_server(settings: OrthancSettings) -> Iterator[OrthancServer]:
    """Run Orthanc on 127.0.0.1 with free ports."""
    require_orthanc()
    with companions.run_orthanc(replace(settings, is_isolated=True)) as server:
        yield server


@contextmanager
def fhir_server(folder: Path) -> Iterator[FhirServer]:
    """Run the FHIR server in memory on a free port of 127.0.0.1."""
    require_fhir_server()
    server = FhirServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def ohif_site(orthanc: OrthancServer, folder: Path) -> Iterator[str]:
    """Serve OHIF over what ``orthanc`` holds; yield its URL."""
    if shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    if not (companions.OHIF_DIST / "index.html").is_file():
        pytest.skip("OHIF is not unpacked: python -m orthanc.install --fetch")
    with companions.run_ohif(orthanc, folder) as url:
        yield url
