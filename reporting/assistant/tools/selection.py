"""Pure. Which findings of a run a call asks for, and how a statement names its algorithm."""

from __future__ import annotations

from inference.findings import Analysis, Finding, Laterality
from reporting.assistant.evidence import ToolCall
from reporting.assistant.record import LookedAt, StudyRecord
from reporting.projection import locate


def choose_concepts(call: ToolCall, record: StudyRecord) -> frozenset[str] | None:
    """Return the findings asked for; of several that a word may mean those that the run speaks of."""
    asked = frozenset(filter(None, call.get("concepts").split(",")))
    if not asked:
        return None
    known = {f.concept for analysis in record.analyses for f in analysis.findings}
    return asked & known or asked


def choose_findings(
    analysis: Analysis, wanted: frozenset[str] | None, side: str, record: StudyRecord
) -> list[Finding]:
    """Return the findings asked for; a side narrows them only where it leaves any."""
    chosen = [f for f in analysis.findings if wanted is None or f.concept in wanted]
    sided = [f for f in chosen if side and _side_of(f, record) in {side, Laterality.BILATERAL.value}]
    return sided or chosen


def _side_of(finding: Finding, record: StudyRecord) -> str:
    side = finding.laterality or (locate(finding.box, record.views).side if finding.box else None)
    return "" if side is None else side.value


def concept_of(one: LookedAt, record: StudyRecord) -> str:
    """Return the finding that a heat map is about, empty if it is about none."""
    return next(
        (
            finding.concept
            for analysis in record.analyses
            for finding in analysis.findings
            if (analysis.model.name, finding.finding_id) == (one.model, one.answer)
        ),
        "",
    )


def attribute(record: StudyRecord, analysis: Analysis) -> str:
    """Return how a statement begins: with the name of its algorithm where there are several."""
    return f"{analysis.model.name}: " if len(record.analyses) > 1 else ""
