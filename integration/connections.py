"""Adapter: opens authenticated HTTP and TLS connections, and translates their failures.

The connection settings that destinations and sources share, and what is made
of them. Failures become `DestinationUnavailableError` with messages that carry
neither addresses nor credentials nor anything a server wrote.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, model_validator

from integration.delivery import DestinationUnavailableError
from integration.statuses import HTTP_DESTINATION_STATUSES, StatusRow, Verdict, classify

# httpx logs every address asked at INFO, and a search may name a report.
logging.getLogger("httpx").setLevel(logging.WARNING)

#: Longest wait for a TCP and TLS connection, seconds; a host that is up answers sooner.
CONNECT_TIMEOUT_S = 10.0

AeTitle = Annotated[
    str,
    Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]*[!-\[\]-~][ -\[\]-~]*$"),
]
"""Application Entity title: VR AE, PS3.5 Table 6.2-1 (no backslash, no control characters)."""


class ConnectionModel(BaseModel):
    """Base of the connection settings: immutable, and a misspelt name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsClient(ConnectionModel):
    """How this node checks a server's certificate and shows its own (PS3.15, BCP 195: TLS 1.2 or newer)."""

    ca_file: Path | None = Field(
        default=None, description="PEM file with the authorities to trust instead of the system's"
    )
    cert_file: Path | None = Field(
        default=None, description="PEM file with this node's certificate, for mutual authentication"
    )
    key_file: Path | None = Field(default=None, description="PEM file with the private key of cert_file")
    key_password: SecretStr | None = Field(default=None, description="password of key_file")
    check_hostname: bool = Field(
        default=True, description="the server's certificate must name the host that was called"
    )

    @model_validator(mode="after")
    def _check_pair(self) -> TlsClient:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        return self

    def build_context(self) -> ssl.SSLContext:
        """Return the TLS context.

        Raises
        ------
        DestinationUnavailableError
            If a file cannot be read or does not fit.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.check_hostname = self.check_hostname
            if self.cert_file is not None:
                password = self.key_password.get_secret_value() if self.key_password else None
                context.load_cert_chain(self.cert_file, self.key_file, password)
        except (OSError, ssl.SSLError) as error:
            raise DestinationUnavailableError(
                "the TLS files cannot be used: check ca_file, cert_file, key_file and its password"
            ) from error
        return context


class NoAuth(ConnectionModel):
    """No authentication."""

    type: Literal["none"] = "none"


class BasicAuth(ConnectionModel):
    """User and password (RFC 7617)."""

    type: Literal["basic"]
    user: str = Field(description="user name")
    password: SecretStr = Field(description="password")


class BearerAuth(ConnectionModel):
    """A fixed bearer token (RFC 6750)."""

    type: Literal["bearer"]
    token: SecretStr = Field(description="the token")


Auth = Annotated[NoAuth | BasicAuth | BearerAuth, Field(discriminator="type")]


class HttpEndpoint(ConnectionModel):
    """One HTTP service and how to reach it."""

    url: HttpUrl = Field(description="base address; credentials belong into auth")
    auth: Auth = Field(default=NoAuth(), description="none, basic or bearer")
    tls: TlsClient = Field(default=TlsClient(), description="certificates, for https addresses")
    timeout_s: float = Field(
        default=300.0, gt=0, description="longest silence of the server during a request, seconds"
    )

    @model_validator(mode="after")
    def _check_url(self) -> HttpEndpoint:
        if self.url.username or self.url.password or self.url.query or self.url.fragment:
            raise ValueError("url must have no user, password, query or fragment; use auth")
        return self

    @property
    def base_url(self) -> str:
        """The address without a trailing slash."""
        return str(self.url).rstrip("/")


class DimsePeer(ConnectionModel):
    """One DICOM application entity and how to call it."""

    host: str = Field(min_length=1, description="host name or address")
    port: int = Field(default=104, ge=1, le=65535, description="TCP port")
    ae_title: AeTitle = Field(description="AE title of the peer (called)")
    calling_ae_title: AeTitle = Field(default="PREREAD", description="AE title of this node (calling)")
    tls: TlsClient | None = Field(default=None, description="set to use DICOM over TLS")
    timeout_s: float = Field(
        default=60.0, gt=0, description="longest wait for the association or one answer, seconds"
    )


def open_http_client(endpoint: HttpEndpoint) -> httpx.Client:
    """Return a client for an endpoint; the caller closes it. Redirects are not followed.

    Raises
    ------
    DestinationUnavailableError
        If a TLS file cannot be used.
    """
    auth: httpx.Auth | None = None
    headers: dict[str, str] = {}
    if isinstance(endpoint.auth, BasicAuth):
        auth = httpx.BasicAuth(endpoint.auth.user, endpoint.auth.password.get_secret_value())
    elif isinstance(endpoint.auth, BearerAuth):
        headers["Authorization"] = f"Bearer {endpoint.auth.token.get_secret_value()}"
    connect_timeout_s = min(CONNECT_TIMEOUT_S, endpoint.timeout_s)
    return httpx.Client(
        auth=auth,
        headers=headers,
        timeout=httpx.Timeout(endpoint.timeout_s, connect=connect_timeout_s),
        verify=endpoint.tls.build_context() if endpoint.url.scheme == "https" else False,
        trust_env=False,
    )


@contextmanager
def translate_http_errors(service: str) -> Iterator[None]:
    """Turn httpx's failures inside the block into `DestinationUnavailableError`.

    Parameters
    ----------
    service : str
        What was called, for the message: "STOW-RS", "FHIR".
    """
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise DestinationUnavailableError(f"{service}: no connection in time: check host and port") from error
    except httpx.TimeoutException as error:
        raise DestinationUnavailableError(f"{service}: no answer in time") from error
    except httpx.ConnectError as error:
        raise DestinationUnavailableError(
            f"{service}: cannot connect: check host, port and certificates"
        ) from error
    except httpx.HTTPError as error:
        raise DestinationUnavailableError(f"{service}: connection broke ({type(error).__name__})") from error


def check_destination_status(service: str, response: httpx.Response, now: datetime) -> StatusRow:
    """Raise if a status concerns the destination as a whole; otherwise return its row.

    Raises
    ------
    DestinationUnavailableError
        For the statuses of `HTTP_DESTINATION_STATUSES`; carries Retry-After.
    """
    row = classify(response.status_code, HTTP_DESTINATION_STATUSES)
    if row.verdict is Verdict.RETRY:
        raise DestinationUnavailableError(
            f"{service}: HTTP {response.status_code}, {row.meaning}",
            retry_after_s=parse_retry_after(response.headers.get("Retry-After"), now),
        )
    return row


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for; None if absent or not understood.

    References
    ----------
    RFC 9110 10.2.3: delay-seconds or HTTP-date.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
