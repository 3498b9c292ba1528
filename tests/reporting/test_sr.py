from __future__ import annotations

from dataclasses import replace

import pytest
from reporting_cases import CONTEXT, by_kind, concept_of, items_of, make_case, make_enhanced_case, results_of

from reporting.context import ResultKind
from reporting.draft import draft_report
from reporting.encode import encode_results
from reporting.sr import BIDIRECTIONAL_TOOL, LENGTH_TOOL


def groups_of(document):
    return [item for item in items_of(document) if concept_of(item) == "125007"]


def child(group, code):
    return next(item for item in group.ContentSequence if concept_of(item) == code)


@pytest.mark.parametrize("make", [make_case, make_enhanced_case])
def test_diameters_hydrate_as_bidirectional_measurements(make):
    case = make()
    document = by_kind(results_of(case))[ResultKind.MEASUREMENTS]
    assert concept_of(document) == "126000"
    groups = groups_of(document)
    tools = [child(group, "112039").TextValue for group in groups]
    assert tools == [BIDIRECTIONAL_TOOL] * 2
    for group, finding in zip(groups, case.analysis.findings, strict=True):
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        assert [concept_of(number) for number in numbers] == ["103339001", "103340004"]
        for number, line in zip(numbers, (finding.long_axis, finding.perpendicular_axis), strict=True):
            value = number.MeasuredValueSequence[0]
            assert float(value.NumericValue) == pytest.approx(line.length_mm, abs=1e-3)
            assert value.MeasurementUnitsCodeSequence[0].CodeValue == "mm"
            (coordinates,) = [item for item in number.ContentSequence if item.ValueType == "SCOORD"]
            assert list(coordinates.GraphicData) == [
                line.start.column,
                line.start.row,
                line.end.column,
                line.end.row,
            ]
            (image,) = coordinates.ContentSequence
            assert image.RelationshipType == "SELECTED FROM"
            reference = image.ReferencedSOPSequence[0]
            assert reference.ReferencedSOPInstanceUID == line.frame.sop_instance_uid
            assert reference.get("ReferencedFrameNumber") == line.frame.frame_number


def test_a_finding_with_one_diameter_hydrates_as_a_length(case):
    findings = tuple(replace(f, perpendicular_axis=None) for f in case.analysis.findings)
    case = replace(case, reading=replace(case.reading, analysis=replace(case.analysis, findings=findings)))
    group = groups_of(by_kind(results_of(case))[ResultKind.MEASUREMENTS])[0]
    assert child(group, "112039").TextValue == LENGTH_TOOL
    assert concept_of(next(i for i in group.ContentSequence if i.ValueType == "NUM")) == "410668003"


def test_volumes_refer_to_their_segments(case):
    results = by_kind(results_of(case))
    document, segmentation = results[ResultKind.VOLUMES], results[ResultKind.SEGMENTATION]
    assert concept_of(document) == "126001"
    for group, segment in zip(groups_of(document), segmentation.SegmentSequence, strict=True):
        reference = child(group, "121191").ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == segment.SegmentNumber
        assert segment.TrackingUID == child(group, "112040").UID
        volume = child(group, "118565006").MeasuredValueSequence[0]
        assert volume.MeasurementUnitsCodeSequence[0].CodeValue == "cm3"
    assert float(volume.NumericValue) == 0.2


def test_documents_are_preliminary_and_by_a_device(case):
    results = by_kind(results_of(case))
    for kind in (ResultKind.MEASUREMENTS, ResultKind.VOLUMES, ResultKind.NARRATIVE):
        document = results[kind]
        assert (document.VerificationFlag, document.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
        observers = [i for i in items_of(document) if concept_of(i) == "121005"]
        assert observers[0].ConceptCodeSequence[0].CodeValue == "121007"


def test_site_and_side_are_coded(case):
    group = groups_of(by_kind(results_of(case))[ResultKind.VOLUMES])[1]
    site = child(group, "363698007")
    assert site.ConceptCodeSequence[0].CodeValue == "12738006"
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Left"


def test_a_later_run_names_the_documents_it_replaces(case):
    first = results_of(case)
    context = replace(
        CONTEXT,
        inputs_digest="0" * 64,
        predecessor=tuple(result.as_predecessor() for result in first),
    )
    text = draft_report([case.analysis])
    second = by_kind(encode_results([case.reading], case.sources, text, context))
    for kind in (ResultKind.MEASUREMENTS, ResultKind.VOLUMES, ResultKind.NARRATIVE):
        study = second[kind].PredecessorDocumentsSequence[0]
        named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert named.ReferencedSOPInstanceUID == by_kind(first)[kind].SOPInstanceUID
        assert second[kind].SOPInstanceUID != by_kind(first)[kind].SOPInstanceUID
