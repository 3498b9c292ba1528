"""Pure. What a note says of a patient, one problem at a time, and where a text came from.

A problem is an entry of the lexicon with how it was said: present, denied or asked
about, now or earlier, of the patient or of a relative. It keeps no words of the note
but those of the lexicon.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Polarity(StrEnum):
    """Whether a text says that the problem is there."""

    PRESENT = "present"
    NEGATED = "negated"
    UNCERTAIN = "uncertain"


class Time(StrEnum):
    """When the problem is."""

    CURRENT = "current"
    HISTORICAL = "historical"
    PLANNED = "planned"


class Experiencer(StrEnum):
    """Whose problem it is."""

    PATIENT = "patient"
    FAMILY = "family"


class SourceKind(StrEnum):
    """Where a text came from, in the order in which sources are believed."""

    ORDER = "order"
    PASTED = "pasted"
    HISTORY = "history"
    CONDITION = "condition"
    DOCUMENT = "document"

    @property
    def is_order(self) -> bool:
        """Whether the referrer wrote it for this study."""
        return self in {SourceKind.ORDER, SourceKind.PASTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """Free text from one place; it stays where it is read and is never passed on.

    Attributes
    ----------
    origin : str
        The element it was in: ``ReasonForTheRequestedProcedure``, ``ServiceRequest.note``.
    text : str
        Unfiltered; may name anybody.
    """

    kind: SourceKind
    origin: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClinicalProblem:
    """One problem as one source has it.

    Attributes
    ----------
    concept : str
        Key of the lexicon.
    text : str
        The lexicon's spelling that was met, not the note's.
    is_asked : bool
        The referrer asks whether it is there; its polarity is then uncertain.
    source : SourceKind
        What kind of source said it.
    origin : str
        The element of the source.
    span : tuple of int or None
        First character and the one after the last in the source's text; None for coded entries.
    """

    concept: str
    text: str
    polarity: Polarity = Polarity.PRESENT
    time: Time = Time.CURRENT
    experiencer: Experiencer = Experiencer.PATIENT
    is_asked: bool = False
    source: SourceKind = SourceKind.ORDER
    origin: str = ""
    span: tuple[int, int] | None = None

    @property
    def meaning(self) -> tuple[str, Polarity, Time, Experiencer]:
        """What is said, whoever says it."""
        return self.concept, self.polarity, self.time, self.experiencer
