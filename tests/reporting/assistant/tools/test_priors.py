"""Earlier studies, as the report compares them."""

from __future__ import annotations

from assistant_cases import FakeComparisons, brain_record, call_named, comparison_of, text_of

from reporting.assistant.evidence import EvidenceKind, ToolName
from reporting.assistant.tools import ToolPorts


def test_priors_say_how_much_grew_since_how_many_days() -> None:
    record = brain_record()
    ports = ToolPorts(priors=FakeComparisons([comparison_of(record)]))
    text = text_of(call_named(ToolName.PRIORS, record, ports))
    assert "90 days earlier" in text
    assert "+100 %" in text
    none = call_named(ToolName.PRIORS, record, ToolPorts())
    assert none[0].kind is EvidenceKind.REMARK
