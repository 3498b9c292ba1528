"""Adapter: writes results into an EHR as FHIR R4 transaction Bundles.

A transaction is stored whole or not at all, and its writes are conditional
(the Bundle says so), so that posting one again makes no second report. What a
server says about a refusal is reduced to codes and element paths: its prose
may quote the patient's record.

References
----------
FHIR R4 http.html#transaction, http.html#transaction-response, operationoutcome.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from dicom_node.clock import Clock
from integration.connections import (
    HttpEndpoint,
    check_destination_status,
    open_http_client,
    parse_retry_after,
    translate_http_errors,
)
from integration.delivery import (
    Awaiting,
    DeliveryItem,
    DestinationProfile,
    DestinationRejectedError,
    DestinationUnavailableError,
    Receipt,
    ReceiptState,
)
from integration.statuses import FHIR_STATUSES, Verdict, classify

_MEDIA_TYPE = "application/fhir+json"
_OK = 200
_LOCATION = re.compile(r"(?P<reference>[A-Z][A-Za-z]+/[A-Za-z0-9.\-]{1,64})(?:/_history/[^/]*)?$")
_CODE = re.compile(r"[a-z][a-z-]{0,39}")
#: Element paths only: no string literals, which could quote a value.
_EXPRESSION = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]()]{0,159}")
_MAX_ISSUES = 5


class FhirDestination:
    """An EHR or FHIR store.

    Parameters
    ----------
    profile : DestinationProfile
        Name and wishes.
    endpoint : HttpEndpoint
        FHIR base address.
    confirm_timeout_s : float
        How long an accepted report may be missing from searches before it is sent again, seconds.
    clock : callable
        Returns the present time, aware UTC.
    """

    def __init__(
        self, *, profile: DestinationProfile, endpoint: HttpEndpoint, confirm_timeout_s: float, clock: Clock
    ) -> None:
        self._profile = profile
        self._endpoint = endpoint
        self._confirm_timeout_s = confirm_timeout_s
        self._clock = clock

    @property
    def profile(self) -> DestinationProfile:
        """What this destination wants."""
        return self._profile

    def send(self, items: Sequence[DeliveryItem]) -> Iterator[Receipt]:
        """Post each Bundle as one transaction.

        Raises
        ------
        DestinationUnavailableError
            If there is no usable answer.
        DestinationRejectedError
            If a Bundle is missing from the run folder or no transaction.
        """
        with open_http_client(self._endpoint) as client:
            for item in items:
                bundle = read_bundle(item)
                with translate_http_errors("FHIR"):
                    response = client.post(
                        self._endpoint.base_url,
                        content=json.dumps(bundle).encode(),
                        headers={"Content-Type": _MEDIA_TYPE, "Accept": _MEDIA_TYPE},
                    )
                check_destination_status("FHIR", response, self._clock())
                retry_after_s = parse_retry_after(response.headers.get("Retry-After"), self._clock())
                yield judge_transaction(item, bundle, response.status_code, response.content, retry_after_s)

    def confirm(self, awaiting: Sequence[Awaiting]) -> Iterator[Receipt]:
        """Read each report back by its identifier.

        Raises
        ------
        DestinationUnavailableError
            If the server does not answer the search.
        """
        with open_http_client(self._endpoint) as client:
            for entry in awaiting:
                identifier = report_identifier(read_bundle(entry.item))
                waited_s = (self._clock() - entry.sent_at).total_seconds()
                if identifier is None:
                    yield _receipt(
                        entry.item, ReceiptState.CONFIRMED, f"{entry.detail}; no report to read back"
                    )
                elif self._has_report(client, identifier):
                    yield _receipt(entry.item, ReceiptState.CONFIRMED, f"{entry.detail}; report read back")
                elif waited_s >= self._confirm_timeout_s:
                    detail = f"accepted but the report is not found after {waited_s:.0f} s: sent again"
                    yield _receipt(entry.item, ReceiptState.FAILED, detail, retry=True)

    def _has_report(self, client: httpx.Client, identifier: str) -> bool:
        with translate_http_errors("FHIR"):
            response = client.get(
                f"{self._endpoint.base_url}/DiagnosticReport",
                params={"identifier": identifier},
                headers={"Accept": _MEDIA_TYPE},
            )
        check_destination_status("FHIR", response, self._clock())
        found = _parse(response.content)
        if response.status_code != _OK or found.get("resourceType") != "Bundle":
            raise DestinationUnavailableError(
                f"FHIR: search answered HTTP {response.status_code} and no Bundle"
            )
        resources = [_dict(entry).get("resource") for entry in _list(found.get("entry"))]
        return any(_dict(resource).get("resourceType") == "DiagnosticReport" for resource in resources)


def read_bundle(item: DeliveryItem) -> dict[str, Any]:
    """Return an item's transaction Bundle.

    Raises
    ------
    DestinationRejectedError
        If the file is missing or holds no transaction Bundle.
    """
    try:
        bundle = json.loads(item.path.read_bytes())
    except (OSError, ValueError) as error:
        raise DestinationRejectedError(
            "the FHIR Bundle is missing from the run folder or not readable: encode the run again"
        ) from error
    if (
        not isinstance(bundle, dict)
        or bundle.get("resourceType") != "Bundle"
        or bundle.get("type") != "transaction"
    ):
        raise DestinationRejectedError("the FHIR file holds no transaction Bundle: encode the run again")
    return bundle


def report_identifier(bundle: Mapping[str, Any]) -> str | None:
    """Return the search token ``system|value`` of a Bundle's DiagnosticReport; None if it has none."""
    for entry in _list(bundle.get("entry")):
        resource = _dict(_dict(entry).get("resource"))
        if resource.get("resourceType") != "DiagnosticReport":
            continue
        for identifier in _list(resource.get("identifier")):
            if value := _dict(identifier).get("value"):
                return f"{_escape(_dict(identifier).get('system') or '')}|{_escape(value)}"
    return None


