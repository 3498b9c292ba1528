"""Pure. What names the patient of a study, and taking it out of free text.

Questions, notes and passages are free text: before any of them reaches a prompt, an
answer or a conversation's memory, what identifies this study's patient is taken out,
and so is what looks like a date, a number or an address of anybody. Sentences that are
made from findings hold none of it by construction.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from reporting.assistant.vocabulary import is_vocabulary

#: What stands where something was taken out.
REMOVED: Final = "[removed]"
#: An identifier as short as this occurs in every text: it is taken out of free text as a whole word only.
_SHORT: Final = 4
#: A number as short as this (Study ID "1") is in every measurement and interval: it is taken out only where
#: the words before it make it an identifier.
_TRIVIAL_DIGITS: Final = 3
_NAMED_AS_IDENTIFIER: Final = (
    r"(\b(?:patient|person|case|record|accession|mrn|pid|id)\b[\s:#=.]*"
    r"(?:(?:id|identifier|number|no|nr|is)\b[\s:#=.]*){0,2})"
)
#: A publication (ISO 26324), and terms and releases of the ontologies that are cited: nobody's digits.
_PUBLIC: Final = re.compile(
    r"\bdoi(?:\.org/|:\s*)10\.\d{4,9}/[^\s,;)\]\"]+"
    r"|\b(?:HP|OMIM|ORPHA):\d{1,7}\b"
    r"|\b(?:HPO|Human Phenotype Ontology, release) \d{4}-\d{2}-\d{2}\b",
    re.IGNORECASE,
)
_LAST_LATIN: Final = "\u024f"
_MONTHS: Final = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
#: A UID (PS3.5 chapter 9).
_UID: Final = r"\b[012](?:\.\d+){4,}\b"
_ANYBODYS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",  # e-mail
        _UID,
        r"\b\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b",  # date
        rf"\b\d{{1,2}}(?:st|nd|rd|th)?\.?\s+{_MONTHS}\.?,?\s+\d{{4}}\b",
        rf"\b{_MONTHS}\.?\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}}\b",
        r"\+?\d(?:[\s-]?\d){5,}",  # telephone, record and accession numbers, dates in one piece
    )
)
_TOKEN: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifiers:
    """What identifies the patient and the study of a run; kept in memory only, never written.

    Attributes
    ----------
    names : tuple of str
        Components of Patient's Name and of other persons' names in the headers.
    numbers : tuple of str
        Patient IDs, accession numbers, birth dates, study ids, UIDs.
    """

    names: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


def redact(text: str, identifiers: Identifiers) -> str:
    """Return a free text without what identifies this patient, or anybody.

    A part of a name that is a word of the vocabulary of questions ("Mass", "Long") stays: in a
    question it says nothing of the patient.
    """
    text = _take_out_anybodys(text)
    for number in identifiers.numbers:
        text = _take_out_number(text, number)
    parts = _name_parts(identifiers.names)
    for part in parts:
        if any(letter > _LAST_LATIN for letter in part):
            text = re.sub(re.escape(part), REMOVED, text, flags=re.IGNORECASE)
    folded = {_fold(part) for part in parts}
    return _TOKEN.sub(lambda found: REMOVED if _names(found.group(), folded) else found.group(), text)


def mentions(text: str, identifiers: Identifiers) -> bool:
    """Say whether a finished sentence holds an identifier that is long enough to be no coincidence."""
    numbers = [number for number in identifiers.numbers if len(_alphanumeric(number)) > _SHORT]
    if re.search(_UID, text) or any(_number_pattern(number).search(text) for number in numbers):
        return True
    folded = {_fold(part) for part in _name_parts(identifiers.names) if len(part) > _SHORT}
    return any(_names(token, folded) for token in _TOKEN.findall(text))


def _take_out_anybodys(text: str) -> str:
    """Return a text without what looks like a date, a number or an address of anybody."""
    kept, rest = _PUBLIC.findall(text), _PUBLIC.split(text)
    for pattern in _ANYBODYS:
        rest = [pattern.sub(REMOVED, piece) for piece in rest]
    return "".join(piece + public for piece, public in zip_longest(rest, kept, fillvalue=""))


def _take_out_number(text: str, number: str) -> str:
    plain = _alphanumeric(number)
    if not plain:
        return text
    pattern = _number_pattern(number)
    if plain.isdigit() and len(plain) <= _TRIVIAL_DIGITS:
        named = re.compile(_NAMED_AS_IDENTIFIER + pattern.pattern, re.IGNORECASE)
        return named.sub(rf"\g<1>{REMOVED}", text)
    return pattern.sub(REMOVED, text)


def _name_parts(names: Iterable[str]) -> list[str]:
    parts = [part for name in names for part in re.split(r"[\W_]+", name)]
    return [part for part in dict.fromkeys(parts) if len(part) > 1 and not is_vocabulary(part)]


def _names(token: str, folded: set[str]) -> bool:
    """Say whether a word is part of a name; a very short one only where it is written like a name."""
    if _fold(token.removesuffix("s")) not in folded and _fold(token) not in folded:
        return False
    return len(token) > 2 or not token.islower()  # noqa: PLR2004 - "Li" is a name, "li" is none


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _alphanumeric(number: str) -> str:
    return re.sub(r"[\W_]+", "", number)


def _number_pattern(number: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in re.findall(r"[^\W\d_]+|\d+", number)]
    joined = r"[\W_]*".join(parts)
    return re.compile(rf"(?<![^\W_]){joined}(?![^\W_])", re.IGNORECASE)
