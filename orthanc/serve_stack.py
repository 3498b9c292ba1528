"""Adapter: the whole stack on one Debian machine, without Docker: node, Orthanc, OHIF and a FHIR server.

    python -m orthanc.serve_stack              start everything, print where it is, stop all on Ctrl-C
    python -m orthanc.serve_stack --fetch      first fetch what npm has (OHIF, the FHIR server's packages)

Everything listens on 127.0.0.1. Passwords are new at every start and printed
once; data stay in ``var/stack``. The FHIR server forgets everything when it
stops: it is there to look at, not to keep.
"""


# ruff: noqa: INP001, T201 -- a folder of configuration is no package; a script that prints

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from orthanc import install
from orthanc.companions import FhirServer, OrthancServer, OrthancSettings, run_ohif, run_orthanc
from orthanc.process import CompanionError, Process, accepts_connections, free_port

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "var" / "stack"
_LOOK_EVERY_S = 2.0
_NODE_START_TIMEOUT_S = 180.0
_TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    ohif: int
    orthanc_http: int
    orthanc_dicom: int
    fhir: int
    node_http: int
    node_dicom: int


USUAL_PORTS = Ports(
    ohif=3000, orthanc_http=8042, orthanc_dicom=4242, fhir=8080, node_http=8000, node_dicom=11112
)


def choose_ports() -> Ports:
    """Return the usual ports, and a free one wherever the usual one is taken."""
    usual = {name: getattr(USUAL_PORTS, name) for name in USUAL_PORTS.__slots__}
    return Ports(**{name: free_port() if accepts_connections(port) else port for name, port in usual.items()})


def node_settings(
    folder: Path, ports: Ports, orthanc: OrthancServer, fhir_url: str, token: str
) -> dict[str, object]:
    """Return the node's settings: receive from Orthanc, deliver to Orthanc and to the FHIR server."""
    auth = {"type": "basic", "user": orthanc.user, "password": orthanc.password}
    return {
        "data_dir": str(folder / "node"),
        "dicom": {"port": ports.node_dicom, "allowed_ae_titles": [orthanc.ae_title]},
        "http": {"port": ports.node_http, "token": token},
        "destinations": [
            {"type": "stow", "name": "orthanc", "url": orthanc.dicomweb_url, "auth": auth},
            {"type": "fhir", "name": "ehr", "url": fhir_url},
        ],
    }


@contextmanager
def run_node(folder: Path, settings: dict[str, object], ready_url: str) -> Iterator[Process]:
    """Run ``preread serve`` for the length of a ``with`` block."""
    config = folder / "preread.yaml"
    descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(settings, file)
    command = [sys.executable, "-m", "integration.cli", "serve", "--config", str(config)]
    process = Process("Preread", command, log_file=folder / "node.log")
    process.start(lambda: _answers(ready_url), timeout_s=_NODE_START_TIMEOUT_S)
    try:
        yield process
    finally:
        process.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 -- our own server
            return True
    except OSError:
        return False


@contextmanager
def _progress(what: str) -> Iterator[None]:
    print(f"  {what:<12} starting", end="", flush=True)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"\r  {what:<12} failed  ", flush=True)
        raise
    print(f"\r  {what:<12} ready after {time.monotonic() - began:.1f} s", flush=True)


def serve(folder: Path, asked_to_stop: threading.Event) -> None:
    """Start everything, say where it is, and wait until ``asked_to_stop`` or until something ends.

    Raises
    ------
    CompanionError
        If a part does not start or ends by itself.
    """
    ports, token = choose_ports(), secrets.token_urlsafe(_TOKEN_BYTES)
    node_url = f"http://127.0.0.1:{ports.node_http}"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    fhir = FhirServer(folder / "fhir-server", port=ports.fhir)
    settings = OrthancSettings(
        folder=folder / "orthanc",
        http_port=ports.orthanc_http,
        dicom_port=ports.orthanc_dicom,
        preread_dicom_port=ports.node_dicom,
        preread_api_url=f"{node_url}/api",
        preread_api_token=token,
        stable_age_s=5,
    )
    print(f"Starting the stack in {folder}; Ctrl-C stops it.")
    with ExitStack() as stack:
        with _progress("Orthanc"):
            orthanc = stack.enter_context(run_orthanc(settings))
        with _progress("OHIF"):
            stack.enter_context(run_ohif(orthanc, folder / "ohif", port=ports.ohif))
        with _progress("FHIR server"):
            stack.callback(fhir.stop)
            fhir.start()
        with _progress("Preread"):
            config = node_settings(folder, ports, orthanc, fhir.url, token)
            node = stack.enter_context(run_node(folder, config, f"{node_url}/readyz"))
        _print_places(ports, orthanc, token=token)
        _watch(orthanc, fhir, node, asked_to_stop)
        print("\nStopping.", flush=True)


def _print_places(ports: Ports, orthanc: OrthancServer, *, token: str) -> None:
    scanner = orthanc.settings.scanner_ae_title
    address = f"127.0.0.1 {ports.orthanc_dicom}"
    command = f"storescu -aet {scanner} -aec {orthanc.ae_title} +sd +r {address} <folder>"
    print(f"""
  OHIF         http://127.0.0.1:{ports.ohif}
  Orthanc      {orthanc.url}    user {orthanc.user}, password {orthanc.password}
  Preread      http://127.0.0.1:{ports.node_http}/docs    bearer token {token}
  FHIR server  http://127.0.0.1:{ports.fhir}/fhir/R4

  Send a study to Orthanc as AE title {scanner}; it is read by itself:
      {command}
""")


def _watch(orthanc: OrthancServer, fhir: FhirServer, node: Process, asked_to_stop: threading.Event) -> None:
    """Report what arrives, keep Orthanc's router awake, notice a part that ends."""
    last = ""
    while not asked_to_stop.wait(_LOOK_EVERY_S):
        for name, is_running in (
            ("Orthanc", orthanc.is_running),
            ("the FHIR server", fhir.is_running),
            ("Preread", node.is_running),
        ):
            if not is_running():
                raise CompanionError(f"{name} ended by itself: its log is in the stack's folder.")
        with contextlib.suppress(OSError):
            statistics = orthanc.get("/statistics")
            if isinstance(statistics, dict):
                studies, instances = statistics["CountStudies"], statistics["CountInstances"]
                line = f"  {studies} studies, {instances} images and results"
                if line != last:
                    print(f"{time.strftime('%H:%M:%S')}{line}", flush=True)
                last = line


def main() -> int:
    """Check what is missing, then serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="data and logs (default: var/stack)"
    )
    parser.add_argument("--fetch", action="store_true", help="first fetch OHIF and the FHIR server with npm")
    given = parser.parse_args()
    asked_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_stop.set())
    try:
        if given.fetch:
            install.fetch_ohif()
            install.fetch_fhir_server()
        if missing := install.missing_parts():
            install.print_missing(missing)
            return 1
        serve(given.folder, asked_to_stop)
    except (CompanionError, install.InstallError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
