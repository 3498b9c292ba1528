"""Pure. A question as it is worked on: bounded, free of identifiers; and whether it may be answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from reporting.assistant.identifiers import Identifiers, redact
from reporting.assistant.instructions import reads_as_instruction, strip_invisible
from reporting.assistant.rules import pattern
from reporting.errors import ReportingError
from reporting.safety import (
    ASSISTANT_SCOPE,
    REFUSED_DIAGNOSIS,
    REFUSED_IDENTITY,
    REFUSED_INSTRUCTION,
    REFUSED_OTHER_PATIENT,
    REFUSED_SUBJECT,
    REFUSED_TREATMENT,
)


class UnusableQuestionError(ReportingError):
    """The question is empty or too long: ask one thing in a sentence or two."""


class Refusal(StrEnum):
    """Why a question is not answered."""

    SUBJECT = "subject"
    TREATMENT = "treatment"
    DIAGNOSIS = "diagnosis"
    IDENTITY = "identity"
    OTHER_PATIENT = "other_patient"
    INSTRUCTION = "instruction"


_WORDING: Final = MappingProxyType(
    {
        Refusal.SUBJECT: REFUSED_SUBJECT,
        Refusal.TREATMENT: REFUSED_TREATMENT,
        Refusal.DIAGNOSIS: REFUSED_DIAGNOSIS,
        Refusal.IDENTITY: REFUSED_IDENTITY,
        Refusal.OTHER_PATIENT: REFUSED_OTHER_PATIENT,
        Refusal.INSTRUCTION: REFUSED_INSTRUCTION,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question of a conversation about one run.

    Attributes
    ----------
    text : str
        As the person typed it; goes to the audit trail and nowhere else.
    conversation : str
        Which conversation of the run it belongs to.
    """

    run_id: str
    text: str
    conversation: str = "default"


def clean_question(text: str, identifiers: Identifiers, longest: int) -> str:
    """Return the question on one line, without hidden characters and identifiers.

    Raises
    ------
    UnusableQuestionError
        If nothing is left, or it is longer than ``longest`` characters.
    """
    plain = " ".join(strip_invisible(text).split())
    if not plain:
        raise UnusableQuestionError("The question is empty: ask one thing in a sentence or two.")
    if len(plain) > longest:
        raise UnusableQuestionError(f"The question is longer than {longest} characters: ask one thing.")
    return redact(plain, identifiers)


def find_refusal(asked: str) -> Refusal | None:
    """Return why a question is refused whatever the study holds; None if it may be answered.

    A question for the wording of a source is no question for advice.
    """
    if reads_as_instruction(asked):
        return Refusal.INSTRUCTION
    if _matches("other_patient", asked):
        return Refusal.OTHER_PATIENT
    if _matches("identity", asked):
        return Refusal.IDENTITY
    is_quotable = _matches("sources", asked) and not _matches("doses", asked)
    if (_matches("treatment", asked) or _matches("doses", asked)) and not is_quotable:
        return Refusal.TREATMENT
    if _matches("diagnosis", asked) and not is_quotable:
        return Refusal.DIAGNOSIS
    return None


def word_refusal(refusal: Refusal) -> tuple[str, str]:
    """Return the sentences of a refusal: why, and what can be asked."""
    return _WORDING[refusal], ASSISTANT_SCOPE


def _matches(name: str, asked: str) -> bool:
    return pattern("refusals", name).search(asked) is not None
