from __future__ import annotations

from dataclasses import replace

import pytest
from reporting_cases import (
    MAKERS,
    MODEL,
    draft_of,
    make_detection_case,
    make_fusion_case,
    make_head_ct_case,
    make_label_case,
    make_outlined_detection_case,
    make_refused_case,
    make_structure_case,
)

from inference.findings import Caveat, Doubt, Finding, Laterality, Measurement, Presence, Quantity
from reporting.draft import draft_report, format_length, format_volume
from reporting.projection import read_views
from reporting.safety import (
    ABSENCE_SENTENCE,
    ESTIMATE_SENTENCE,
    HEATMAP_SENTENCE,
    POSITION_SENTENCE,
    REQUIRED_PHRASE,
    REVIEW_SENTENCE,
    SURVIVAL_SENTENCE,
    describe_confidence,
)
from reporting.text import Author, SectionName


def section(report, name):
    return report.section(name).text


def test_two_findings(case):
    report = draft_report([case.analysis])
    assert section(report, SectionName.FINDINGS) == (
        "FLAIR abnormality 1: outlined on the right side of the brain. "
        "It measures 1.2 mL in volume and 11 mm x 7.2 mm in its longest and perpendicular diameters. "
        "The algorithm's confidence in this outline is high (0.93). "
        "FLAIR abnormality 2: outlined on the left side of the brain. "
        "It measures 0.20 mL in volume and 11 mm x 7.2 mm in its longest and perpendicular diameters. "
        "The algorithm's confidence in this outline is moderate (0.74)."
    )
    assert section(report, SectionName.IMPRESSION) == (
        "Two FLAIR signal abnormalities outlined in the brain with a total volume of 1.4 mL."
    )


