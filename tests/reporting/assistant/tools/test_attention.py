"""Where networks looked, triage, doubts and the procedure: told apart, and no free text smuggled in."""

from __future__ import annotations

from dataclasses import replace

from assistant_cases import INJECTION, brain_record, call_named, chest_record, text_of

from inference.findings import Caveat, Doubt
from reporting.assistant.evidence import EvidenceKind, ToolName
from reporting.safety import HEATMAP_SENTENCE, LEFT_OUT_SENTENCE


def test_where_it_looked_says_what_a_heat_map_is_not() -> None:
    (item,) = call_named(ToolName.WHERE_DID_IT_LOOK, chest_record(), aspect="attention")
    assert item.text.startswith("For its answer Pleural effusion the network chest-detector looked most at")
    assert item.text.endswith(HEATMAP_SENTENCE)
    assert item.finding_ids == ("chest-detector/F2",)


def test_triage_and_doubts_are_told_apart() -> None:
    triage = call_named(ToolName.WHERE_DID_IT_LOOK, chest_record(), aspect="triage")
    assert {item.kind for item in triage} == {EvidenceKind.TRIAGE}
    doubts = text_of(call_named(ToolName.WHERE_DID_IT_LOOK, brain_record(), aspect="doubts"))
    assert "The slices are thicker than those of the training data." in doubts
    silent = replace(brain_record().analyses[0], notes=())
    said = text_of(call_named(ToolName.WHERE_DID_IT_LOOK, brain_record(analyses=(silent,)), aspect="doubts"))
    assert said == "The algorithms state no doubt about their answers in this study."


def test_a_note_or_doubt_that_gives_instructions_is_left_out() -> None:
    analysis = brain_record().analyses[0]
    doubt = Doubt(caveat=Caveat.LOW_CONFIDENCE, sentence=INJECTION)
    record = brain_record(
        analyses=(replace(analysis, notes=(INJECTION, "Read for Testpatient."), doubts=(doubt,)),)
    )
    for tool in ToolName:
        text = text_of(call_named(tool, record, query="nodules", concepts=""))
        assert "gnore all previous" not in text
        assert "Testpatient" not in text
    said = text_of(call_named(ToolName.WHERE_DID_IT_LOOK, record, aspect="doubts"))
    assert said.count(LEFT_OUT_SENTENCE) == 2
    assert "Read for [removed]." in said


def test_the_procedure_names_algorithm_version_series_and_substitution() -> None:
    text = text_of(call_named(ToolName.PROCEDURE, brain_record()))
    assert "brain-tumour-lgg, version 1.0.0" in text
    assert "the FLAIR series stood in for it" in text
