"""Pure. What is wrong with a text, as values: never with words of the text that may name a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from reporting.text import SectionName


class FaultKind(StrEnum):
    """The ways in which a text is not faithful to its facts."""

    # what it cites
    NO_CITATION = "no_citation"
    UNKNOWN_CITATION = "unknown_citation"
    UNSTATED_CITATION = "unstated_citation"
    # what it says of a finding
    UNSUPPORTED_FINDING = "unsupported_finding"
    WRONG_PRESENCE = "wrong_presence"
    WRONG_SIDE = "wrong_side"
    WRONG_SITE = "wrong_site"
    WRONG_ZONE = "wrong_zone"
    WRONG_NUMBER = "wrong_number"
    WRONG_UNIT = "wrong_unit"
    WRONG_COUNT = "wrong_count"
    WRONG_CERTAINTY = "wrong_certainty"
    WRONG_ALGORITHM = "wrong_algorithm"
    WRONG_EXAMINATION = "wrong_examination"
    # what it adds
    COMPARISON_WITHOUT_PRIOR = "comparison_without_prior"
    ADVICE = "advice"
    DIAGNOSIS = "diagnosis"
    EMBELLISHMENT = "embellishment"
    QUANTIFIER = "quantifier"
    OVERCLAIMED_ABSENCE = "overclaimed_absence"
    HYPOTHETICAL = "hypothetical"
    IDENTIFIER = "identifier"
    INSTRUCTION = "instruction"
    # what cannot be read
    UNKNOWN_WORD = "unknown_word"
    CHARACTER = "character"
    MARKUP = "markup"
    UNCLEAR = "unclear"
    # what the whole text lacks or gainsays
    MISSING_FACT = "missing_fact"
    MISSING_DETAIL = "missing_detail"
    CONTRADICTION = "contradiction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong.

    Attributes
    ----------
    index : int or None
        Which sentence, 0-based; None for a fault of the whole text, such as a fact that it does not state.
    aliases : tuple of str
        The facts that are concerned.
    section : SectionName or None
        Of a fault of the whole text: the section that lacks something.
    detail : str
        What is wrong, free of patient data: it quotes the lexicon and the facts, never a word outside them.
    """

    kind: FaultKind
    index: int | None = None
    aliases: tuple[str, ...] = ()
    detail: str = ""
    section: SectionName | None = None


def group_faults(faults: Iterable[Fault]) -> dict[int | None, tuple[Fault, ...]]:
    """Return faults by the index of their sentence; those of the whole text are under None."""
    groups: dict[int | None, list[Fault]] = {}
    for fault in faults:
        groups.setdefault(fault.index, []).append(fault)
    return {index: tuple(group) for index, group in groups.items()}
