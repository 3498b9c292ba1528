"""Pure. The tools for what was found and how large it is: words of the draft, one statement a finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Final

from inference.findings import Analysis, Presence
from reporting.assistant.evidence import Evidence, EvidenceKind, ToolCall, remark
from reporting.assistant.record import StudyRecord
from reporting.assistant.tools.doubts import doubts_of
from reporting.assistant.tools.ports import ToolPorts
from reporting.assistant.tools.procedure import sought_by
from reporting.assistant.tools.selection import attribute, choose_concepts, choose_findings
from reporting.draft.findings import describe_estimate, describe_findings
from reporting.draft.kinds import name_finding, number_titles, present
from reporting.draft.words import describe_sizes, join
from reporting.safety import ABSENCE_SENTENCE

_ESTIMATED: Final = frozenset({"neoplasm", "tumour"})


def state_findings(
    call: ToolCall, record: StudyRecord, _ports: ToolPorts, _cancel: Event
) -> Iterator[Evidence]:
    """State what was found, was not, or is not looked for, and what must be doubted of it."""
    wanted = choose_concepts(call, record)
    if not call.get("other"):
        for analysis in record.analyses:
            yield from findings_of(analysis, record, wanted, call.get("side"))
    yield from _say_what_is_sought(call, record, wanted)
    for analysis in record.analyses:
        if wanted is None or any(f.concept in wanted for f in analysis.findings):
            yield from doubts_of(analysis, record)


def findings_of(
    analysis: Analysis, record: StudyRecord, wanted: frozenset[str] | None, side: str, prefix: str = ""
) -> Iterator[Evidence]:
    """Yield the findings of one analysis; those of a reading on request have ids with a prefix."""
    who = attribute(record, analysis)
    drafted = describe_findings(replace(analysis, doubts=(), estimates=()), record.views)
    for finding in choose_findings(analysis, wanted, side, record):
        if finding.presence is not Presence.PRESENT and wanted is None:
            continue
        name = name_finding(analysis, finding)
        if finding.presence is Presence.PRESENT:
            sentences = [s.text for s in drafted if s.finding_ids == (name,)]
        else:
            alone = replace(analysis, findings=(finding,), doubts=(), estimates=())
            sentences = [s.text for s in describe_findings(alone, record.views)]
            if finding.presence is Presence.ABSENT:
                sentences.append(ABSENCE_SENTENCE)
        yield Evidence(
            evidence_id=f"{prefix}{name}",
            kind=EvidenceKind.ASIDE if prefix else EvidenceKind.FINDING,
            text=f"{who}{' '.join(sentences)}",
            finding_ids=() if prefix else (name,),
        )
    if wanted is None:
        yield from _others_of(analysis, record, who, prefix)
    yield from _estimates_of(analysis, who, wanted, prefix)


def _others_of(analysis: Analysis, record: StudyRecord, who: str, prefix: str) -> Iterator[Evidence]:
    """Yield what is absent or undetermined, all together, as the draft says it."""
    rest = tuple(f for f in analysis.findings if f.presence is not Presence.PRESENT)
    if analysis.is_refused:
        return
    if rest or (not analysis.findings and not analysis.estimates):
        others = replace(analysis, findings=rest, doubts=(), estimates=())
        names = tuple(name_finding(analysis, finding) for finding in rest)
        yield Evidence(
            evidence_id=f"{prefix}{analysis.model.name}/others",
            kind=EvidenceKind.ASIDE if prefix else EvidenceKind.FINDING,
            text=f"{who}{' '.join(s.text for s in describe_findings(others, record.views))}",
            finding_ids=() if prefix else names,
        )


def _estimates_of(
    analysis: Analysis, who: str, wanted: frozenset[str] | None, prefix: str
) -> Iterator[Evidence]:
    if analysis.is_refused or (wanted is not None and not wanted & _ESTIMATED):
        return
    for estimate in analysis.estimates:
        yield Evidence(
            evidence_id=f"{prefix}{analysis.model.name}/{estimate.scale.value}",
            kind=EvidenceKind.ASIDE if prefix else EvidenceKind.ESTIMATE,
            text=f"{who}{' '.join(describe_estimate(estimate))}",
        )


def _say_what_is_sought(
    call: ToolCall, record: StudyRecord, wanted: frozenset[str] | None
) -> Iterator[Evidence]:
    """Yield what the algorithms look for, where they do not look for what was asked."""
    reported = {f.concept for analysis in record.analyses for f in analysis.findings}
    if call.get("other") or (wanted is not None and not wanted & reported):
        for analysis in record.analyses:
            yield sought_by(analysis, record)


def state_measurements(
    call: ToolCall, record: StudyRecord, _ports: ToolPorts, _cancel: Event
) -> Iterator[Evidence]:
    """State the sizes of what is outlined or marked; where nothing was measured, what was found."""
    wanted, is_any = choose_concepts(call, record), False
    for analysis in record.analyses:
        titles = number_titles(present(analysis.findings))
        for finding in choose_findings(analysis, wanted, call.get("side"), record):
            sizes = describe_sizes(finding)
            if finding.presence is Presence.PRESENT and sizes and not analysis.is_refused:
                is_any = True
                name, who = name_finding(analysis, finding), attribute(record, analysis)
                yield Evidence(
                    evidence_id=name,
                    kind=EvidenceKind.MEASUREMENT,
                    text=f"{who}{titles[finding.finding_id]} measures {join(sizes)}.",
                    finding_ids=(name,),
                )
    if not is_any:
        yield remark("measurements/none", "Nothing of what was asked for was measured in this study.")
        yield from state_findings(call, record, _ports, _cancel)
        return
    for analysis in record.analyses:
        if wanted is None or any(f.concept in wanted for f in analysis.findings):
            yield from doubts_of(analysis, record)
