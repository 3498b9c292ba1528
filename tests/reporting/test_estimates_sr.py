from __future__ import annotations

from reporting_cases import (
    OTHER_STUDY_UID,
    STUDY_UID,
    by_kind,
    concept_of,
    items_of,
    make_fusion_case,
    results_of,
)

from reporting.context import ResultKind


def groups_of(document):
    return [item for item in items_of(document) if concept_of(item) == "125007"]


def test_estimates_have_a_title_under_which_viewers_look_for_no_coordinates():
    document = by_kind(results_of(make_fusion_case()))[ResultKind.ESTIMATES]
    assert concept_of(document) == "126001"
    assert not [item for item in items_of(document) if item.ValueType.startswith("SCOORD")]


def test_values_probabilities_and_hazard_are_coded():
    groups = groups_of(by_kind(results_of(make_fusion_case()))[ResultKind.ESTIMATES])
    values = [
        (concept_of(item), item.ConceptCodeSequence[0].CodeValue)
        for group in groups
        for item in group.ContentSequence
        if concept_of(item) in {"TUMOUR_CLASS", "WHO_GRADE", "RISK_GROUP"}
    ]
    assert values == [
        ("TUMOUR_CLASS", "21594007"),
        ("WHO_GRADE", "WHO_GRADE_3"),
        ("RISK_GROUP", "HIGHER_THIRD"),
    ]
    numbers = {
        concept_of(item): (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for group in groups
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }
    assert numbers == {
        "P_HEALTHY": (9.0, "%"),
        "P_BENIGN": (20.0, "%"),
        "P_MALIGNANT": (71.0, "%"),
        "P_GRADE_2": (38.0, "%"),
        "P_GRADE_3": (62.0, "%"),
        "RELATIVE_HAZARD": (1.4375, "{ratio}"),
    }


def test_inputs_and_disclaimers_stand_beside_each_estimate():
    for group in groups_of(by_kind(results_of(make_fusion_case()))[ResultKind.ESTIMATES]):
        texts = " ".join(i.TextValue for i in group.ContentSequence if i.ValueType == "TEXT")
        assert "It rests on the CT series and the MR series." in texts
        assert "not a diagnosis" in texts or "does not predict" in texts


def test_images_of_both_studies_are_evidence_and_the_object_is_filed_with_the_reference():
    document = by_kind(results_of(make_fusion_case()))[ResultKind.ESTIMATES]
    assert document.StudyInstanceUID == STUDY_UID
    evidence = [
        *document.get("CurrentRequestedProcedureEvidenceSequence", []),
        *document.get("PertinentOtherEvidenceSequence", []),
    ]
    assert {item.StudyInstanceUID for item in evidence} == {STUDY_UID, OTHER_STUDY_UID}
