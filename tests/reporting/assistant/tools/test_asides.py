"""Readings on request: which model, which series, and what is no result."""

from __future__ import annotations

import pytest
from assistant_cases import FakeRunner, brain_record, call_named

from reporting.assistant.evidence import EvidenceKind, ToolName
from reporting.assistant.record import AsideState
from reporting.assistant.tools import ToolPorts
from reporting.safety import ASIDE_SENTENCE


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ({"request": "segment the brain again"}, ("brain-tumour-lgg@1.0.0", None)),
        ({"request": "run it", "model": "head-ct", "series": "3"}, ("head-ct@1.0.0", 3)),
        ({"request": "run head-ct please"}, ("head-ct@1.0.0", None)),
        ({"request": "run a model"}, None),
        ({"request": "segment it", "series": "9"}, None),
    ],
)
def test_a_model_is_chosen_by_name_or_task_and_else_asked_for(arguments, asked) -> None:
    record = brain_record()
    runner = FakeRunner(analysis=record.analyses[0])
    evidence = call_named(ToolName.RUN_MODEL, record, ToolPorts(runner=runner), **arguments)
    assert runner.asked == ([asked] if asked else [])
    if asked:
        assert ASIDE_SENTENCE in evidence[0].text
        assert all(item.kind is EvidenceKind.ASIDE and not item.finding_ids for item in evidence)
    else:
        assert [item.kind for item in evidence] == [EvidenceKind.REMARK]


def test_a_reading_that_is_not_done_is_no_result() -> None:
    for state, word in ((AsideState.UNDERWAY, "is being read"), (AsideState.IMPOSSIBLE, "could not be read")):
        ports = ToolPorts(runner=FakeRunner(state=state))
        (item,) = call_named(ToolName.RUN_MODEL, brain_record(), ports, request="segment the brain")
        assert word in item.text
        assert item.kind is EvidenceKind.REMARK
