"""One mutation per rule: the gate must notice each, and nothing in results that are right."""

from __future__ import annotations

import io
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pypdf import PdfWriter
from reporting_cases import (
    CONTEXT,
    MAKERS,
    MODEL,
    OTHER_SERIES_UID,
    concept_of,
    items_of,
    make_case,
    make_detection_case,
    make_enhanced_case,
    make_fusion_case,
    make_head_ct_case,
    pristine_results,
    results_of,
    violations_of,
)

from reporting.context import ResultKind, ResultProfile, SegmentationForm
from reporting.draft import draft_report
from reporting.fhir import FhirPolicy, build_bundle
from reporting.gate import GateError, check_bundle, check_objects, require_valid
from reporting.pdf import read_pdf

SEG, DIAMETERS, VOLUMES, NARRATIVE, PDF, OVERVIEW = range(6)
PROFILES = [ResultProfile(), ResultProfile(segmentation=SegmentationForm.LABELMAP, is_compressed=True)]


def check(case, objects):
    return check_objects(objects, case.sources, {MODEL.name: case.mask})


def rules(case, objects):
    return {violation.rule for violation in check(case, objects)}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.key)
@pytest.mark.parametrize("make", [make_case, make_enhanced_case])
def test_results_that_are_right_pass(make, profile):
    case = replace(make(), context=replace(CONTEXT, profile=profile))
    assert check(case, results_of(case)) == ()
    nothing = case.without_findings()
    assert check(nothing, results_of(nothing)) == ()


def group(document):
    return next(item for item in items_of(document) if concept_of(item) == "125007")


def drop_coordinates(document):
    for item in group(document).ContentSequence:
        if item.ValueType == "NUM":
            del item.ContentSequence


def without_concept(code):
    def mutate(document):
        parent = group(document)
        parent.ContentSequence = [i for i in parent.ContentSequence if concept_of(i) != code]

    return mutate


def share_tracking(document):
    uids = [item for item in items_of(document) if concept_of(item) == "112040"]
    uids[1].UID = uids[0].UID


def scoord(document):
    return next(item for item in items_of(document) if item.ValueType == "SCOORD")


def drop_banner(document):
    section = next(i for i in document.ContentSequence if i.ValueType == "CONTAINER")
    section.ContentSequence[0].TextValue = "A report."


def drop_observer(document):
    document.ContentSequence = [i for i in document.ContentSequence if concept_of(i) != "121012"]


def flip_voxel(segmentation):
    pixels = bytearray(segmentation.PixelData)
    pixels[40] ^= 1
    segmentation.PixelData = bytes(pixels)


def move_frame(segmentation):
    segmentation.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient[2] += 0.5


def swap_frames(segmentation):
    one, other = segmentation.PerFrameFunctionalGroupsSequence[:2]
    one.DerivationImageSequence, other.DerivationImageSequence = (
        other.DerivationImageSequence,
        one.DerivationImageSequence,
    )


def referenced_segment(document):
    return next(i for i in items_of(document) if concept_of(i) == "121191").ReferencedSOPSequence[0]


def malform_uid(dataset):
    dataset["DeviceSerialNumber"] = DataElement("DeviceSerialNumber", "UI", "01.2", already_converted=True)


def setting(keyword, value):
    return lambda dataset: setattr(dataset, keyword, value)


def dropping(keyword):
    return lambda dataset: delattr(dataset, keyword)


def replace_file(change):
    def mutate(document):
        file = change(read_pdf(document))
        document.EncapsulatedDocument = file + b"\0" * (len(file) % 2)
        document.EncapsulatedDocumentLength = len(file)

    return mutate


def blank_last_page(file):
    """The file with an empty last page, as a library that forgot the banner would write it."""
    writer = PdfWriter(clone_from=io.BytesIO(file))
    writer.add_blank_page()
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


