"""Pure. The section of a report that says what the order and the record say."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from reporting.clinical.information import ClinicalInformation
from reporting.safety import CLINICAL_SENTENCE
from reporting.text import ReportText, Section, SectionName, Sentence

#: What is read before it.
_BEFORE: Final = (SectionName.PRIORITY,)


def add_clinical_section(text: ReportText, information: ClinicalInformation | None) -> ReportText:
    """Return a report headed by its clinical information; unchanged where there is none.

    Its sentences rest on no finding, and what says where they come from is not reworded.
    """
    sentences = information.for_report() if information is not None else ()
    if not sentences:
        return text
    section = Section(
        name=SectionName.CLINICAL,
        sentences=tuple(Sentence(text=said, is_fixed=said == CLINICAL_SENTENCE) for said in sentences),
    )
    others = [s for s in text.sections if s.name is not SectionName.CLINICAL]
    place = sum(1 for s in others if s.name in _BEFORE)
    return replace(text, sections=(*others[:place], section, *others[place:]))
