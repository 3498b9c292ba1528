"""Pure. What the models doubt, and what is noted about a reading: free text, taken in with care."""

from __future__ import annotations

from collections.abc import Iterator

from inference.findings import Analysis
from reporting.assistant.evidence import Evidence, EvidenceKind
from reporting.assistant.free_text import clean_free_text
from reporting.assistant.record import StudyRecord
from reporting.draft.words import capitalise, end_sentence
from reporting.safety import LEFT_OUT_SENTENCE, describe_doubt


def doubts_of(analysis: Analysis, record: StudyRecord, *, is_all: bool = False) -> Iterator[Evidence]:
    """Yield the doubts of a model, and its notes where all is asked for."""
    who = f"{analysis.model.name}: "
    texts = [(f"doubt{n}", describe_doubt(doubt), True) for n, doubt in enumerate(analysis.doubts, 1)]
    if is_all:
        notes = enumerate(analysis.notes, 1)
        texts += [(f"note{n}", capitalise(end_sentence(note)), False) for n, note in notes]
    for name, text, is_required in texts:
        clean = clean_free_text(text, record.identifiers)
        yield Evidence(
            evidence_id=f"{analysis.model.name}/{name}",
            kind=EvidenceKind.DOUBT if clean else EvidenceKind.REMARK,
            text=f"{who}{clean}" if clean else LEFT_OUT_SENTENCE,
            is_required=is_required or not clean,
        )
