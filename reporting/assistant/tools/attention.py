"""Pure. The tool for where the networks looked, how urgent they call the study, and what they doubt."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from inference.findings import Laterality
from reporting import codes
from reporting.assistant.evidence import Evidence, EvidenceKind, ToolCall, remark
from reporting.assistant.record import LookedAt, StudyRecord
from reporting.assistant.tools.doubts import doubts_of
from reporting.assistant.tools.ports import ToolPorts
from reporting.assistant.tools.selection import attribute, choose_concepts, concept_of
from reporting.safety import HEATMAP_SENTENCE, describe_triage


def state_where_it_looked(
    call: ToolCall, record: StudyRecord, _ports: ToolPorts, _cancel: Event
) -> Iterator[Evidence]:
    """State where the networks looked, the triage and the doubts, or the one of these that is asked for."""
    aspect = call.get("aspect")
    if aspect in {"", "attention"}:
        yield from _attention(call, record)
    if aspect in {"", "triage"}:
        yield from _triage(record)
    if aspect in {"", "doubts"}:
        said = [item for analysis in record.analyses for item in doubts_of(analysis, record, is_all=True)]
        yield from said or [
            remark("doubts/none", "The algorithms state no doubt about their answers in this study.")
        ]


def _attention(call: ToolCall, record: StudyRecord) -> Iterator[Evidence]:
    wanted = choose_concepts(call, record)
    chosen = [one for one in record.looked_at if wanted is None or concept_of(one, record) in wanted]
    for one in chosen or record.looked_at:
        name = f"{one.model}/{one.answer}"
        yield Evidence(
            evidence_id=f"{one.model}/heatmap/{one.answer}",
            kind=EvidenceKind.ATTENTION,
            text=f"{_describe_attention(one, record)} {HEATMAP_SENTENCE}",
            finding_ids=(name,) if concept_of(one, record) else (),
        )
    if not record.looked_at:
        yield remark("heatmaps/none", "No heat map was made in this study.")


def _describe_attention(one: LookedAt, record: StudyRecord) -> str:
    concept = concept_of(one, record)
    answer = codes.code_finding(concept).label if concept else one.answer.replace("_", " ")
    where = f"image {one.image} of {one.images}" if one.images > 1 else "the image"
    side = {Laterality.LEFT: "left side", Laterality.RIGHT: "right side", Laterality.BILATERAL: "both sides"}
    parts = [side[one.place.side]] if one.place.side else []
    parts += [f"{one.place.zone.value} zone"] if one.place.zone else []
    place = f", {', '.join(parts)}" if parts else ""
    return (
        f"For its answer {answer} the network {one.model} looked most at {where}{place}; the strongest "
        f"region covers {100 * one.share:.0f} % of that image."
    )


def _triage(record: StudyRecord) -> Iterator[Evidence]:
    stated = [a for a in record.analyses if a.triage is not None and not a.is_refused]
    for analysis in stated:
        assert analysis.triage is not None
        yield Evidence(
            evidence_id=f"{analysis.model.name}/triage",
            kind=EvidenceKind.TRIAGE,
            text=f"{attribute(record, analysis)}{describe_triage(analysis.triage)}",
        )
    if not stated:
        yield remark("triage/none", "No algorithm of this run states how urgent the study is.")
