"""Pure. A question as it is worked on: bounded, free of identifiers, and whether it may be answered at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from reporting.assistant.identifiers import Identifiers, redact
from reporting.assistant.instructions import reads_as_instruction, strip_invisible
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
    if _OTHER_PATIENT.search(asked):
        return Refusal.OTHER_PATIENT
    if _IDENTITY.search(asked):
        return Refusal.IDENTITY
    is_quotable = bool(_SOURCES.search(asked)) and not _DOSES.search(asked)
    if (_TREATMENT.search(asked) or _DOSES.search(asked)) and not is_quotable:
        return Refusal.TREATMENT
    if _DIAGNOSIS.search(asked) and not is_quotable:
        return Refusal.DIAGNOSIS
    return None


def word_refusal(refusal: Refusal) -> tuple[str, str]:
    """Return the sentences of a refusal: why, and what can be asked."""
    return _WORDING[refusal], ASSISTANT_SCOPE


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_OTHER_PATIENT: Final = _any(
    r"\b(?:other|another|different|next|all|every|any other|previous|last|some other) patient(?:s|'s|s')?\b",
    r"\b(?:other|another|different|all) (?:person|people|studies in|runs)\b",
    r"\bpatients (?:in|on|with|who|of)\b|\bwhich patients\b|\bhow many patients\b|\blist (?:all |the )?patients\b",
    r"\bin (?:bed|room|ward) \w+\b|\brun [0-9a-f]{8,}\b|\b(?:her|his) (?:husband|wife|sister|brother|mother|father)",
)
_IDENTITY: Final = _any(
    r"\b(?:patient|person|he|she|they|her|his|their)\b.{0,12}\b(?:name|surname|first name|last name|id|mrn|address|"
    r"phone|telephone|birth\s?da(?:y|te)|date of birth|insurance|identity|email|ssn|home|weight|religion)\b",
    r"\b(?:name|surname|id|mrn|address|telephone|phone|birth\s?da(?:y|te)|identity|age|initials)\b.{0,14}\b"
    r"(?:of|for) (?:the|this|that) (?:patient|person|man|woman)\b",
    r"\bwho (?:is|was) (?:the|this) (?:patient|person)\b|\bwhose (?:study|images?|scan|x-?ray|brain|chest)\b",
    r"\b(?:accession|medical record|social security|insurance|study instance uid|patient id|dob|mrn)\b",
    r"\bhow old\b|\bdate of birth\b|\bwhere does (?:the patient|he|she) live\b|\breferring (?:physician|doctor)\b",
)
_DOSES: Final = _any(
    r"\b(?:dos(?:e|es|age|ing)|milligrams?|mg|mg/kg|mcg|tablets?|infusion rate|units of)\b",
    r"\bhow much (?!of\b)(?:\w+ )?(?:steroid|dexamethasone|antibiotic|contrast|heparin|morphine|insulin|drug)",
)
_TREATMENT: Final = _any(
    r"\btreat(?:s|ed|ing|ment|ments|able)?\b|\btherap(?:y|ies|eutic)\b|\b(?:chemo|radio)therapy\b|\bradiation\b",
    r"\bsurg(?:ery|ical|eon)\b|\boperat(?:e|ion|ive)\b|\bresect(?:ion|ed|able)?\b|\bbiops(?:y|ies)\b|\bdrain(?:age|ed)?\b",
    r"\bprescri\w+|\bmedic(?:ine|ation|ations|ines)\b|\bdrugs?\b|\bantibiotics?\b|\bsteroids?\b|\banticoag\w+",
    r"\b(?:dexamethasone|temozolomide|heparin|amoxicillin|aspirin|furosemide|morphine|insulin|warfarin)\b",
    r"\bchest tube\b|\bthoracentesis\b|\bintubat\w+|\bventilat\w+|\bdischarge\b|\badmit(?:ted)?\b|\bcure\b",
    r"\bshould (?:i|we|he|she|they|the patient|one)\b(?! (?:trust|doubt|believe|look|check|ask))",
    r"\bwhat (?:should|shall|must|can) (?:i|we|be done)\b(?! (?:trust|ask))|\bnext steps?\b|\bmanage(?:ment)?\b",
)
_DIAGNOSIS: Final = _any(
    r"\b(?:diagnos(?:e|is|es|ed|ing))\b|\bprognos(?:is|es|tic)\b|\blife expectancy\b|\bterminal\b",
    r"\bhow long (?:has|have|does|will|would) (?:he|she|they|the patient)\b.{0,20}\b(?:live|left|surviv)",
    r"\bwill (?:he|she|they|the patient|this patient)\b|\bgoing to die\b|\bchances? of (?:survival|dying|cure|recovery)\b",
    r"\bdoes (?:he|she|the patient|this patient) have (?:cancer|covid|tuberculosis|a disease|an infection)\b",
    r"\bis (?:it|this) (?:cancer|cancerous|tuberculosis|covid)\b|\bwhat disease\b|\bwhat is wrong with\b",
    r"\bwhat (?:is|are) (?:the )?(?:cause|causes) of (?:this|the|it)\b|\bwhat caused\b",
)
_SOURCES: Final = _any(
    r"\b(?:guidelines?|guidance|sources?|literature|library|textbooks?|references?|documents?|recommendations? of)\b",
    r"\baccording to (?:the )?(?!model|algorithm)\w+|\bwhat do (?:the )?(?:texts?|papers?) say\b",
)
