"""Pure. The tools of the assistant: the node's own results and sources, as statements that can be cited.

A tool adds no words of its own to what the draft, the comparison or a source says, but
where there is nothing to say. Free text that was not made from findings (notes, doubts,
passages) is taken in without identifiers, and left out where it reads as an instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import Event
from types import MappingProxyType
from typing import Final

from reporting.assistant.evidence import Evidence, ToolCall, ToolName, ToolResult
from reporting.assistant.record import StudyRecord
from reporting.assistant.tools.asides import choose_models, run_model
from reporting.assistant.tools.attention import state_where_it_looked
from reporting.assistant.tools.findings import state_findings, state_measurements
from reporting.assistant.tools.ports import (
    FoundPassage,
    KnowledgeGraph,
    Library,
    ModelRunner,
    PriorStudies,
    ToolPorts,
)
from reporting.assistant.tools.priors import state_priors
from reporting.assistant.tools.procedure import state_procedure
from reporting.assistant.tools.sources import quote_passages, state_relations

__all__ = [
    "FoundPassage",
    "KnowledgeGraph",
    "Library",
    "ModelRunner",
    "PriorStudies",
    "ToolPorts",
    "call_tool",
    "choose_models",
]

Tool = Callable[[ToolCall, StudyRecord, ToolPorts, Event], Iterator[Evidence]]

_TOOLS: Final[Mapping[ToolName, Tool]] = MappingProxyType(
    {
        ToolName.FINDINGS: state_findings,
        ToolName.MEASUREMENTS: state_measurements,
        ToolName.WHERE_DID_IT_LOOK: state_where_it_looked,
        ToolName.PROCEDURE: state_procedure,
        ToolName.PRIORS: state_priors,
        ToolName.RETRIEVE: quote_passages,
        ToolName.RELATED: state_relations,
        ToolName.RUN_MODEL: run_model,
    }
)


def call_tool(call: ToolCall, record: StudyRecord, ports: ToolPorts, cancel: Event) -> ToolResult:
    """Return what a tool says of a run.

    Raises
    ------
    PrereadError
        If a port could not answer.
    """
    evidence = tuple(_TOOLS[call.tool](call, record, ports, cancel))
    return ToolResult(call=call, evidence=evidence)
