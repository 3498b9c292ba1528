"""What holds for every tool."""

from __future__ import annotations

from assistant_cases import IDENTIFIERS, brain_record, call_named, chest_record, fusion_record, text_of

from reporting.assistant.evidence import ToolName


def test_no_identifier_is_in_what_any_tool_says() -> None:
    for record in (brain_record(), chest_record(), fusion_record()):
        for tool in ToolName:
            text = text_of(call_named(tool, record, request="segment the brain", query="nodule"))
            assert all(number not in text for number in IDENTIFIERS.numbers)
            assert not any(analysis.study_uid in text for analysis in record.analyses)
