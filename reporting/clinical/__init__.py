"""What is known of a patient's case before the images: notes, order and history as coded problems.

Free text comes in from headers, FHIR resources and paste; only words of a closed
vocabulary go out, so that no name, number or instruction of a note reaches a prompt
or a report.
"""

from reporting.clinical.information import ClinicalInformation, Remark, gather
from reporting.clinical.lexicon import Lexicon, LexiconEntry, load_lexicon
from reporting.clinical.note_reader import NoteReader, NoteReaderError, read_all
from reporting.clinical.problem import (
    ClinicalProblem,
    Experiencer,
    Polarity,
    SourceKind,
    SourceText,
    Time,
)
from reporting.clinical.section import add_clinical_section

__all__ = [
    "ClinicalInformation",
    "ClinicalProblem",
    "Experiencer",
    "Lexicon",
    "LexiconEntry",
    "NoteReader",
    "NoteReaderError",
    "Polarity",
    "Remark",
    "SourceKind",
    "SourceText",
    "Time",
    "add_clinical_section",
    "gather",
    "load_lexicon",
    "read_all",
]
