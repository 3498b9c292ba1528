"""Adapter: reads certificates and makes the TLS context of the DICOM port.

PS3.15 B.12 (BCP 195 RFC 8996, RFC 9325): TLS 1.2 or newer, both sides prove who
they are. There is no setting that turns a check off.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import PermanentError


class TlsSettingsError(PermanentError):
    """A certificate, key or authority file cannot be used: check path, format (PEM) and permissions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """PEM files: our certificate chain, its key, and the authorities whose peers we accept."""

    certificate_file: Path
    key_file: Path
    ca_file: Path


def make_server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the context of a server that demands a client certificate.

    Raises
    ------
    TlsSettingsError
        If one of the files cannot be loaded.
    """
    return _make_context(settings, ssl.PROTOCOL_TLS_SERVER)


def make_client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the context of a client that shows its certificate and checks the server's name.

    Raises
    ------
    TlsSettingsError
        If one of the files cannot be loaded.
    """
    return _make_context(settings, ssl.PROTOCOL_TLS_CLIENT)


def _make_context(settings: TlsSettings, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cafile=str(settings.ca_file))
        context.load_cert_chain(str(settings.certificate_file), str(settings.key_file))
    except (OSError, ssl.SSLError) as error:
        raise TlsSettingsError("a TLS file cannot be loaded: check certificate, key and CA file") from error
    return context