def judge_transaction(
    item: DeliveryItem, bundle: Mapping[str, Any], status: int, body: bytes, retry_after_s: float | None
) -> Receipt:
    """Return what a transaction's answer means.

    Parameters
    ----------
    item : DeliveryItem
        The Bundle.
    bundle : mapping
        Its content.
    status : int
        HTTP status, not one that concerns the destination as a whole.
    body : bytes
        As received: a transaction-response Bundle or an OperationOutcome.
    retry_after_s : float or None
        What Retry-After asked for.

    Returns
    -------
    Receipt
        Sent only if every entry of the Bundle has a status of success.
    """
    row, answer = classify(status, FHIR_STATUSES), _parse(body)
    if row.verdict is not Verdict.ACCEPTED:
        detail = f"FHIR: HTTP {status}, {row.meaning}{describe_outcome(answer)}"
        is_retried = row.verdict is Verdict.RETRY
        return Receipt(
            object_uid=item.object_uid,
            state=ReceiptState.FAILED,
            detail=detail,
            retry=is_retried,
            retry_after_s=retry_after_s,
        )
    responses = [_dict(_dict(entry).get("response")) for entry in _list(answer.get("entry"))]
    if len(responses) != len(_list(bundle.get("entry"))):
        detail = f"FHIR: HTTP {status}, but the answer does not cover every entry"
        return _receipt(item, ReceiptState.FAILED, detail, retry=True)
    rows = [classify(_status_code(response), FHIR_STATUSES) for response in responses]
    for number, (entry_row, response) in enumerate(zip(rows, responses, strict=True)):
        if entry_row.verdict is not Verdict.ACCEPTED:
            outcome = describe_outcome(_dict(response.get("outcome")))
            detail = f"FHIR: entry {number} answered {_status_code(response)}, {entry_row.meaning}{outcome}"
            return _receipt(item, ReceiptState.FAILED, detail, retry=entry_row.verdict is Verdict.RETRY)
    written = "; ".join(f"{_status_code(response)} {_reference(response)}" for response in responses)
    return _receipt(item, ReceiptState.SENT, f"FHIR: HTTP {status}: {written}")


def describe_outcome(outcome: Mapping[str, Any]) -> str:
    """Return an OperationOutcome reduced to codes and element paths, with a leading colon; empty if none.

    ``diagnostics`` and ``details.text`` are left out: they may quote the record.
    """
    if outcome.get("resourceType") != "OperationOutcome":
        return ""
    issues = []
    for issue in map(_dict, _list(outcome.get("issue"))[:_MAX_ISSUES]):
        code = str(issue.get("code", ""))
        places = [str(place) for place in _list(issue.get("expression"))]
        kept = " ".join(place for place in places if _EXPRESSION.fullmatch(place))
        issues.append(f"{code if _CODE.fullmatch(code) else 'unknown'} {kept}".strip())
    return f": {', '.join(issues)}" if issues else ""


def _status_code(response: Mapping[str, Any]) -> int:
    """Return the number that an entry's status starts with ("201 Created"); 0 if none."""
    number = str(response.get("status", ""))[:3]
    return int(number) if number.isascii() and number.isdigit() else 0


def _reference(response: Mapping[str, Any]) -> str:
    """Return ``Type/id`` of an entry's location, without the server's address and the version."""
    match = _LOCATION.search(str(response.get("location", "")))
    return match["reference"] if match else "(no location)"


def _escape(text: str) -> str:
    """Escape what has a meaning in a token parameter (R4 search.html#escaping)."""
    return re.sub(r"([\\$,|])", r"\\\1", text)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        return _dict(json.loads(body))
    except ValueError:
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _receipt(item: DeliveryItem, state: ReceiptState, detail: str, *, retry: bool = False) -> Receipt:
    return Receipt(object_uid=item.object_uid, state=state, detail=detail, retry=retry)
