"""Adapter: the companion servers of Preread: Orthanc, OHIF behind nginx, and a FHIR server.

Each is a context manager over one configuration file of this folder, used alike
by ``make serve-stack`` and by the tests. Everything listens on 127.0.0.1 alone;
Orthanc, which cannot, runs behind ``orthanc/loopback.py``. Passwords are made
at every start and live in the environment of the server they belong to.
"""


# ruff: noqa: INP001 -- a folder of configuration is no package

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orthanc import loopback
from orthanc.process import CompanionError, Process, accepts_connections, free_port

CONFIGURATION = Path(__file__).resolve().parent
STACK = CONFIGURATION.parent / ".stack"
OHIF_DIST = STACK / "ohif" / "package" / "dist"
FHIR_SERVER = STACK / "fhir-server"

_DICOMWEB_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"),
)
_PASSWORD_BYTES = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class OrthancSettings:
    """What a start of Orthanc decides; the rest is orthanc.json.

    Ports of 0 take a free one. ``preread_dicom_port`` and ``preread_api_url``
    say where the node will be: Orthanc sends studies there as soon as they are
    stable for ``stable_age_s`` seconds.
    """

    folder: Path
    http_port: int = 0
    dicom_port: int = 0
    ae_title: str = "ORTHANC"
    scanner_ae_title: str = "SCANNER"
    preread_ae_title: str = "PREREAD"
    preread_dicom_port: int = 11112
    preread_api_url: str = ""
    preread_api_token: str = ""
    stable_age_s: int = 2
    preread_password: str = field(default_factory=lambda: secrets.token_urlsafe(_PASSWORD_BYTES))
    viewer_password: str = field(default_factory=lambda: secrets.token_urlsafe(_PASSWORD_BYTES))
    is_isolated: bool = True


