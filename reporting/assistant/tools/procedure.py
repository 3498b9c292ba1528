"""Pure. The tool for how the study was read: which algorithm, which series, and what it looks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Final

from inference.findings import Analysis
from reporting import codes
from reporting.assistant.evidence import Evidence, EvidenceKind, ToolCall, remark
from reporting.assistant.record import StudyRecord
from reporting.assistant.tools.ports import ToolPorts
from reporting.draft.procedure import describe_procedure
from reporting.draft.words import join
from reporting.safety import ASSISTANT_SCOPE

_SILENCE: Final = "What is not looked for may be there all the same."


def state_procedure(
    call: ToolCall, record: StudyRecord, _ports: ToolPorts, _cancel: Event
) -> Iterator[Evidence]:
    """State which algorithm read which series, and what each looks for."""
    if call.get("help"):
        yield remark("assistant/scope", ASSISTANT_SCOPE)
    for analysis in record.analyses:
        quiet = replace(analysis, notes=())  # notes are doubts here, and free text
        sentences = describe_procedure([quiet], record.views, has_heatmaps=False)
        yield Evidence(
            evidence_id=f"{analysis.model.name}/procedure",
            kind=EvidenceKind.PROCEDURE,
            text=" ".join(sentence.text for sentence in sentences),
        )
        yield sought_by(analysis, record)


def sought_by(analysis: Analysis, record: StudyRecord) -> Evidence:
    """State what an algorithm looks for, and that the rest may be there all the same."""
    concepts = record.sought.get(analysis.model.name, ()) or tuple(f.concept for f in analysis.findings)
    nouns = list(dict.fromkeys(codes.code_finding(concept).noun for concept in concepts))
    model = analysis.model
    what = f"looks for {join(nouns)}, and for nothing else" if nouns else "estimates, and marks no finding"
    return Evidence(
        evidence_id=f"{model.name}/sought",
        kind=EvidenceKind.PROCEDURE,
        text=f"The algorithm {model.name}, version {model.version}, {what}. {_SILENCE}",
    )