def test_one_finding(case):
    (finding, _) = case.analysis.findings
    report = draft_report([replace(case.analysis, findings=(finding,))])
    assert section(report, SectionName.FINDINGS).startswith("FLAIR abnormality: outlined on the right side")
    assert section(report, SectionName.IMPRESSION) == (
        "One FLAIR signal abnormality outlined on the right side of the brain with a volume of 1.2 mL."
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


def test_marks_have_side_zone_and_confidence_in_words():
    report = draft_of(make_detection_case())
    assert section(report, SectionName.FINDINGS) == (
        "Cardiomegaly: marked over the heart. The algorithm's confidence in this mark is high (0.93). "
        "Pleural effusion: marked over the left pleural space, lower zone. "
        "The algorithm's confidence in this mark is moderate (0.87). "
        "Repeated readings vary by 0.04 (standard deviation). "
        "Nodule: marked over the right lung, upper zone. "
        "The algorithm's confidence in this mark is low (0.71). "
        "Repeated readings vary by 0.21 (standard deviation): take this with caution."
    )
    assert POSITION_SENTENCE in section(report, SectionName.PROCEDURE)
    assert HEATMAP_SENTENCE in section(report, SectionName.PROCEDURE)


def test_triage_is_read_first():
    report = draft_of(make_detection_case())
    assert report.sections[0].name is SectionName.PRIORITY
    assert report.sections[0].text.startswith("Triage: high risk")
    assert draft_of(make_outlined_detection_case()).sections[0].name is SectionName.PROCEDURE


def test_an_area_is_told_where_there_is_no_segmentation():
    text = section(draft_of(make_outlined_detection_case()), SectionName.FINDINGS)
    assert "It measures 3.5 cm2 in area." in text


def test_absent_labels_are_summed_up_and_not_ruled_out():
    text = section(draft_of(make_label_case()), SectionName.FINDINGS)
    assert "Pleural effusion: called present (probability 0.91)." in text
    assert "Not detected: hernia and pneumothorax. This does not rule them out." in text
    assert "Whether the lung shows a sign of pulmonary oedema could not be determined" in text


def test_every_finding_is_the_ground_of_a_sentence():
    for make in (make_detection_case, make_label_case, make_head_ct_case, make_structure_case):
        case = make()
        named = {
            name for s in draft_of(case).section(SectionName.FINDINGS).sentences for name in s.finding_ids
        }
        assert named == {f"{case.analysis.model.name}/{f.finding_id}" for f in case.analysis.findings}


def test_two_models_of_one_radiograph_are_told_together():
    boxes, labels = make_detection_case(), make_label_case()
    report = draft_report([boxes.analysis, labels.analysis], read_views(boxes.sources))
    impression = section(report, SectionName.IMPRESSION)
    assert (
        "Pleural effusion: marked over the left pleural space, lower zone; "
        "called present (probability 0.91)." in impression
    )
    assert section(report, SectionName.PRIORITY).startswith("chest-detector: Triage: high risk")


def test_a_disagreement_is_told():
    boxes, labels = make_detection_case(), make_label_case()
    (effusion, *others) = labels.analysis.findings
    denied = replace(effusion, presence=Presence.ABSENT, confidence=0.1)
    report = draft_report(
        [boxes.analysis, replace(labels.analysis, findings=(denied, *others))], read_views(boxes.sources)
    )
    assert "but called absent by chest-labels (probability 0.10). The algorithms disagree." in section(
        report, SectionName.IMPRESSION
    )


def test_a_model_that_saw_nothing_is_named_beside_one_that_did():
    boxes, labels = make_detection_case(), make_label_case()
    report = draft_report([boxes.analysis, replace(labels.analysis, findings=())])
    impression = section(report, SectionName.IMPRESSION)
    assert "The algorithm chest-labels detected no abnormality of the kind it looks for." in impression
    assert ABSENCE_SENTENCE in impression


def test_estimates_are_told_as_estimates_with_their_inputs():
    report = draft_of(make_fusion_case())
    procedure, findings = (section(report, n) for n in (SectionName.PROCEDURE, SectionName.FINDINGS))
    assert "It read the CT series (6 images) and the MR series (6 images)." in procedure
    assert "The MR is of another study, three days later." in procedure
    assert "most like malignant (malignant 0.71, benign 0.20 and healthy 0.09)" in findings
    assert "WHO grade 3 (WHO grade 3 0.62 and WHO grade 2 0.38)" in findings
    assert "1.44 times that of the median training patient" in findings
    assert ESTIMATE_SENTENCE in section(report, SectionName.IMPRESSION)
    assert SURVIVAL_SENTENCE in section(report, SectionName.IMPRESSION)


def test_a_model_that_gave_no_answer_claims_nothing():
    report = draft_of(make_refused_case())
    text = report.plain
    assert "No answer was given" in section(report, SectionName.PRIORITY)
    assert "The images show no head." in section(report, SectionName.FINDINGS)
    assert "No answer was given" in section(report, SectionName.IMPRESSION)
    assert "haemorrhage" not in text
    assert "detected" not in text


def test_a_doubt_stands_in_findings_and_impression():
    report = draft_of(make_head_ct_case())
    for name in (SectionName.FINDINGS, SectionName.IMPRESSION):
        assert "This answer must be doubted: The slices are unusually thick." in section(report, name)


def test_what_two_models_doubt_stands_in_the_impression_once():
    doubt = Doubt(caveat=Caveat.OUT_OF_DISTRIBUTION, sentence="The radiograph is unlike the training images.")
    label, box = make_label_case().analysis, make_detection_case().analysis
    report = draft_report([replace(label, doubts=(doubt,)), replace(box, doubts=(doubt,))])
    assert section(report, SectionName.IMPRESSION).count(doubt.sentence) == 1
    assert section(report, SectionName.FINDINGS).count(doubt.sentence) == 2


def test_structures_are_measured_and_never_called_abnormal():
    report = draft_of(make_structure_case())
    assert section(report, SectionName.IMPRESSION) == "Measured: gray matter 1.2 mL and white matter 0.20 mL."


@pytest.mark.parametrize("make", MAKERS)
def test_every_text_is_plain_ascii_under_its_banner(make):
    text = draft_of(make()).plain
    assert text.startswith(REQUIRED_PHRASE)
    assert text.isascii()
    assert text.endswith(REVIEW_SENTENCE)


@pytest.mark.parametrize("make", MAKERS)
def test_what_safety_words_is_fixed_and_all_else_rests_on_findings(make):
    report = draft_of(make())
    for sentence in (s for section in report.sections for s in section.sentences):
        if not sentence.is_fixed:
            assert sentence.finding_ids
            assert not {"confidence", "Repeated", "rule", "doubted", "estimates"} & set(sentence.text.split())
    assert any(s.is_fixed for s in report.section(SectionName.RECOMMENDATION).sentences)
