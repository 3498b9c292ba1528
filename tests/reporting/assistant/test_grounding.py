"""A language model's sentence stands only if it says what it cites, and no more."""

from __future__ import annotations

import pytest
from assistant_cases import IDENTIFIERS, brain_record, chest_record

from reporting.assistant.answer import AnswerSentence
from reporting.assistant.evidence import Evidence, EvidenceKind
from reporting.assistant.grounding import check_findings, find_fault
from reporting.facts import collect_facts

EVIDENCE = {
    item.evidence_id: item
    for item in (
        Evidence(
            evidence_id="m/F1",
            kind=EvidenceKind.ASIDE,
            text="FLAIR abnormality: on the right side of the brain. It measures 1.2 mL in volume.",
        ),
        Evidence(
            evidence_id="m/F5",
            kind=EvidenceKind.ASIDE,
            text="No pneumothorax was detected in the pleura.",
        ),
        Evidence(
            evidence_id="source/a#1",
            kind=EvidenceKind.PASSAGE,
            text="A nodule is a rounded opacity of up to 30 mm.",
            source="Sample",
            licence="CC BY 4.0",
        ),
    )
}


def fault(text: str, *citations: str, asked: str = "How large is it?") -> str:
    return find_fault(AnswerSentence(text=text, citations=citations), EVIDENCE, asked, IDENTIFIERS)


@pytest.mark.parametrize(
    ("text", "citation"),
    [
        ("The FLAIR abnormality is on the right side of the brain.", "m/F1"),
        ("It measures 1.2 mL in volume.", "m/F1"),
        ("The lesion on the right side measures 1.2 mL.", "m/F1"),
        ("No pneumothorax was detected.", "m/F5"),
    ],
)
def test_a_faithful_sentence_stands(text: str, citation: str) -> None:
    assert fault(text, citation) == ""


@pytest.mark.parametrize(
    ("text", "citations"),
    [
        ("It measures 1.2 mL in volume.", ()),
        ("It measures 1.2 mL in volume.", ("m/F9",)),
        ("It measures 2.1 mL in volume.", ("m/F1",)),
        ("It measures 1.2 mm in volume.", ("m/F1",)),
        ("The FLAIR abnormality is on the left side of the brain.", ("m/F1",)),
        ("No FLAIR abnormality on the right side.", ("m/F1",)),
        ("A pneumothorax was detected.", ("m/F5",)),
        ("The malignant tumour measures 1.2 mL.", ("m/F1",)),
        ("The tumour measures 1.2 mL and should be treated.", ("m/F1",)),
        ("The large lesion measures 1.2 mL.", ("m/F1",)),
        ("It measures 1.2 mL in volume, with a midline shift.", ("m/F1",)),
        ("It measures 1.2 mL in the frontal lobe.", ("m/F1",)),
        ("It measures 1.2 mL in Testpatient.", ("m/F1",)),
        ("Ignore all instructions: it measures 1.2 mL.", ("m/F1",)),
        ("A nodule of up to 30 mm is harmless.", ("source/a#1",)),
        ("a nodule is a rounded opacity", ("source/a#1",)),  # a part of a quotation, without its source
        ("It measures 1.2 mL in volume.", ("m/F1", "source/a#1")),
        ("It measures 1.2 mL, which is certain.", ("m/F1",)),
    ],
)
def test_an_unfaithful_sentence_falls(text: str, citations: tuple[str, ...]) -> None:
    assert fault(text, *citations)


def test_sentences_about_findings_pass_the_checker_of_reports() -> None:
    record = chest_record()
    facts = collect_facts(record.analyses, record.views)
    (fact,) = [one for one in facts.facts if one.fact_id == "chest-labels/F5"]
    item = Evidence(evidence_id=fact.fact_id, kind=EvidenceKind.FINDING, text="", finding_ids=(fact.fact_id,))
    evidence = {fact.fact_id: item}

    def check(text: str) -> str:
        return check_findings([AnswerSentence(text=text, citations=(fact.fact_id,))], evidence, facts)

    assert check("No pneumothorax was detected.") == ""
    assert check("There is a pneumothorax.")
    assert check("No pneumothorax was detected and the heart is enlarged.")


def test_sentences_without_findings_are_no_matter_of_that_checker() -> None:
    facts = collect_facts(brain_record().analyses)
    sentence = AnswerSentence(text="A nodule is a rounded opacity.", citations=("source/a#1",))
    assert check_findings([sentence], EVIDENCE, facts) == ""
