"""Pure. The gate's check of FHIR: structure by the R4B models, and the rules that those do not know."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from reporting.gate.documents import read_pages
from reporting.gate.violation import Violation
from reporting.safety import REQUIRED_PHRASE

_PRELIMINARY: Final = frozenset({"preliminary"})
_REPORT_STATUSES: Final = frozenset({"preliminary", "final", "amended", "entered-in-error"})
_AI_ASSERTED: Final = "AIAST"
_LABELLED: Final = frozenset({"DiagnosticReport", "Observation", "Provenance"})
_ZONED: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")
_HAS_CLOCK: Final = re.compile(r"\d{4}-\d{2}-\d{2}T")
#: A search in a reference is resolved by the server.
_CONDITIONAL: Final = re.compile(r"[A-Z][A-Za-z]+\?.+")
_LITERAL: Final = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9.\-]{1,64}")

Json = Mapping[str, Any]


def check_bundle(bundle: Json) -> tuple[Violation, ...]:
    """Return every rule that a transaction Bundle breaks.

    Parameters
    ----------
    bundle : mapping
        The Bundle as it will be posted.

    Returns
    -------
    tuple of Violation
        ``object_uid`` is ``type/index of the entry``; empty if the Bundle may leave.
    """
    return tuple(_check(bundle))


def _check(bundle: Json) -> Iterator[Violation]:
    entries = bundle.get("entry") or []
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction" or not entries:
        yield _violation("Bundle", "bundle", "It must be a transaction Bundle with entries.")
        return
    try:
        get_fhir_model_class("Bundle").model_validate(dict(bundle))
    except ValidationError as exc:
        for error in exc.errors():
            place = ".".join(str(part) for part in error["loc"])
            yield _violation("Bundle", "structure", f"{place} has no R4 structure ({error['type']}).")
    full_urls = [entry.get("fullUrl") for entry in entries]
    if len(set(full_urls)) != len(full_urls) or not all(full_urls):
        yield _violation("Bundle", "full-url", "Each entry needs a fullUrl of its own.")
    for index, entry in enumerate(entries):
        yield from _check_entry(entry, index, frozenset(full_urls))
    if sum(entry.get("resource", {}).get("resourceType") == "DiagnosticReport" for entry in entries) != 1:
        yield _violation("Bundle", "report", "There must be one DiagnosticReport.")


def _check_entry(entry: Json, index: int, full_urls: frozenset[str]) -> Iterator[Violation]:
    resource = entry.get("resource") or {}
    kind = str(resource.get("resourceType"))
    where = f"{kind}/{index}"
    yield from _check_request(entry, where, kind)
    if kind in _LABELLED and not _is_labelled(resource):
        yield _violation(where, "security-label", "The label that an algorithm asserted this is missing.")
    for path, key, value in _leaves(resource, ""):
        if key == "reference" and not _resolves(str(value), full_urls):
            yield _violation(where, "dangling-reference", f"{path} refers to nothing in this Bundle.")
        if isinstance(value, str) and _HAS_CLOCK.match(value) and not _ZONED.fullmatch(value):
            yield _violation(where, "naive-time", f"{path} is a time without a zone.")
    for path, element in _elements(resource, ""):
        if sum(key.startswith("value") for key in element) > 1:
            yield _violation(where, "value", f"{path} has more than one value.")
    if kind == "Observation":
        yield from _check_observation(resource, where)
    if kind == "DiagnosticReport":
        yield from _check_report(resource, where)


def _check_request(entry: Json, where: str, kind: str) -> Iterator[Violation]:
    request = entry.get("request") or {}
    url = str(request.get("url", ""))
    if request.get("method") not in {"PUT", "POST"} or re.split(r"[/?]", url)[0] != kind:
        yield _violation(where, "request", "The entry has no request for its own type.")
    if request.get("method") == "POST" and not request.get("ifNoneExist"):
        yield _violation(where, "repeatable", "A POST without ifNoneExist would be stored twice.")
    if request.get("method") == "PUT" and not ("?" in url or url == f"{kind}/{entry['resource'].get('id')}"):
        yield _violation(where, "repeatable", "A PUT must name an id or a search.")


def _check_observation(resource: Json, where: str) -> Iterator[Violation]:
    has_value = any(key.startswith("value") for key in resource)
    if not has_value and not resource.get("hasMember") and not resource.get("dataAbsentReason"):
        yield _violation(where, "value", "An Observation needs a value, members or a reason.")
    if not resource.get("subject") or not resource.get("device"):
        yield _violation(where, "origin", "An Observation needs a subject and the device that made it.")
    quantity = resource.get("valueQuantity")
    if quantity is not None and (
        quantity.get("system") != "http://unitsofmeasure.org" or not quantity.get("code")
    ):
        yield _violation(where, "unit", "A quantity must have a UCUM unit.")


def _check_report(resource: Json, where: str) -> Iterator[Violation]:
    yield from _check_forms(resource, where)
    status = resource.get("status")
    if status not in _REPORT_STATUSES:
        yield _violation(where, "status", "The status is none that Preread gives.")
    is_signed = status in {"final", "amended"}
    if is_signed != bool(resource.get("resultsInterpreter")) and status != "entered-in-error":
        yield _violation(where, "status", "A report is final or amended exactly if a person interpreted it.")
    if not resource.get("subject") or not (
        "effectiveDateTime" in resource or "_effectiveDateTime" in resource
    ):
        yield _violation(where, "report", "A report needs a subject and an effective time.")
    if status not in _PRELIMINARY:
        return
    texts = {"conclusion": str(resource.get("conclusion", "")), "presentedForm": _page(resource)}
    texts["text"] = str(resource.get("text", {}).get("div", ""))
    for name, text in texts.items():
        if REQUIRED_PHRASE not in text:
            yield _violation(where, "banner", f"{name} lacks the notice that nobody reviewed it.")


def _check_forms(resource: Json, where: str) -> Iterator[Violation]:
    """Yield a violation for an attachment that is not what it says, or lacks the notice on a page."""
    for form in resource.get("presentedForm") or []:
        file = _data(form)
        digest = base64.b64encode(hashlib.sha1(file, usedforsecurity=False).digest()).decode()
        if not file or (form.get("size"), form.get("hash")) != (len(file), digest):
            yield _violation(where, "attachment", "presentedForm has another size or hash than its data.")
        if form.get("contentType") != "application/pdf":
            continue
        pages = read_pages(file)
        if not pages or any(REQUIRED_PHRASE.encode() not in page for page in pages):
            yield _violation(where, "banner", "A page of the PDF lacks the notice that nobody reviewed it.")


def _page(resource: Json) -> str:
    forms = resource.get("presentedForm") or [{}]
    try:
        return _data(forms[0]).decode()
    except UnicodeDecodeError:
        return ""


def _data(form: Json) -> bytes:
    try:
        return base64.b64decode(str(form.get("data", "")), validate=True)
    except binascii.Error:
        return b""


def _is_labelled(resource: Json) -> bool:
    labels = (resource.get("meta") or {}).get("security") or []
    return any(label.get("code") == _AI_ASSERTED for label in labels)


def _resolves(reference: str, full_urls: frozenset[str]) -> bool:
    return (
        reference in full_urls
        or _CONDITIONAL.fullmatch(reference) is not None
        or _LITERAL.fullmatch(reference) is not None
    )


def _elements(node: Any, path: str) -> Iterator[tuple[str, Json]]:
    """Yield every object in a resource with its path."""
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            yield from _elements(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for value in node:
            yield from _elements(value, path)


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Yield path, key and value of every primitive in a resource."""
    for place, element in _elements(node, path):
        for key, value in element.items():
            for leaf in value if isinstance(value, list) else [value]:
                if not isinstance(leaf, Mapping):
                    yield (f"{place}.{key}" if place else key), key, leaf


def _violation(where: str, rule: str, message: str) -> Violation:
    return Violation(object_uid=where, rule=rule, message=f"{where}: {message}")
