from __future__ import annotations

from dataclasses import replace

import pytest
from reporting_cases import MODEL

from inference.findings import Finding, Laterality, Measurement, Presence, Quantity
from reporting.draft import draft_report, format_length, format_volume
from reporting.safety import REQUIRED_PHRASE, REVIEW_SENTENCE, describe_confidence
from reporting.text import Author, SectionName


def section(report, name):
    return report.section(name).text


def test_two_findings(case):
    report = draft_report([case.analysis])
    assert section(report, SectionName.FINDINGS) == (
        "FLAIR abnormality 1: on the right side of the brain. "
        "It measures 1.2 mL in volume and 11 mm x 7.2 mm in its longest and perpendicular diameters. "
        "The algorithm's confidence in this outline is high (0.93). "
        "FLAIR abnormality 2: on the left side of the brain. "
        "It measures 0.20 mL in volume and 11 mm x 7.2 mm in its longest and perpendicular diameters. "
        "The algorithm's confidence in this outline is moderate (0.74)."
    )
    assert section(report, SectionName.IMPRESSION) == (
        "Two FLAIR signal abnormalities of the brain with a total volume of 1.4 mL."
    )


def test_one_finding(case):
    (finding, _) = case.analysis.findings
    report = draft_report([replace(case.analysis, findings=(finding,))])
    assert section(report, SectionName.FINDINGS).startswith("FLAIR abnormality: on the right side")
    assert section(report, SectionName.IMPRESSION) == (
        "One FLAIR signal abnormality, on the right side of the brain with a volume of 1.2 mL."
    )


def test_the_method_is_told(case):
    assert section(draft_report([case.analysis]), SectionName.PROCEDURE) == (
        "The images were read by the algorithm brain-tumour-lgg, version 1.0.0. "
        "It read the FLAIR series (6 images). "
        "The contrast-enhanced T1-weighted series was not available; the FLAIR series stood in for it. "
        "The slices are thicker than those of the training data."
    )


def test_nothing_found_does_not_rule_out_disease(case):
    report = draft_report([case.without_findings().analysis])
    assert section(report, SectionName.FINDINGS) == "The algorithm outlined nothing."
    assert "does not rule out disease" in section(report, SectionName.IMPRESSION)


@pytest.mark.parametrize(
    ("presence", "words"),
    [(Presence.ABSENT, "No FLAIR signal abnormality was detected"), (Presence.UNDETERMINED, "could not be")],
)
def test_absence_and_doubt_are_worded(case, presence, words):
    finding = Finding(finding_id="F1", concept="neoplasm", site="brain", presence=presence)
    report = draft_report([replace(case.analysis, findings=(finding,))])
    assert words in section(report, SectionName.FINDINGS)


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (None, "in the brain"),
        (Laterality.LEFT, "on the left side of the brain"),
        (Laterality.RIGHT, "on the right side of the brain"),
        (Laterality.BILATERAL, "on both sides of the brain"),
    ],
)
def test_sides_are_worded(case, side, words):
    finding = replace(case.analysis.findings[0], laterality=side)
    report = draft_report([replace(case.analysis, findings=(finding,))])
    assert words in section(report, SectionName.FINDINGS)


def test_sentences_name_the_findings_they_rest_on(case):
    report = draft_report([case.analysis])
    ids = {i for s in report.section(SectionName.FINDINGS).sentences for i in s.finding_ids}
    assert ids == {f"{MODEL.name}/F1", f"{MODEL.name}/F2"}
    assert report.section(SectionName.IMPRESSION).sentences[0].finding_ids == (
        f"{MODEL.name}/F1",
        f"{MODEL.name}/F2",
    )


def test_every_report_carries_banner_and_review_and_is_plain_ascii(case):
    report = draft_report([case.analysis])
    assert report.plain.startswith(REQUIRED_PHRASE)
    assert report.plain.endswith(REVIEW_SENTENCE)
    assert report.plain.isascii()
    assert report.provenance.author is Author.RULES


def test_only_a_single_diameter(case):
    length = Measurement(quantity=Quantity.LONG_AXIS, value=0.95, unit="cm")
    finding = replace(case.analysis.findings[0], measurements=(length,))
    report = draft_report([replace(case.analysis, findings=(finding,))])
    assert "It measures 9.5 mm in its longest diameter." in section(report, SectionName.FINDINGS)


def test_numbers_are_rounded_for_reading():
    assert [format_volume(v) for v in (0.234, 0.997, 1.26, 120.04)] == [
        "0.23 mL",
        "1.0 mL",
        "1.3 mL",
        "120.0 mL",
    ]
    assert [format_length(v) for v in (4.26, 9.98, 42.4)] == ["4.3 mm", "10 mm", "42 mm"]


def test_confidence_words():
    assert [describe_confidence(v) for v in (0.95, 0.8, 0.3)] == ["high", "moderate", "low"]


def test_no_analysis_is_no_report():
    with pytest.raises(ValueError, match="at least one"):
        draft_report([])
