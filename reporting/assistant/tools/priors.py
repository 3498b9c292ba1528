"""Pure. The tool for earlier studies: what the report's comparison says of what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Final

from reporting.assistant.evidence import Evidence, EvidenceKind, ToolCall, remark
from reporting.assistant.record import StudyRecord
from reporting.assistant.tools.ports import ToolPorts
from reporting.assistant.tools.selection import choose_concepts
from reporting.comparison import describe_changes, describe_no_change

_MOST_PRIORS: Final = 3


def state_priors(call: ToolCall, record: StudyRecord, ports: ToolPorts, _cancel: Event) -> Iterator[Evidence]:
    """State what changed against earlier studies, the latest first."""
    comparisons = ports.priors.comparisons_of(record.run_id) if ports.priors else ()
    if not comparisons:
        yield remark("priors/none", "This study was compared with no earlier study of this patient.")
        return
    wanted = choose_concepts(call, record)
    for number, one in enumerate(comparisons[:_MOST_PRIORS], 1):
        asked = tuple(change for change in one.changes if wanted is None or change.concept in wanted)
        sentences = describe_changes(asked, record.views) or describe_no_change(one.prior.days)
        for line, sentence in enumerate(sentences, 1):
            yield Evidence(
                evidence_id=f"prior-{number}/{line}",
                kind=EvidenceKind.PRIOR,
                text=sentence.text,
                finding_ids=sentence.finding_ids,
                is_required=not sentence.finding_ids and line > 1,
            )
