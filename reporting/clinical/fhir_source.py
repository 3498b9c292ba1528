"""Pure. What FHIR R4 resources say of a patient's case: orders, conditions and documents.

Parsers of JSON as a server sent it: whatever is missing or of another shape is passed
over, never trusted. Nothing is fetched here; ``integration/clinical.py`` does that.

References
----------
FHIR R4 servicerequest.html, condition.html (con-3, con-4), documentreference.html.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from reporting.clinical.lexicon import SNOMED_SYSTEM, Lexicon
from reporting.clinical.problem import ClinicalProblem, Polarity, SourceKind, SourceText, Time

Json = Mapping[str, Any]
Reader = Callable[[SourceText], tuple[ClinicalProblem, ...]]

#: ServiceRequest.status of orders that do not stand.
_DEAD_ORDERS: Final = frozenset({"revoked", "entered-in-error"})
_DEAD_DOCUMENTS: Final = frozenset({"superseded", "entered-in-error"})
#: Condition.clinicalStatus of what is over.
_OVER: Final = frozenset({"inactive", "remission", "resolved"})
#: Condition.verificationStatus, where it is not "confirmed".
_VERIFICATIONS: Final = {
    "refuted": Polarity.NEGATED,
    "unconfirmed": Polarity.UNCERTAIN,
    "provisional": Polarity.UNCERTAIN,
    "differential": Polarity.UNCERTAIN,
}
#: Media types of attachments that are read; others are pictures, PDF or markup.
_PLAIN: Final = "text/plain"
#: Longest attachment, base64 characters.
_MAX_BASE64: Final = 400_000


def read_service_request(resource: Json) -> tuple[SourceText, ...]:
    """Return the texts of an order: reason, details and notes; none of an order that does not stand."""
    if resource.get("resourceType") != "ServiceRequest" or _text(resource.get("status")) in _DEAD_ORDERS:
        return ()
    texts = [
        *(("ServiceRequest.reasonCode", text) for text in _concepts(resource.get("reasonCode"))),
        *(("ServiceRequest.orderDetail", text) for text in _concepts(resource.get("orderDetail"))),
        *(("ServiceRequest.code", text) for text in _concept(resource.get("code"))),
        *(("ServiceRequest.note", _text(note.get("text"))) for note in _dicts(resource.get("note"))),
    ]
    return tuple(
        SourceText(kind=SourceKind.ORDER, origin=origin, text=text) for origin, text in texts if text.strip()
    )


def read_condition(resource: Json, read: Reader, lexicon: Lexicon) -> tuple[ClinicalProblem, ...]:
    """Return the problems of a condition, with the negation and time that its statuses give.

    Parameters
    ----------
    resource : mapping
        A Condition.
    read : callable
        Reads problems out of text, for conditions without a code of the lexicon.
    lexicon : Lexicon
        Where SNOMED CT codes are looked up first.
    """
    verification = _status(resource.get("verificationStatus"))
    if resource.get("resourceType") != "Condition" or verification == "entered-in-error":
        return ()
    is_over = _status(resource.get("clinicalStatus")) in _OVER or any(
        name.startswith("abatement") and resource[name] not in (False, None) for name in resource
    )
    polarity = _VERIFICATIONS.get(verification)
    time = Time.HISTORICAL if is_over else None
    return tuple(
        ClinicalProblem(
            concept=problem.concept,
            text=problem.text,
            polarity=polarity or problem.polarity,
            time=time or problem.time,
            experiencer=problem.experiencer,
            source=SourceKind.CONDITION,
            origin="Condition.code",
            span=problem.span,
        )
        for problem in _name_condition(_dict(resource.get("code")), read, lexicon)
    )


def _name_condition(code: Json, read: Reader, lexicon: Lexicon) -> tuple[ClinicalProblem, ...]:
    for coding in _dicts(code.get("coding")):
        entry = (
            lexicon.find_code(_text(coding.get("code"))) if coding.get("system") == SNOMED_SYSTEM else None
        )
        if entry is not None:
            return (ClinicalProblem(concept=entry.key, text=entry.noun, source=SourceKind.CONDITION),)
    for text in _concept(code):
        problems = read(SourceText(kind=SourceKind.CONDITION, origin="Condition.code", text=text))
        if problems:
            return problems
    return ()


def read_document(resource: Json) -> tuple[tuple[SourceText, ...], tuple[str, ...]]:
    """Return the inline texts of a document, and the addresses of those that lie elsewhere.

    Returns
    -------
    texts : tuple of SourceText
        Attachments of type text/plain that the resource carries in base64.
    urls : tuple of str
        Addresses of text/plain attachments, as the server wrote them: untrusted.
    """
    if (
        resource.get("resourceType") != "DocumentReference"
        or _text(resource.get("status")) in _DEAD_DOCUMENTS
    ):
        return (), ()
    texts, urls = [], []
    for content in _dicts(resource.get("content")):
        attachment = _dict(content.get("attachment"))
        if not _text(attachment.get("contentType")).lower().startswith(_PLAIN):
            continue
        data, url = _text(attachment.get("data")), _text(attachment.get("url"))
        if data:
            texts.append(decode_text(data))
        elif url:
            urls.append(url)
    sources = (as_document(text) for text in texts)
    return tuple(source for source in sources if source.text.strip()), tuple(urls)


def read_binary(resource: Json) -> SourceText | None:
    """Return the text of a Binary resource; None if it is no plain text."""
    if resource.get("resourceType") != "Binary":
        return None
    if not _text(resource.get("contentType")).lower().startswith(_PLAIN):
        return None
    source = as_document(decode_text(_text(resource.get("data"))))
    return source if source.text.strip() else None


def as_document(text: str) -> SourceText:
    """Return a document's text as a source."""
    return SourceText(kind=SourceKind.DOCUMENT, origin="DocumentReference.content", text=text)


def decode_text(data: str) -> str:
    """Return base64 as text; empty if it is neither."""
    try:
        return base64.b64decode(data[:_MAX_BASE64], validate=False).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        return ""


def resources_of(bundle: Json, resource_type: str) -> Iterator[Json]:
    """Yield the resources of one type in a search answer."""
    for entry in _dicts(bundle.get("entry")):
        resource = _dict(entry.get("resource"))
        if resource.get("resourceType") == resource_type:
            yield resource


def has_identifier(resource: Json, value: str, system: str) -> bool:
    """Say whether a resource carries an identifier of a system; servers that ignore a parameter exist."""
    return any(
        identifier.get("value") == value and identifier.get("system") in (system, None)
        for identifier in (*_dicts(resource.get("identifier")), _dict(resource.get("requisition")))
    )


def _concepts(value: Any) -> Iterator[str]:
    for concept in _dicts(value):
        yield from _concept(concept)


def _concept(value: Any) -> Iterator[str]:
    """Yield a CodeableConcept's text, or its displays where it has none."""
    concept = _dict(value)
    text = _text(concept.get("text"))
    if text:
        yield text
    else:
        yield from dict.fromkeys(
            display
            for display in (_text(coding.get("display")) for coding in _dicts(concept.get("coding")))
            if display
        )


def _status(value: Any) -> str:
    """Return the code of a status that is a CodeableConcept."""
    return next((_text(coding.get("code")) for coding in _dicts(_dict(value).get("coding"))), "")


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[Json]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
