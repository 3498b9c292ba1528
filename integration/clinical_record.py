"""Adapter: reads a patient's orders, conditions and documents from a FHIR R4 server.

Only what belongs to this patient and this accession is taken, whatever the server
returns. One budget of time covers all requests, and nothing here ever stops a run:
what could not be read is said in a remark. Addresses of attachments are followed only
within the server itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import structlog

from integration.connections import HttpEndpoint, open_http_client, translate_http_errors
from integration.delivery import DestinationUnavailableError
from reporting.clinical import ClinicalProblem, Remark, SourceKind, SourceText
from reporting.clinical.fhir_source import (
    Reader,
    as_document,
    has_identifier,
    read_binary,
    read_condition,
    read_document,
    read_service_request,
    resources_of,
)
from reporting.clinical.lexicon import load_lexicon

Json = Mapping[str, Any]

_MEDIA_TYPE: Final = "application/fhir+json"
_OK: Final = 200
_SERVER_ERROR: Final = 500
#: Largest answer that is read, bytes.
_MAX_ANSWER: Final = 8_000_000

log = structlog.get_logger(__name__)


class RecordRefusedError(Exception):
    """The server answered, but not with what was asked; never leaves this module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPolicy:
    """What is asked of the server.

    Attributes
    ----------
    timeout_s : float
        Seconds for everything together.
    maximum_conditions, maximum_documents : int
        Resources at the most; of documents the newest.
    patient_id_system, accession_system : str
        URIs of the systems of Patient ID and Accession Number.
    """

    timeout_s: float
    maximum_conditions: int
    maximum_documents: int
    patient_id_system: str
    accession_system: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAnswer:
    """What the record says: texts to read, problems that are coded, and what could not be read."""

    texts: tuple[SourceText, ...] = ()
    problems: tuple[ClinicalProblem, ...] = ()
    sources: tuple[SourceKind, ...] = ()
    remarks: tuple[Remark, ...] = ()


