"""Adapter: says what the stack still needs on this machine, and fetches what npm has.

    python -m orthanc.install            what is missing, and the commands that would install it
    python -m orthanc.install --fetch    fetch OHIF and the FHIR server's packages into .stack/
    python -m orthanc.install --system   install the Debian packages (as root)

OHIF is checked against the digest below before it is unpacked, the FHIR
server's packages against ``fhir-server/package-lock.json``.
"""


# ruff: noqa: INP001, S603, T201 -- a folder of configuration is no package; a script that prints

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orthanc import loopback
from orthanc.companions import CONFIGURATION, FHIR_SERVER, OHIF_DIST, STACK

OHIF_PACKAGE = "@ohif/app@3.13.2"
OHIF_INTEGRITY = (
    "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
)

DEBIAN_PACKAGES = ("orthanc", "orthanc-dicomweb", "nginx-light", "iproute2", "util-linux")
_APT = ("apt-get", "install", "-y", "--no-install-recommends")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something the stack needs: is it there, and what would bring it."""

    name: str
    is_there: Callable[[], bool]
    remedy: str


class InstallError(RuntimeError):
    """Something could not be fetched, or is not what was expected."""


def _has(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _is_fhir_server_current() -> bool:
    marker = FHIR_SERVER / "node_modules" / ".package-lock.json"
    return marker.is_file() and all(
        (FHIR_SERVER / name).read_bytes() == (CONFIGURATION / "fhir-server" / name).read_bytes()
        for name in ("server.cjs", "package-lock.json")
    )


_SYSTEM = shlex.join([*_APT, *DEBIAN_PACKAGES])
PARTS = (
    Part(name="Orthanc", is_there=lambda: _has("Orthanc"), remedy=_SYSTEM),
    Part(
        name="Orthanc's DICOMweb plugin",
        is_there=lambda: Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so").is_file(),
        remedy=_SYSTEM,
    ),
    Part(name="nginx", is_there=lambda: _has("nginx"), remedy=_SYSTEM),
    Part(
        name="network namespaces",
        is_there=loopback.can_isolate,
        remedy="run as root, or allow unprivileged user namespaces",
    ),
    Part(
        name="Node 20.19 or newer",
        is_there=lambda: _has("node") and _has("npm"),
        remedy="install Node.js 20 LTS",
    ),
    Part(
        name=f"OHIF ({OHIF_PACKAGE})",
        is_there=(OHIF_DIST / "index.html").is_file,
        remedy="python -m orthanc.install --fetch",
    ),
    Part(
        name="the FHIR server's packages",
        is_there=_is_fhir_server_current,
        remedy="python -m orthanc.install --fetch",
    ),
)


def missing_parts() -> tuple[Part, ...]:
    """Return what the stack needs and this machine lacks."""
    return tuple(part for part in PARTS if not part.is_there())


def fetch_ohif() -> None:
    """Fetch OHIF's published build, check its digest and unpack it into ``.stack/ohif``.

    Raises
    ------
    InstallError
        If the archive is not the one this version of Preread was tested with.
    """
    if (OHIF_DIST / "index.html").is_file():
        return
    STACK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STACK) as scratch:
        _run(["npm", "pack", OHIF_PACKAGE, "--silent", f"--pack-destination={scratch}"], Path(scratch))
        (archive,) = Path(scratch).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != OHIF_INTEGRITY:
            raise InstallError(f"{OHIF_PACKAGE} is not what was published: nothing was unpacked.")
        unpacked = Path(scratch) / "ohif"
        with tarfile.open(archive) as files:
            files.extractall(unpacked, filter="data")
        shutil.rmtree(STACK / "ohif", ignore_errors=True)
        unpacked.rename(STACK / "ohif")


def fetch_fhir_server() -> None:
    """Install the FHIR server with the exact packages of its lock file into ``.stack/fhir-server``."""
    if _is_fhir_server_current():
        return
    FHIR_SERVER.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "server.cjs"):
        shutil.copyfile(CONFIGURATION / "fhir-server" / name, FHIR_SERVER / name)
    _run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], FHIR_SERVER)


def _run(command: list[str], folder: Path) -> None:
    if subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        raise InstallError(f"`{shlex.join(command)}` failed; see above.")


def print_missing(missing: tuple[Part, ...]) -> None:
    """Print what is missing and what to do about it."""
    for part in missing:
        print(f"missing: {part.name}\n    {part.remedy}")


def main() -> int:
    """Report, and install what was asked for; 0 if nothing is missing in the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fetch", action="store_true", help="fetch OHIF and the FHIR server's packages with npm"
    )
    parser.add_argument("--system", action="store_true", help="install the Debian packages with apt-get")
    given = parser.parse_args()
    try:
        if given.system:
            _run([*_APT, *DEBIAN_PACKAGES], CONFIGURATION)
        if given.fetch:
            fetch_ohif()
            fetch_fhir_server()
    except InstallError as exc:
        print(exc, file=sys.stderr)
        return 1
    missing = missing_parts()
    print_missing(missing)
    if not missing:
        print("Everything the stack needs is there.")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
