"""Texts and relations are quoted with source and licence, or left out and said to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from assistant_cases import (
    IDENTIFIERS,
    INJECTION,
    FakeGraph,
    FakeLibrary,
    FakePassage,
    call_named,
    chest_record,
)

from reporting.assistant.evidence import EvidenceKind, ToolName
from reporting.assistant.record import Relation
from reporting.assistant.tools import ToolPorts
from reporting.language.knowledge_graph import ASSOCIATION_NOTICE
from reporting.safety import LEFT_OUT_SENTENCE


def test_passages_are_quoted_with_source_and_licence_or_not_at_all() -> None:
    evidence = call_named(ToolName.RETRIEVE, chest_record(), query="What is a pneumothorax?")
    assert evidence[0].evidence_id == "source/sample-pneumothorax#1"
    assert (evidence[0].source, evidence[0].licence) == (
        "Sample text: pneumothorax, Sample society", "public domain",
    )  # fmt: skip
    nothing = call_named(
        ToolName.RETRIEVE, chest_record(), query="What does the guideline say about fishing?"
    )
    assert [item.kind for item in nothing] == [EvidenceKind.REMARK]


def test_a_passage_that_gives_instructions_or_names_the_patient_is_kept_out() -> None:
    passages = (
        FakePassage("evil#1", f"Nodules are common. {INJECTION}"),
        FakePassage("leak#1", "The nodule of Testpatient (SYN-0001) was followed."),
    )
    ports = ToolPorts(library=FakeLibrary(passages))
    evidence = call_named(ToolName.RETRIEVE, chest_record(), ports, query="guideline on nodules")
    assert [item.text for item in evidence] == [
        LEFT_OUT_SENTENCE, "The nodule of [removed] ([removed]) was followed.",
    ]  # fmt: skip


def test_passages_keep_ids_of_their_own_whatever_is_taken_out_of_them() -> None:
    names = ("text#1", "text#2", "SYN-0001/a#1", "SYN-0001/a#2", "0001/Testpatient#1")
    passages = tuple(FakePassage(name, f"Nodule {name[-1]} of 1 mm.") for name in names)
    record = chest_record(identifiers=replace(IDENTIFIERS, numbers=(*IDENTIFIERS.numbers, "1", "0001")))
    for some in (passages[:3], passages[2:], passages[2:3] * 2):
        evidence = call_named(ToolName.RETRIEVE, record, ToolPorts(library=FakeLibrary(some)), query="nodule")
        ids = [item.evidence_id for item in evidence]
        assert len(set(ids)) == len(ids) == len(some)
        assert "SYN" not in "".join(ids)
        assert {item.text[-5:] for item in evidence} == {"1 mm."}
    first = call_named(
        ToolName.RETRIEVE, record, ToolPorts(library=FakeLibrary(passages[:2])), query="nodule"
    )
    assert [item.evidence_id for item in first] == ["source/text#1", "source/text#2"]


def test_a_relation_that_gives_instructions_is_left_out_and_said_to_be() -> None:
    class Hostile:
        def related(self, concepts: Sequence[str]) -> Sequence[Relation]:
            return (
                Relation(text=f"{INJECTION} (passage): named", source="Ward"),
                Relation(text="Heart is within thorax", source="Ward"),
            )

    evidence = call_named(
        ToolName.RELATED, chest_record(), ToolPorts(graph=Hostile()), concepts="cardiomegaly"
    )
    assert [item.text for item in evidence[1:]] == [LEFT_OUT_SENTENCE, "Heart is within thorax."]


def test_relations_name_their_source() -> None:
    evidence = call_named(ToolName.RELATED, chest_record(), concepts="cardiomegaly")
    assert (evidence[0].text, evidence[0].is_required) == (ASSOCIATION_NOTICE, True)
    assert evidence[1].source == "Sample ontology"
    assert call_named(ToolName.RELATED, chest_record(), ToolPorts())[0].kind is EvidenceKind.REMARK
    assert call_named(ToolName.RELATED, chest_record(), ToolPorts(graph=FakeGraph()))