class ClinicalRecord:
    """A FHIR R4 server.

    Parameters
    ----------
    endpoint : HttpEndpoint
        Its base address.
    read : callable
        Reads problems out of the text of conditions without a known code.
    monotonic : callable
        Returns seconds of a clock that never goes back.
    """

    def __init__(
        self,
        endpoint: HttpEndpoint,
        policy: RecordPolicy,
        read: Reader,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._policy = policy
        self._read = read
        self._monotonic = monotonic

    def ask(self, patient_id: str, accession: str) -> RecordAnswer:
        """Return what the record says of a patient; never raises for what a server does.

        Parameters
        ----------
        patient_id, accession : str
            As the images have them; without a patient id nothing is asked.
        """
        if not patient_id:
            return RecordAnswer(remarks=(Remark.PATIENT_AMBIGUOUS,))
        texts: list[SourceText] = []
        problems: list[ClinicalProblem] = []
        sources: list[SourceKind] = []
        remarks: list[Remark] = []
        try:
            with open_http_client(self._endpoint) as client:
                session = _Session(
                    client,
                    self._endpoint.base_url,
                    self._monotonic() + self._policy.timeout_s,
                    self._monotonic,
                )
                subject = self._find_patient(session, patient_id)
                if subject is None:
                    return RecordAnswer(remarks=(Remark.PATIENT_AMBIGUOUS,))
                for texts_of_one, problems_of_one, kind in self._entries(session, subject, accession):
                    texts += texts_of_one
                    problems += problems_of_one
                    sources.append(kind)
        except DestinationUnavailableError:
            remarks.append(Remark.RECORD_UNREACHABLE)
        except RecordRefusedError:
            remarks.append(Remark.RECORD_REFUSED)
        log.info("clinical_record_asked", count=len(texts) + len(problems), reason=" ".join(remarks))
        return RecordAnswer(
            texts=tuple(texts),
            problems=tuple(problems),
            sources=tuple(dict.fromkeys(sources)),
            remarks=tuple(remarks),
        )

    def _find_patient(self, session: _Session, patient_id: str) -> str | None:
        """Return ``Patient/id``, or None unless exactly one patient has the identifier."""
        system = self._policy.patient_id_system
        found = session.search("Patient", {"identifier": f"{system}|{_escape(patient_id)}", "_count": "2"})
        ids = [
            str(patient.get("id", ""))
            for patient in resources_of(found, "Patient")
            if has_identifier(patient, patient_id, system)
        ]
        return f"Patient/{ids[0]}" if len(ids) == 1 and ids[0] else None

    def _entries(
        self, session: _Session, subject: str, accession: str
    ) -> Iterator[tuple[tuple[SourceText, ...], tuple[ClinicalProblem, ...], SourceKind]]:
        if accession:
            system = self._policy.accession_system
            orders = session.search(
                "ServiceRequest", {"patient": subject, "identifier": f"{system}|{_escape(accession)}"}
            )
            for order in resources_of(orders, "ServiceRequest"):
                if _is_about(order, subject) and has_identifier(order, accession, system):
                    yield read_service_request(order), (), SourceKind.ORDER
        count = self._policy.maximum_conditions
        conditions = session.search("Condition", {"patient": subject, "_count": str(count)}) if count else {}
        for condition in list(resources_of(conditions, "Condition"))[:count]:
            if _is_about(condition, subject):
                yield (), read_condition(condition, self._read, load_lexicon()), SourceKind.CONDITION
        yield from self._documents(session, subject)

    def _documents(
        self, session: _Session, subject: str
    ) -> Iterator[tuple[tuple[SourceText, ...], tuple[ClinicalProblem, ...], SourceKind]]:
        count = self._policy.maximum_documents
        if not count:
            return
        found = session.search(
            "DocumentReference", {"patient": subject, "_sort": "-date", "_count": str(count)}
        )
        for document in list(resources_of(found, "DocumentReference"))[:count]:
            if not _is_about(document, subject):
                continue
            texts, urls = read_document(document)
            fetched = tuple(text for url in urls if (text := session.fetch_text(url)) is not None)
            if texts or fetched:
                yield (*texts, *fetched), (), SourceKind.DOCUMENT


class _Session:
    """Requests to one server within one budget of time."""

    def __init__(
        self, client: httpx.Client, base_url: str, deadline: float, monotonic: Callable[[], float]
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._deadline = deadline
        self._monotonic = monotonic

    def search(self, resource_type: str, parameters: Mapping[str, str]) -> Json:
        """Return a searchset Bundle."""
        body, _ = self._get(f"{self._base_url}/{resource_type}", parameters)
        found = _parse(body)
        if found.get("resourceType") != "Bundle":
            raise RecordRefusedError
        return found

    def fetch_text(self, url: str) -> SourceText | None:
        """Return the plain text at an address of this server; None for other addresses and other content."""
        address = self._own_address(url)
        if address is None:
            return None
        try:
            body, media_type = self._get(address, {})
        except RecordRefusedError:
            return None  # one document that is gone does not hide the others
        if media_type.startswith("text/plain"):
            return as_document(body.decode("utf-8", errors="replace"))
        return read_binary(_parse(body))

    def _own_address(self, url: str) -> str | None:
        base = httpx.URL(f"{self._base_url}/")
        try:
            address = base.join(url)
        except (httpx.InvalidURL, ValueError):
            return None
        is_own = (address.scheme, address.host, address.port) == (base.scheme, base.host, base.port)
        return str(address) if is_own and address.path.startswith(base.path) else None

    def _get(self, url: str, parameters: Mapping[str, str]) -> tuple[bytes, str]:
        """Return body and media type of an answer of 200, read within the budget."""
        with translate_http_errors("FHIR"):
            request = self._client.build_request(
                "GET",
                url,
                params=dict(parameters) or None,
                headers={"Accept": _MEDIA_TYPE},
                timeout=self._left(),
            )
            response = self._client.send(request, stream=True)
            try:
                if response.status_code >= _SERVER_ERROR:
                    raise DestinationUnavailableError(f"FHIR: HTTP {response.status_code}")
                if response.status_code != _OK:
                    raise RecordRefusedError
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    self._left()
                    if len(body) > _MAX_ANSWER:
                        raise RecordRefusedError
                return bytes(body), response.headers.get("Content-Type", "").lower()
            finally:
                response.close()

    def _left(self) -> float:
        left = self._deadline - self._monotonic()
        if left <= 0:
            raise DestinationUnavailableError("FHIR: the time for clinical information is used up")
        return left


def _is_about(resource: Json, subject: str) -> bool:
    """Say whether a resource names the patient as its subject."""
    reference = resource.get("subject")
    value = reference.get("reference") if isinstance(reference, dict) else None
    return isinstance(value, str) and (value == subject or value.endswith(f"/{subject}"))


def _escape(value: str) -> str:
    """Escape what has a meaning in a token parameter (R4 search.html#escaping)."""
    return "".join(f"\\{character}" if character in "\\$,|" else character for character in value)


def _parse(body: bytes) -> Json:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
