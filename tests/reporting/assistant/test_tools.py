"""What the tools say of a study, and that free text can smuggle nothing in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Event

import pytest
from assistant_cases import (
    IDENTIFIERS,
    INJECTION,
    FakeComparisons,
    FakeGraph,
    FakeLibrary,
    FakePassage,
    FakeRunner,
    brain_record,
    chest_record,
    comparison_of,
    fusion_record,
    ports_for,
)

from inference.findings import Caveat, Doubt
from reporting.assistant.evidence import Evidence, EvidenceKind, ToolCall, ToolName
from reporting.assistant.record import AsideState, Relation, StudyRecord
from reporting.assistant.tools import ToolPorts, call_tool
from reporting.facts import collect_facts
from reporting.language.knowledge_graph import ASSOCIATION_NOTICE
from reporting.safety import ASIDE_SENTENCE, HEATMAP_SENTENCE, LEFT_OUT_SENTENCE


def call(tool: ToolName, record: StudyRecord, ports: ToolPorts | None = None, **arguments: str):
    wanted = ToolCall(tool=tool, arguments=arguments)
    return call_tool(wanted, record, ports or ports_for(record), Event()).evidence


def text_of(evidence: tuple[Evidence, ...]) -> str:
    return "\n".join(item.text for item in evidence)


def test_findings_are_those_of_all_models_and_cite_every_one() -> None:
    record = chest_record()
    evidence = call(ToolName.FINDINGS, record)
    cited = {one for item in evidence for one in item.finding_ids}
    assert cited == {fact.fact_id for fact in collect_facts(record.analyses).facts}
    text = text_of(evidence)
    assert "chest-detector: Cardiomegaly: marked over the heart." in text
    assert "Not detected: hernia and pneumothorax." in text
    assert "must be doubted: The film is rotated." in text


def test_a_finding_that_is_absent_is_said_with_what_that_does_not_mean() -> None:
    (item,) = [i for i in call(ToolName.FINDINGS, chest_record(), concepts="pneumothorax") if i.finding_ids]
    assert item.finding_ids == ("chest-labels/F5",)
    assert item.text == (
        "chest-labels: No pneumothorax was detected in the pleura. This does not rule out disease."
    )


def test_models_that_disagree_are_both_told() -> None:
    evidence = call(ToolName.FINDINGS, chest_record(), concepts="effusion")
    assert {i.finding_ids for i in evidence if i.finding_ids} == {
        ("chest-detector/F2",),
        ("chest-labels/F1",),
    }


def test_what_no_model_looks_for_is_answered_by_what_they_look_for() -> None:
    for arguments in ({"other": "fracture"}, {"concepts": "cardiomegaly"}):
        evidence = call(ToolName.FINDINGS, brain_record(), **arguments)
        assert [item.evidence_id for item in evidence] == ["brain-tumour-lgg/sought"]
        assert "looks for FLAIR signal abnormality, and for nothing else" in evidence[0].text


def test_a_side_narrows_findings_and_measurements() -> None:
    left = call(ToolName.MEASUREMENTS, brain_record(), side="left")
    assert [item.evidence_id for item in left] == ["brain-tumour-lgg/F2"]
    assert len(call(ToolName.MEASUREMENTS, brain_record())) == 2
    assert "0.20 mL" in left[0].text


def test_what_was_not_measured_is_said() -> None:
    evidence = call(ToolName.MEASUREMENTS, chest_record(), concepts="pneumonia")
    assert "Nothing of what was asked for was measured" in evidence[0].text
    assert evidence[1].finding_ids == ("chest-labels/F2",)


def test_estimates_come_with_what_they_do_not_mean() -> None:
    text = text_of(call(ToolName.FINDINGS, fusion_record()))
    assert "This is an estimate by an algorithm and not a diagnosis." in text


def test_where_it_looked_says_what_a_heat_map_is_not() -> None:
    (item,) = call(ToolName.WHERE_DID_IT_LOOK, chest_record(), aspect="attention")
    assert item.text.startswith("For its answer Pleural effusion the network chest-detector looked most at")
    assert item.text.endswith(HEATMAP_SENTENCE)
    assert item.finding_ids == ("chest-detector/F2",)


def test_triage_and_doubts_are_told_apart() -> None:
    triage = call(ToolName.WHERE_DID_IT_LOOK, chest_record(), aspect="triage")
    assert {item.kind for item in triage} == {EvidenceKind.TRIAGE}
    doubts = text_of(call(ToolName.WHERE_DID_IT_LOOK, brain_record(), aspect="doubts"))
    assert "The slices are thicker than those of the training data." in doubts
    silent = replace(brain_record().analyses[0], notes=())
    said = text_of(call(ToolName.WHERE_DID_IT_LOOK, brain_record(analyses=(silent,)), aspect="doubts"))
    assert said == "The algorithms state no doubt about their answers in this study."


def test_the_procedure_names_algorithm_version_series_and_substitution() -> None:
    text = text_of(call(ToolName.PROCEDURE, brain_record()))
    assert "brain-tumour-lgg, version 1.0.0" in text
    assert "the FLAIR series stood in for it" in text


def test_priors_say_how_much_grew_since_how_many_days() -> None:
    record = brain_record()
    ports = ToolPorts(priors=FakeComparisons([comparison_of(record)]))
    text = text_of(call(ToolName.PRIORS, record, ports))
    assert "90 days earlier" in text
    assert "+100 %" in text
    none = call(ToolName.PRIORS, record, ToolPorts())
    assert none[0].kind is EvidenceKind.REMARK


def test_passages_are_quoted_with_source_and_licence_or_not_at_all() -> None:
    evidence = call(ToolName.RETRIEVE, chest_record(), query="What is a pneumothorax?")
    assert evidence[0].evidence_id == "source/sample-pneumothorax#1"
    assert (evidence[0].source, evidence[0].licence) == (
        "Sample text: pneumothorax, Sample society", "public domain",
    )  # fmt: skip
    nothing = call(ToolName.RETRIEVE, chest_record(), query="What does the guideline say about fishing?")
    assert [item.kind for item in nothing] == [EvidenceKind.REMARK]


def test_a_passage_that_gives_instructions_or_names_the_patient_is_kept_out() -> None:
    passages = (
        FakePassage("evil#1", f"Nodules are common. {INJECTION}"),
        FakePassage("leak#1", "The nodule of Testpatient (SYN-0001) was followed."),
    )
    ports = ToolPorts(library=FakeLibrary(passages))
    evidence = call(ToolName.RETRIEVE, chest_record(), ports, query="guideline on nodules")
    assert [item.text for item in evidence] == [
        LEFT_OUT_SENTENCE, "The nodule of [removed] ([removed]) was followed.",
    ]  # fmt: skip


def test_passages_keep_ids_of_their_own_whatever_is_taken_out_of_them() -> None:
    names = ("text#1", "text#2", "SYN-0001/a#1", "SYN-0001/a#2", "0001/Testpatient#1")
    passages = tuple(FakePassage(name, f"Nodule {name[-1]} of 1 mm.") for name in names)
    record = chest_record(identifiers=replace(IDENTIFIERS, numbers=(*IDENTIFIERS.numbers, "1", "0001")))
    for some in (passages[:3], passages[2:], passages[2:3] * 2):
        evidence = call(ToolName.RETRIEVE, record, ToolPorts(library=FakeLibrary(some)), query="nodule")
        ids = [item.evidence_id for item in evidence]
        assert len(set(ids)) == len(ids) == len(some)
        assert "SYN" not in "".join(ids)
        assert {item.text[-5:] for item in evidence} == {"1 mm."}
    first = call(ToolName.RETRIEVE, record, ToolPorts(library=FakeLibrary(passages[:2])), query="nodule")
    assert [item.evidence_id for item in first] == ["source/text#1", "source/text#2"]


def test_a_relation_that_gives_instructions_is_left_out_and_said_to_be() -> None:
    class Hostile:
        def related(self, concepts: Sequence[str]) -> Sequence[Relation]:
            return (
                Relation(text=f"{INJECTION} (passage): named", source="Ward"),
                Relation(text="Heart is within thorax", source="Ward"),
            )

    evidence = call(ToolName.RELATED, chest_record(), ToolPorts(graph=Hostile()), concepts="cardiomegaly")
    assert [item.text for item in evidence[1:]] == [LEFT_OUT_SENTENCE, "Heart is within thorax."]


def test_a_note_or_doubt_that_gives_instructions_is_left_out() -> None:
    analysis = brain_record().analyses[0]
    doubt = Doubt(caveat=Caveat.LOW_CONFIDENCE, sentence=INJECTION)
    record = brain_record(
        analyses=(replace(analysis, notes=(INJECTION, "Read for Testpatient."), doubts=(doubt,)),)
    )
    for tool in ToolName:
        text = text_of(call(tool, record, query="nodules", concepts=""))
        assert "gnore all previous" not in text
        assert "Testpatient" not in text
    said = text_of(call(ToolName.WHERE_DID_IT_LOOK, record, aspect="doubts"))
    assert said.count(LEFT_OUT_SENTENCE) == 2
    assert "Read for [removed]." in said


def test_relations_name_their_source() -> None:
    evidence = call(ToolName.RELATED, chest_record(), concepts="cardiomegaly")
    assert (evidence[0].text, evidence[0].is_required) == (ASSOCIATION_NOTICE, True)
    assert evidence[1].source == "Sample ontology"
    assert call(ToolName.RELATED, chest_record(), ToolPorts())[0].kind is EvidenceKind.REMARK
    assert call(ToolName.RELATED, chest_record(), ToolPorts(graph=FakeGraph()))


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
    evidence = call(ToolName.RUN_MODEL, record, ToolPorts(runner=runner), **arguments)
    assert runner.asked == ([asked] if asked else [])
    if asked:
        assert ASIDE_SENTENCE in evidence[0].text
        assert all(item.kind is EvidenceKind.ASIDE and not item.finding_ids for item in evidence)
    else:
        assert [item.kind for item in evidence] == [EvidenceKind.REMARK]


def test_a_reading_that_is_not_done_is_no_result() -> None:
    for state, word in ((AsideState.UNDERWAY, "is being read"), (AsideState.IMPOSSIBLE, "could not be read")):
        ports = ToolPorts(runner=FakeRunner(state=state))
        (item,) = call(ToolName.RUN_MODEL, brain_record(), ports, request="segment the brain")
        assert word in item.text
        assert item.kind is EvidenceKind.REMARK


def test_no_identifier_is_in_what_any_tool_says() -> None:
    for record in (brain_record(), chest_record(), fusion_record()):
        for tool in ToolName:
            text = text_of(call(tool, record, request="segment the brain", query="nodule"))
            assert all(number not in text for number in IDENTIFIERS.numbers)
            assert not any(analysis.study_uid in text for analysis in record.analyses)
