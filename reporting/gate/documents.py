"""Pure. The gate's check of the PDF report: a whole file, with the notice on every page.

It reads the file with a few lines of its own and shares no code with the library that wrote it:
enough for files of the shape that we write (one content stream per page, Flate), and a file of
another shape does not pass.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

from reporting.context import ResultKind, ResultObject
from reporting.gate.evidence import Evidence
from reporting.gate.violation import Violation, object_violation
from reporting.pdf import read_pdf
from reporting.safety import REQUIRED_PHRASE

_OBJECT: Final = re.compile(rb"(\d+) 0 obj\b(.*?)\bendobj\b", re.DOTALL)
_PAGE: Final = re.compile(rb"/Type\s*/Page\b")
_CONTENTS: Final = re.compile(rb"/Contents\s+(\d+) 0 R")
_STREAM: Final = re.compile(rb"\bstream\r?\n(.*)endstream", re.DOTALL)
_DEMANDED: Final = {
    "MIMETypeOfEncapsulatedDocument": "application/pdf",
    "VerificationFlag": "UNVERIFIED",
    "BurnedInAnnotation": "YES",
}


def check_document(result: ResultObject, _: Evidence) -> Iterator[Violation]:
    """Yield a violation for each rule that an Encapsulated PDF breaks."""
    if result.kind is not ResultKind.PDF:
        return
    for keyword, value in _DEMANDED.items():
        if result.dataset.get(keyword) != value:
            yield object_violation(result, "document-flag", f"{keyword} must be {value}.")
    if "HL7InstanceIdentifier" in result.dataset:
        yield object_violation(result, "document-flag", "HL7InstanceIdentifier belongs to CDA alone.")
    if not result.dataset.get("SourceInstanceSequence"):
        yield object_violation(result, "evidence", "It names no image that it rests on.")
    pages = read_pages(read_pdf(result.dataset)) if "EncapsulatedDocument" in result.dataset else []
    if not pages:
        yield object_violation(result, "undecodable", "It holds no whole PDF file with pages.")
    if any(REQUIRED_PHRASE.encode() not in page for page in pages):
        yield object_violation(result, "banner", "A page lacks the notice that nobody reviewed it.")


def read_pages(file: bytes) -> list[bytes]:
    """Return the content of each page of a PDF file; nothing if the file is not whole."""
    if not file.startswith(b"%PDF-") or not file.rstrip().endswith(b"%%EOF"):
        return []
    objects = {int(number): body for number, body in _OBJECT.findall(file)}
    pages = [body for body in objects.values() if _PAGE.search(body)]
    return [_content_of(page, objects) for page in pages]


def _content_of(page: bytes, objects: dict[int, bytes]) -> bytes:
    named = _CONTENTS.search(page)
    held = _STREAM.search(objects.get(int(named.group(1)), b"")) if named else None
    if held is None:
        return b""
    try:
        return zlib.decompressobj().decompress(held.group(1))
    except zlib.error:
        return b""