MUTATIONS = [
    (SEG, dropping("FrameOfReferenceUID"), "frame-of-reference"),
    (SEG, setting("FrameOfReferenceUID", "1.2.3"), "frame-of-reference"),
    (SEG, flip_voxel, "voxels"),
    (SEG, swap_frames, "voxels"),
    (SEG, move_frame, "place"),
    (SEG, dropping("PixelData"), "undecodable"),
    (SEG, dropping("SegmentSequence"), "missing-attribute"),
    (SEG, lambda d: delattr(d.SegmentSequence[0], "SegmentLabel"), "missing-attribute"),
    (
        SEG,
        lambda d: setattr(d.SegmentSequence[1], "TrackingUID", d.SegmentSequence[0].TrackingUID),
        "tracking",
    ),
    (SEG, lambda d: setattr(d.SegmentSequence[0], "SegmentAlgorithmType", "MANUAL"), "algorithm"),
    (
        SEG,
        lambda d: delattr(d.SegmentSequence[0], "SegmentationAlgorithmIdentificationSequence"),
        "algorithm",
    ),
    (SEG, setting("Manufacturer", "Somebody"), "origin"),
    (SEG, setting("SeriesDescription", "segmentation"), "origin"),
    (SEG, dropping("ContributingEquipmentSequence"), "origin"),
    (SEG, setting("PatientID", "SOMEBODY ELSE"), "identity"),
    (SEG, setting("StudyInstanceUID", "1.2.3.4"), "identity"),
    (SEG, setting("SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.3"), "file-meta"),
    (SEG, setting("SOPClassUID", "1.2.3"), "sop-class"),
    (DIAMETERS, setting("AccessionNumber", "OTHER"), "identity"),
    (DIAMETERS, dropping("VerificationFlag"), "report-flag"),
    (DIAMETERS, setting("VerificationFlag", "VERIFIED"), "report-flag"),
    (DIAMETERS, setting("PreliminaryFlag", "FINAL"), "report-flag"),
    (DIAMETERS, drop_coordinates, "group-without-coordinates"),
    (DIAMETERS, without_concept("112040"), "tracking"),
    (DIAMETERS, share_tracking, "tracking"),
    (
        DIAMETERS,
        lambda d: setattr(scoord(d).ContentSequence[0], "RelationshipType", "INFERRED FROM"),
        "coordinates",
    ),
    (DIAMETERS, lambda d: setattr(scoord(d), "GraphicData", [1.0, 1.0, 1.0, 99.0]), "coordinates"),
    (DIAMETERS, lambda d: delattr(scoord(d), "ContentSequence"), "coordinates"),
    (DIAMETERS, lambda d: delattr(group(d), "RelationshipType"), "relationship"),
    (DIAMETERS, drop_observer, "observer"),
    (DIAMETERS, dropping("ContentSequence"), "groups"),
    (VOLUMES, lambda d: setattr(referenced_segment(d), "ReferencedSegmentNumber", 7), "reference-segment"),
    (
        VOLUMES,
        lambda d: setattr(referenced_segment(d), "ReferencedSOPInstanceUID", "1.2.3"),
        "dangling-reference",
    ),
    (VOLUMES, lambda d: setattr(referenced_segment(d), "ReferencedSOPClassUID", "1.2.3"), "reference-class"),
    (
        VOLUMES,
        lambda d: delattr(
            next(i for i in items_of(d) if i.ValueType == "NUM").MeasuredValueSequence[0],
            "MeasurementUnitsCodeSequence",
        ),
        "number",
    ),
    (NARRATIVE, drop_banner, "banner"),
    (NARRATIVE, dropping("CompletionFlag"), "report-flag"),
    (NARRATIVE, malform_uid, "malformed-uid"),
    (
        NARRATIVE,
        lambda d: setattr(
            d.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0],
            "SeriesInstanceUID",
            "1.2.3",
        ),
        "reference-series",
    ),
    (PDF, setting("VerificationFlag", "VERIFIED"), "document-flag"),
    (PDF, setting("BurnedInAnnotation", "NO"), "document-flag"),
    (PDF, setting("MIMETypeOfEncapsulatedDocument", "text/plain"), "document-flag"),
    (PDF, setting("HL7InstanceIdentifier", "1.2.3"), "document-flag"),
    (PDF, dropping("SourceInstanceSequence"), "evidence"),
    (PDF, setting("EncapsulatedDocument", b"%PDF-1.4 cut"), "undecodable"),
    (PDF, dropping("EncapsulatedDocument"), "undecodable"),
    (PDF, replace_file(lambda file: file[: len(file) // 2]), "undecodable"),
    (PDF, replace_file(blank_last_page), "banner"),
    (OVERVIEW, dropping("DerivationDescription"), "banner"),
    (OVERVIEW, dropping("BurnedInAnnotation"), "burned-in"),
    (OVERVIEW, setting("ConversionType", None), "empty-attribute"),
    (OVERVIEW, lambda d: setattr(d.SourceImageSequence[0], "ReferencedFrameNumber", 2), "reference-frame"),
]


@pytest.mark.parametrize(("index", "mutate", "rule"), MUTATIONS)
def test_each_fault_is_noticed(case, index, mutate, rule):
    objects = list(pristine_results())
    mutate(objects[index].dataset)
    assert rule in rules(case, objects)


def test_two_results_in_one_series_are_noticed(case):
    objects = pristine_results()
    objects[1].dataset.SeriesInstanceUID = objects[2].dataset.SeriesInstanceUID
    assert "shared-series" in rules(case, objects)


def test_the_same_name_twice_is_noticed(case):
    objects = pristine_results()
    assert "duplicate-uid" in rules(case, [*objects, replace(objects[0])])


def test_another_mask_is_noticed(case):
    objects = pristine_results()
    labels = np.roll(case.mask.labels, 1, axis=2)
    other = replace(case.mask, labels=labels)
    violations = check_objects(objects, case.sources, {MODEL.name: other})
    assert {v.rule for v in violations} == {"voxels"}
    assert {v.rule for v in check_objects(objects, case.sources, {})} == {"mask-missing"}


def test_no_source_headers_are_noticed(case):
    objects = pristine_results()
    assert "identity" in {v.rule for v in check_objects(objects, {}, {MODEL.name: case.mask})}


def test_an_error_names_rules_and_no_patient(case):
    objects = pristine_results()
    objects[0].dataset.PatientID = "SECRET"
    violations = check(case, objects)
    require_valid(())
    with pytest.raises(GateError, match="identity") as caught:
        require_valid(violations, study_key="0123")
    assert caught.value.study_key == "0123"
    assert caught.value.violations == violations
    text = f"{caught.value} {' '.join(v.message for v in violations)}"
    assert "SECRET" not in text
    assert "SYN0001" not in text
    assert "2.25." not in text


def bundle_of(case):
    text = draft_report([case.analysis])
    return build_bundle(
        [case.analysis],
        text,
        sources=case.sources,
        objects=pristine_results(),
        context=CONTEXT,
        policy=FhirPolicy(patient_id_system="urn:oid:1.2.3"),
    )


def resource(bundle, kind):
    return next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind)


def measurement(bundle):
    return next(e["resource"] for e in bundle["entry"] if "valueQuantity" in e["resource"])


BUNDLE_MUTATIONS = [
    (lambda b: b.update(type="batch"), "bundle"),
    (lambda b: b["entry"][3].pop("request"), "request"),
    (lambda b: b["entry"][3].update(request={"method": "POST", "url": "Observation"}), "repeatable"),
    (lambda b: b["entry"][3]["request"].update(url="Observation"), "repeatable"),
    (lambda b: b["entry"][3].update(fullUrl=b["entry"][4]["fullUrl"]), "full-url"),
    (lambda b: resource(b, "Observation").pop("status"), "structure"),
    (lambda b: resource(b, "Observation").update(foo="bar"), "structure"),
    (lambda b: measurement(b).update(valueString="x"), "value"),
    (lambda b: measurement(b).pop("valueQuantity"), "value"),
    (lambda b: measurement(b).pop("subject"), "origin"),
    (lambda b: measurement(b)["valueQuantity"].pop("code"), "unit"),
    (lambda b: measurement(b)["meta"].pop("security"), "security-label"),
    (lambda b: resource(b, "Observation").update(effectiveDateTime="2026-01-02T10:15:00"), "naive-time"),
    (
        lambda b: resource(b, "DiagnosticReport")["result"].append({"reference": "urn:uuid:0"}),
        "dangling-reference",
    ),
    (lambda b: resource(b, "DiagnosticReport").update(status="final"), "status"),
    (lambda b: resource(b, "DiagnosticReport").update(status="partial"), "status"),
    (lambda b: resource(b, "DiagnosticReport").update(conclusion="All well."), "banner"),
    (lambda b: resource(b, "DiagnosticReport").pop("presentedForm"), "banner"),
    (lambda b: resource(b, "DiagnosticReport")["presentedForm"][0].update(data="%%%"), "banner"),
    (lambda b: resource(b, "DiagnosticReport")["presentedForm"][1].update(data="AAAA"), "attachment"),
    (lambda b: resource(b, "DiagnosticReport")["presentedForm"][1].update(size=1), "attachment"),
    (lambda b: resource(b, "DiagnosticReport")["presentedForm"][1].update(hash="AAAA"), "attachment"),
    (lambda b: resource(b, "DiagnosticReport")["presentedForm"][1].update(data="AAAA"), "banner"),
    (lambda b: resource(b, "DiagnosticReport").pop("effectiveDateTime"), "report"),
    (lambda b: b.update(entry=b["entry"][:3]), "report"),
]


def test_a_bundle_that_is_right_passes(case):
    assert check_bundle(bundle_of(case)) == ()


@pytest.mark.parametrize(("mutate", "rule"), BUNDLE_MUTATIONS)
def test_each_fault_of_a_bundle_is_noticed(case, mutate, rule):
    bundle = deepcopy(bundle_of(case))
    mutate(bundle)
    assert rule in {violation.rule for violation in check_bundle(bundle)}


# -- boxes, labels, estimates, heat maps ------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
def test_every_kind_of_result_passes(make):
    assert violations_of(make()) == ()


def by_kind_of(objects, kind):
    return next(o.dataset for o in objects if o.kind is kind)


def move_corner(document):
    region = next(item for item in items_of(document) if item.ValueType == "SCOORD")
    values = list(region.GraphicData)
    values[2] += 1
    region.GraphicData = values


def open_ring(document):
    region = next(item for item in items_of(document) if item.ValueType == "SCOORD")
    region.GraphicData = list(region.GraphicData)[:8]


def leave_image(document):
    region = next(item for item in items_of(document) if item.ValueType == "SCOORD")
    region.GraphicData = [value + 60 for value in region.GraphicData]


def add_number(document):
    group(document).ContentSequence.append(pydicom.Dataset())
    item = group(document).ContentSequence[-1]
    item.ValueType, item.RelationshipType = "NUM", "CONTAINS"


def drop_groups(document):
    document.ContentSequence = [i for i in document.ContentSequence if concept_of(i) != "126010"]


def heat_up(stored):
    values = np.frombuffer(stored.FloatPixelData, "<f4").copy()
    values[0] = 1.5
    stored.FloatPixelData = values.tobytes()


def warm_up(stored):
    values = np.frombuffer(stored.FloatPixelData, "<f4").copy()
    values[0] = 0.25
    stored.FloatPixelData = values.tobytes()


def move_map(stored):
    stored.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[2] += 0.5


def rename_quantity(stored):
    mapping = stored.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue = "130404"


FURTHER_MUTATIONS = [
    (make_detection_case, ResultKind.FINDINGS, move_corner, "box"),
    (make_detection_case, ResultKind.FINDINGS, open_ring, "box"),
    (make_detection_case, ResultKind.FINDINGS, leave_image, "coordinates"),
    (make_detection_case, ResultKind.FINDINGS, add_number, "box"),
    (make_detection_case, ResultKind.FINDINGS, share_tracking, "tracking"),
    (make_detection_case, ResultKind.FINDINGS, drop_groups, "groups"),
    (make_detection_case, ResultKind.HEATMAP, dropping("DerivationDescription"), "banner"),
    (make_head_ct_case, ResultKind.FINDINGS, dropping("ContentSequence"), "groups"),
    (make_head_ct_case, ResultKind.HEATMAP, heat_up, "value-range"),
    (make_head_ct_case, ResultKind.HEATMAP, warm_up, "values"),
    (make_head_ct_case, ResultKind.HEATMAP, move_map, "place"),
    (make_head_ct_case, ResultKind.HEATMAP, rename_quantity, "quantity"),
    (make_head_ct_case, ResultKind.HEATMAP, dropping("FloatPixelData"), "undecodable"),
    (make_fusion_case, ResultKind.ESTIMATES, setting("VerificationFlag", "VERIFIED"), "report-flag"),
    (make_fusion_case, ResultKind.ESTIMATES, share_tracking, "tracking"),
    (make_fusion_case, ResultKind.HEATMAP, setting("StudyID", "OTHER"), "identity"),
]


@pytest.mark.parametrize(("make", "kind", "mutate", "rule"), FURTHER_MUTATIONS)
def test_each_fault_of_the_further_results_is_noticed(make, kind, mutate, rule):
    case = make()
    objects = results_of(case)
    mutate(by_kind_of(objects, kind))
    assert rule in {violation.rule for violation in violations_of(case, objects)}


def test_images_of_two_patients_are_noticed():
    case = make_fusion_case()
    objects = results_of(case)
    for header in case.further_series[OTHER_SERIES_UID]:
        header.PatientID = "SOMEBODY ELSE"
    assert "patient" in {violation.rule for violation in violations_of(case, objects)}
