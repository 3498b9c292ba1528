"""What was found and measured, as statements that cite every finding."""

from __future__ import annotations

from assistant_cases import brain_record, call_named, chest_record, fusion_record, text_of

from reporting.assistant.evidence import ToolName
from reporting.facts import collect_facts


def test_findings_are_those_of_all_models_and_cite_every_one() -> None:
    record = chest_record()
    evidence = call_named(ToolName.FINDINGS, record)
    cited = {one for item in evidence for one in item.finding_ids}
    assert cited == {fact.fact_id for fact in collect_facts(record.analyses).facts}
    text = text_of(evidence)
    assert "chest-detector: Cardiomegaly: marked over the heart." in text
    assert "Not detected: hernia and pneumothorax." in text
    assert "must be doubted: The film is rotated." in text


def test_a_finding_that_is_absent_is_said_with_what_that_does_not_mean() -> None:
    (item,) = [
        i for i in call_named(ToolName.FINDINGS, chest_record(), concepts="pneumothorax") if i.finding_ids
    ]
    assert item.finding_ids == ("chest-labels/F5",)
    assert item.text == (
        "chest-labels: No pneumothorax was detected in the pleura. This does not rule out disease."
    )


def test_models_that_disagree_are_both_told() -> None:
    evidence = call_named(ToolName.FINDINGS, chest_record(), concepts="effusion")
    assert {i.finding_ids for i in evidence if i.finding_ids} == {
        ("chest-detector/F2",),
        ("chest-labels/F1",),
    }


def test_what_no_model_looks_for_is_answered_by_what_they_look_for() -> None:
    for arguments in ({"other": "fracture"}, {"concepts": "cardiomegaly"}):
        evidence = call_named(ToolName.FINDINGS, brain_record(), **arguments)
        assert [item.evidence_id for item in evidence] == ["brain-tumour-lgg/sought"]
        assert "looks for FLAIR signal abnormality, and for nothing else" in evidence[0].text


def test_a_side_narrows_findings_and_measurements() -> None:
    left = call_named(ToolName.MEASUREMENTS, brain_record(), side="left")
    assert [item.evidence_id for item in left] == ["brain-tumour-lgg/F2"]
    assert len(call_named(ToolName.MEASUREMENTS, brain_record())) == 2
    assert "0.20 mL" in left[0].text


def test_what_was_not_measured_is_said() -> None:
    evidence = call_named(ToolName.MEASUREMENTS, chest_record(), concepts="pneumonia")
    assert "Nothing of what was asked for was measured" in evidence[0].text
    assert evidence[1].finding_ids == ("chest-labels/F2",)


def test_estimates_come_with_what_they_do_not_mean() -> None:
    text = text_of(call_named(ToolName.FINDINGS, fusion_record()))
    assert "This is an estimate by an algorithm and not a diagnosis." in text
