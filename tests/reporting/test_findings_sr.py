from __future__ import annotations

from dataclasses import replace

import pytest
from reporting_cases import (
    DETECTOR,
    by_kind,
    chest_box,
    chest_case,
    concept_of,
    items_of,
    make_detection_case,
    make_head_ct_case,
    make_label_case,
    make_outlined_detection_case,
    make_refused_case,
    mark,
    results_of,
)

from inference.findings import Laterality
from reporting.codes import PRIVATE_SCHEME, PRIVATE_SCHEME_UID
from reporting.context import ResultKind
from reporting.errors import UnencodableResultError


def document_of(case):
    return by_kind(results_of(case))[ResultKind.FINDINGS]


def groups_of(document):
    return [item for item in items_of(document) if concept_of(item) == "125007"]


def child(group, code):
    return next(item for item in group.ContentSequence if concept_of(item) == code)


def test_each_box_is_a_closed_polyline_with_its_purpose_and_label():
    case = make_detection_case()
    document = document_of(case)
    assert concept_of(document) == "126000"
    groups = groups_of(document)
    for group, finding in zip(groups, case.analysis.findings, strict=True):
        region = child(group, "111030")
        box = finding.box
        assert (region.ValueType, region.GraphicType) == ("SCOORD", "POLYLINE")
        corners = [
            (box.left, box.top),
            (box.right, box.top),
            (box.right, box.bottom),
            (box.left, box.bottom),
            (box.left, box.top),
        ]
        assert list(region.GraphicData) == [value for corner in corners for value in corner]
        (image,) = [item for item in region.ContentSequence if item.ValueType == "IMAGE"]
        assert image.RelationshipType == "SELECTED FROM"
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == box.frame.sop_instance_uid
        purpose = next(item for item in items_of(group) if concept_of(item) == "130400")
        assert purpose.ConceptCodeSequence[0].CodeValue == "75958009"
        assert not [item for item in items_of(group) if item.ValueType == "NUM"]
    assert [child(group, "121106").TextValue for group in groups] == [
        "Cardiomegaly 0.93",
        "Pleural effusion 0.87",
        "Nodule 0.71",
    ]


def test_boxes_have_tracking_identifiers_of_their_own():
    uids = [child(group, "112040").UID for group in groups_of(document_of(make_detection_case()))]
    assert len(set(uids)) == 3


def test_boxes_of_one_kind_are_numbered():
    findings = (
        mark(1, "nodule", "lung", chest_box(1, 1, 9, 9), 0.9),
        mark(2, "nodule", "lung", chest_box(11, 11, 19, 19), 0.8),
    )
    groups = groups_of(document_of(chest_case(DETECTOR, findings)))
    assert [child(group, "112039").TextValue for group in groups] == ["Nodule 1 (F1)", "Nodule 2 (F2)"]


def test_a_box_names_its_heat_map():
    results = by_kind(results_of(make_detection_case()))
    named = [item for item in items_of(results[ResultKind.FINDINGS]) if concept_of(item) == "130401"]
    assert len(named) == 1
    assert (
        named[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        == results[ResultKind.HEATMAP].SOPInstanceUID
    )


def test_the_models_own_side_is_coded():
    (group,) = groups_of(document_of(make_outlined_detection_case()))
    site = child(group, "363698007")
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Right"
    plain = make_outlined_detection_case().analysis.findings[0]
    case = make_outlined_detection_case().saying(findings=(replace(plain, laterality=None),))
    (group,) = groups_of(document_of(case))
    assert "ContentSequence" not in child(group, "363698007")


def test_labels_are_qualitative_evaluations_and_no_groups():
    document = document_of(make_label_case())
    assert concept_of(document) == "EVALUATION_REP"
    assert not groups_of(document)
    container = next(item for item in document.ContentSequence if concept_of(item) == "C0034375")
    said = {
        concept_of(item): item.ConceptCodeSequence[0].CodeMeaning
        for item in container.ContentSequence
        if item.ValueType == "CODE"
    }
    assert said == {
        "60046008": "Present",
        "233604007": "Present",
        "19242006": "Undetermined",
        "HERNIA": "Absent",
        "36118008": "Absent",
        "TRIAGE": "Low risk",
    }
    comments = [item.TextValue for item in container.ContentSequence if item.ValueType == "TEXT"]
    assert "Pneumothorax p=0.03" in comments


def test_private_codes_are_declared():
    document = document_of(make_label_case())
    (scheme,) = document.CodingSchemeIdentificationSequence
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeUID) == (PRIVATE_SCHEME, PRIVATE_SCHEME_UID)
    assert "CodingSchemeIdentificationSequence" not in document_of(make_outlined_detection_case())


def test_a_doubt_stands_in_the_document():
    texts = [
        item.TextValue for item in items_of(document_of(make_head_ct_case())) if item.ValueType == "TEXT"
    ]
    assert any("must be doubted" in text for text in texts)


def test_a_refused_study_has_a_narrative_only():
    assert [o.kind for o in results_of(make_refused_case())] == [ResultKind.NARRATIVE, ResultKind.PDF]


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (70, 10, 81, 20), (-1, 10, 10, 20), (10, 90, 20, 97)])
def test_a_box_that_is_empty_or_outside_its_image_is_refused(box):
    with pytest.raises(UnencodableResultError, match="clip"):
        results_of(chest_case(DETECTOR, (mark(1, "nodule", "lung", chest_box(*box), 0.9),)))


def test_a_box_on_an_unknown_image_is_refused():
    finding = mark(1, "nodule", "lung", chest_box(1, 1, 9, 9, number=7), 0.9)
    with pytest.raises(UnencodableResultError, match="headers"):
        results_of(chest_case(DETECTOR, (replace(finding, laterality=Laterality.LEFT),)))
