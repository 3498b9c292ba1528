"""Pure. What tools are called with and what they return: statements that an answer can cite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class ToolName(StrEnum):
    """The tools: a closed set, the node's own."""

    FINDINGS = "findings"
    MEASUREMENTS = "measurements"
    WHERE_DID_IT_LOOK = "where_did_it_look"
    PROCEDURE = "procedure"
    PRIORS = "priors"
    RETRIEVE = "retrieve"
    RELATED = "related"
    RUN_MODEL = "run_model"


class EvidenceKind(StrEnum):
    """What a statement rests on; decides how a sentence that cites it is checked."""

    FINDING = "finding"
    MEASUREMENT = "measurement"
    ESTIMATE = "estimate"
    TRIAGE = "triage"
    DOUBT = "doubt"
    ATTENTION = "attention"
    PROCEDURE = "procedure"
    PRIOR = "prior"
    PASSAGE = "passage"
    RELATION = "relation"
    ASIDE = "aside"
    REMARK = "remark"


#: What states findings of the run: sentences on it are held to the facts by the checker of reports.
STATED: Final = frozenset({EvidenceKind.FINDING, EvidenceKind.MEASUREMENT})
#: What others wrote: told in its own words with its source, and never shown to a language model.
QUOTED: Final = frozenset({EvidenceKind.PASSAGE, EvidenceKind.RELATION})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call; arguments are short strings, and one that is absent is not given."""

    tool: ToolName
    arguments: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        """Return an argument, empty if it is not given."""
        return self.arguments.get(name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One statement with the id by which it is cited.

    Attributes
    ----------
    evidence_id : str
        ``model/F1`` for a finding, as everywhere; ``source/...`` for a passage.
    text : str
        One or more sentences; of a passage the words of the source.
    finding_ids : tuple of str
        Findings of this run that it states.
    source, licence : str
        Title of a quoted source, and under which terms it may be quoted.
    is_required : bool
        Whether an answer that uses its tool must say it, for example that a model doubts its answer.
    """

    evidence_id: str
    kind: EvidenceKind
    text: str
    finding_ids: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    is_required: bool = False


def remark(evidence_id: str, text: str, *, is_required: bool = False) -> Evidence:
    """Return a statement about the tools themselves, such as that there is nothing to say."""
    return Evidence(evidence_id=evidence_id, kind=EvidenceKind.REMARK, text=text, is_required=is_required)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What one call returned."""

    call: ToolCall
    evidence: tuple[Evidence, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of what was returned, for the audit trail."""
        content = [[item.evidence_id, item.text, item.source] for item in self.evidence]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()
