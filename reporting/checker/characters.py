"""Pure. What may stand in a text at all: plain ASCII, no markup, nothing that looks like an identifier."""

from __future__ import annotations

import re
from typing import Final

from reporting.checker.faults import FaultKind

#: Longest text of one sentence.
_MAX_LENGTH: Final = 400
#: Marks that no sentence of a report needs.
_MARKUP: Final = re.compile(r"[{}\[\]<>|\\^~`*_#@&=+\"$?!]|--|\s-|-\s|^-|-$|\.\.|https?:|www\.")
_IDENTIFIERS: Final = (
    (re.compile(r"[\w.+-]+@[\w-]+\.\w+"), "an e-mail address"),
    (re.compile(r"\b\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b"), "a date"),
    (re.compile(r"\b\d{1,2}:\d{2}\b"), "a time of day"),
    (re.compile(r"\b(?:1\.2\.|2\.25\.)[\d.]{6,}"), "a UID"),
    (re.compile(r"\d{5,}"), "a long number"),
    (re.compile(r"\+?\d[\d ()/-]{6,}\d"), "a telephone number"),
    (re.compile(r"\b[A-Za-z]{1,4}-?\d{3,}\b"), "a record number"),
)


def find_bad_characters(text: str) -> list[tuple[FaultKind, str]]:
    """Return what is wrong with a text as characters, before any word of it is read.

    Only printable ASCII passes: letters of other scripts that look the same, invisible ones, marks that
    turn the direction of writing, line breaks and pictures do not.
    """
    if len(text) > _MAX_LENGTH:
        return [(FaultKind.UNCLEAR, f"it is longer than {_MAX_LENGTH} characters")]
    faults = []
    if not (text.isascii() and text.isprintable()):
        faults.append((FaultKind.CHARACTER, "it holds other characters than printable ASCII"))
    if not text.strip():
        faults.append((FaultKind.UNCLEAR, "it is empty"))
    if _MARKUP.search(text):
        faults.append((FaultKind.MARKUP, "it holds markup, a question, an exclamation or a dash"))
    faults += [
        (FaultKind.IDENTIFIER, f"it holds what looks like {what}")
        for pattern, what in _IDENTIFIERS
        if pattern.search(text)
    ]
    return faults