class OrthancServer:
    """One Orthanc: start, stop and start again on the same folder, ports and passwords."""

    user = "preread"

    def __init__(self, settings: OrthancSettings) -> None:
        self.settings = settings
        self.http_port = settings.http_port or free_port()
        self.dicom_port = settings.dicom_port or free_port()
        self.ae_title = settings.ae_title
        self.password = settings.preread_password
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.dicomweb_url = f"{self.url}/dicom-web"
        self.log_file = settings.folder / "orthanc.log"
        self._process: Process | None = None

    @property
    def viewer_credentials(self) -> str:
        """``user:password`` in base64, as Basic authentication wants it."""
        return base64.b64encode(f"viewer:{self.settings.viewer_password}".encode()).decode()

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises
        ------
        CompanionError
            If Orthanc or its DICOMweb plugin is missing, or it does not start.
        """
        command = [_find_orthanc(), "--verbose", str(CONFIGURATION / "orthanc.json")]
        if self.settings.is_isolated:
            command = loopback.wrap(
                command, publish=(self.http_port, self.dicom_port), reach=self._ports_to_reach()
            )
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        self._process = Process("Orthanc", command, log_file=self.log_file, environment=self._environment())
        self._process.start(self.is_ready)

    def stop(self) -> None:
        """Stop the server; what it stored stays."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()

    def is_running(self) -> bool:
        """Say whether the process lives."""
        return self._process is not None and self._process.is_running()

    def is_ready(self) -> bool:
        """Say whether both the REST API and the DICOM port answer."""
        try:
            self.get("/system")
        except (OSError, json.JSONDecodeError):
            return False
        return accepts_connections(self.dicom_port)

    def get(self, path: str) -> object:
        """Return the JSON answer to a GET of the REST API, as the user ``preread``."""
        return self.request("GET", path)

    def request(self, method: str, path: str, body: object = None) -> object:
        """Return the JSON answer to a request of the REST API, as the user ``preread``."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)  # noqa: S310
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- our own server
            text = answer.read()
        return json.loads(text) if text else None

    def _ports_to_reach(self) -> tuple[int, ...]:
        api_port = re.search(r":(\d+)", self.settings.preread_api_url.removeprefix("http:"))
        ports = {self.settings.preread_dicom_port, *([int(api_port[1])] if api_port else [])}
        return tuple(sorted(ports))

    def _environment(self) -> dict[str, str]:
        settings = self.settings
        return {
            "ORTHANC_STORAGE": str(settings.folder / "db"),
            "ORTHANC_PLUGINS": str(_find_dicomweb_plugin()),
            "ORTHANC_ROUTE_LUA": str(CONFIGURATION / "route.lua"),
            "ORTHANC_HTTP_PORT": str(self.http_port),
            "ORTHANC_DICOM_PORT": str(self.dicom_port),
            "ORTHANC_AE_TITLE": settings.ae_title,
            "ORTHANC_STABLE_AGE_S": str(settings.stable_age_s),
            "ORTHANC_PREREAD_PASSWORD": settings.preread_password,
            "ORTHANC_VIEWER_PASSWORD": settings.viewer_password,
            "PREREAD_AE_TITLE": settings.preread_ae_title,
            "PREREAD_DICOM_PORT": str(settings.preread_dicom_port),
            "PREREAD_API_URL": settings.preread_api_url,
            "PREREAD_API_TOKEN": settings.preread_api_token,
            "SCANNER_AE_TITLE": settings.scanner_ae_title,
        }


@contextmanager
def run_orthanc(settings: OrthancSettings) -> Iterator[OrthancServer]:
    """Run Orthanc for the length of a ``with`` block."""
    server = OrthancServer(settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def run_ohif(orthanc: OrthancServer, folder: Path, *, port: int = 0) -> Iterator[str]:
    """Serve OHIF on 127.0.0.1, showing what ``orthanc`` holds; yield its URL.

    Raises
    ------
    CompanionError
        If nginx or the OHIF files are missing.
    """
    if not (OHIF_DIST / "index.html").is_file():
        raise CompanionError("OHIF is not unpacked: run `python -m orthanc.install`.")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    values = {
        "RUN_DIR": str(folder),
        "MIME_TYPES": "/etc/nginx/mime.types",
        "OHIF_PORT": str(port),
        "OHIF_DIST": str(OHIF_DIST),
        "APP_CONFIG": str(CONFIGURATION / "ohif" / "app-config.js"),
        "ORTHANC_URL": orthanc.url,
        "VIEWER_CREDENTIALS": orthanc.viewer_credentials,
    }
    configuration = folder / "nginx.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(fill_in((CONFIGURATION / "nginx.conf").read_text(), values))
    command = [
        _find_program("nginx"),
        "-c",
        str(configuration),
        "-p",
        str(folder),
        "-e",
        str(folder / "error.log"),
    ]
    process = Process("nginx", command, log_file=folder / "nginx.log")
    process.start(lambda: accepts_connections(port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


@contextmanager
def run_fhir_server(folder: Path, *, port: int = 0) -> Iterator[str]:
    """Run the FHIR R4 server in memory on 127.0.0.1; yield its base URL.

    Raises
    ------
    CompanionError
        If Node or the server's packages are missing.
    """
    server = FhirServer(folder, port=port)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


class FhirServer:
    """The FHIR server of ``fhir-server/``; it forgets everything when it stops."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self._port = port or free_port()
        self._folder = folder
        self._process: Process | None = None
        self.url = f"http://127.0.0.1:{self._port}/fhir/R4"

    def start(self) -> None:
        """Start the server and return when it answers."""
        if not (FHIR_SERVER / "node_modules").is_dir():
            raise CompanionError("The FHIR server is not installed: run `python -m orthanc.install`.")
        command = [_find_program("node"), str(FHIR_SERVER / "server.cjs")]
        self._process = Process(
            "FHIR server",
            command,
            log_file=self._folder / "fhir-server.log",
            environment={"FHIR_PORT": str(self._port)},
        )
        self._process.start(lambda: accepts_connections(self._port))

    def stop(self) -> None:
        """Stop the server."""
        if self._process is not None:
            self._process.stop()

    def is_running(self) -> bool:
        """Say whether the process lives."""
        return self._process is not None and self._process.is_running()


def fill_in(template: str, values: Mapping[str, str]) -> str:
    """Return ``template`` with every ``${UPPER_CASE}`` word replaced by its value.

    Raises
    ------
    KeyError
        If a word has no value.
    """
    return re.sub(r"\$\{([A-Z_]+)\}", lambda word: values[word[1]], template)


def _find_program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise CompanionError(f"{name} is not installed: `python -m orthanc.install` says how.")
    return found


def _find_orthanc() -> str:
    return _find_program("Orthanc")


def _find_dicomweb_plugin() -> Path:
    for plugin in _DICOMWEB_PLUGINS:
        if plugin.is_file():
            return plugin
    raise CompanionError("Orthanc's DICOMweb plugin is not installed: `python -m orthanc.install` says how.")
