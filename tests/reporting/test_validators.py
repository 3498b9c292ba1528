"""The judges from outside: what we write is valid by dciodvfy, PixelMed, dcmqi and two FHIR validators."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace

import pytest
from reporting_cases import (
    CONTEXT,
    MAKERS,
    draft_of,
    make_case,
    make_detection_case,
    make_enhanced_case,
    make_fusion_case,
    make_head_ct_case,
    make_label_case,
    make_structure_case,
    pristine_results,
    results_of,
)
from validators import run_dciodvfy, run_dcmqi, run_fhir_validators, run_pixelmed

from inference.findings import Measurement, Quantity
from reporting.context import ResultKind, ResultProfile, SegmentationForm
from reporting.draft import draft_report
from reporting.encode import write_part10
from reporting.fhir import FhirPolicy, SubjectPolicy, WritePolicy, build_bundle

pytestmark = pytest.mark.validators

REPORTS = (ResultKind.MEASUREMENTS, ResultKind.VOLUMES, ResultKind.NARRATIVE)


def single_finding_case():
    case = make_case(labels=(make_case().mask.labels == 1).astype("uint8"))
    analysis = replace(case.analysis, findings=case.analysis.findings[:1])
    return replace(case, reading=replace(case.reading, analysis=analysis))


def written(objects, folder):
    paths = {}
    for result in objects:
        paths[result.kind] = folder / f"{result.kind.value}.dcm"
        paths[result.kind].write_bytes(write_part10(result.dataset))
    return paths


def bundle_of(case, **policy):
    return build_bundle(
        [case.analysis],
        draft_report([case.analysis]),
        sources=case.sources,
        objects=pristine_results(),
        context=CONTEXT,
        policy=FhirPolicy(patient_id_system="urn:oid:1.2.3", **policy),
    )


@pytest.mark.parametrize(
    "make",
    [*MAKERS, make_enhanced_case, single_finding_case, lambda: make_case().without_findings()],
)
def test_dciodvfy_finds_no_error(make, tmp_path):
    for path in written(results_of(make()), tmp_path).values():
        assert run_dciodvfy(path) == []


def test_dciodvfy_is_awake(tmp_path):
    objects = {result.kind: result for result in pristine_results()}
    del objects[ResultKind.MEASUREMENTS].dataset.VerificationFlag
    path = written([objects[ResultKind.MEASUREMENTS]], tmp_path)[ResultKind.MEASUREMENTS]
    assert run_dciodvfy(path)


@pytest.mark.parametrize("kind", REPORTS)
def test_pixelmed_finds_no_error(kind, tmp_path):
    assert run_pixelmed(written(pristine_results(), tmp_path)[kind]) == []


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_detection_case, ResultKind.FINDINGS),
        (make_label_case, ResultKind.FINDINGS),
        (make_head_ct_case, ResultKind.KEY_IMAGES),
        (make_fusion_case, ResultKind.ESTIMATES),
        (make_structure_case, ResultKind.VOLUMES),
    ],
)
def test_pixelmed_finds_no_error_in_the_further_reports(make, kind, tmp_path):
    assert run_pixelmed(written(results_of(make()), tmp_path)[kind]) == []


def test_dcmqi_reads_the_segments(case, tmp_path):
    files = run_dcmqi(
        written(pristine_results(), tmp_path)[ResultKind.SEGMENTATION], tmp_path / "seg", kind="seg"
    )
    (meta,) = [json.loads(path.read_text()) for path in files if path.suffix == ".json"]
    described = [attributes for group in meta["segmentAttributes"] for attributes in group]
    assert [d["labelID"] for d in described] == [1, 2]
    assert described[0]["SegmentLabel"] == "FLAIR abnormality 1"
    assert [path for path in files if ".nii" in path.name]


def test_dcmqi_reads_the_volumes(case, tmp_path):
    files = run_dcmqi(written(pristine_results(), tmp_path)[ResultKind.VOLUMES], tmp_path / "sr", kind="sr")
    groups = json.loads(files[0].read_text())["Measurements"]
    values = [float(group["measurementItems"][0]["value"]) for group in groups]
    expected = [f.measured(Quantity.VOLUME) for f in case.analysis.findings]
    assert values == pytest.approx([m.value for m in expected if isinstance(m, Measurement)], abs=1e-3)


def test_a_label_map_is_written_as_the_standard_says(case, tmp_path):
    """dciodvfy of 2022 does not know the Label Map SOP Class: it may say only that."""
    profile = ResultProfile(segmentation=SegmentationForm.LABELMAP)
    objects = results_of(replace(case, context=replace(CONTEXT, profile=profile)))
    errors = run_dciodvfy(written(objects, tmp_path)[ResultKind.SEGMENTATION])
    assert all("Information Object Not found" in e or "SegmentNumber of 0" in e for e in errors)


@pytest.mark.parametrize("write", WritePolicy)
@pytest.mark.parametrize("subject", SubjectPolicy)
def test_fhir_validators_find_no_error(case, write, subject):
    assert run_fhir_validators(bundle_of(case, write=write, subject=subject)) == {"medplum": [], "fhir": []}


@pytest.mark.parametrize("make", MAKERS)
def test_fhir_validators_find_no_error_in_any_kind_of_report(make):
    case = make()
    bundle = build_bundle(
        [case.analysis],
        draft_of(case),
        sources=case.sources,
        objects=results_of(case),
        context=CONTEXT,
        policy=FhirPolicy(patient_id_system="urn:oid:1.2.3"),
    )
    assert run_fhir_validators(bundle) == {"medplum": [], "fhir": []}


def test_fhir_validators_find_no_error_in_a_study_with_little_in_its_header(case):
    for header in case.series:
        header.StudyDate = header.StudyTime = header.AccessionNumber = header.PatientSex = ""
    assert run_fhir_validators(bundle_of(case.without_findings())) == {"medplum": [], "fhir": []}


def test_fhir_validators_are_awake(case):
    bundle = deepcopy(bundle_of(case))
    del bundle["entry"][-1]["resource"]["recorded"]
    verdict = run_fhir_validators(bundle)
    assert verdict["medplum"]
    assert verdict["fhir"]
