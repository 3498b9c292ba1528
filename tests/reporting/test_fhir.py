from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from reporting_cases import (
    CONTEXT,
    MODEL,
    by_kind,
    draft_of,
    make_case,
    make_fusion_case,
    make_head_ct_case,
    make_label_case,
    make_outlined_detection_case,
    make_refused_case,
    make_structure_case,
    pristine_results,
    results_of,
)

from inference.findings import Finding, Presence
from reporting.context import ResultKind
from reporting.draft import draft_report
from reporting.errors import UnencodableResultError
from reporting.fhir import FhirPolicy, ReportStatus, SubjectPolicy, WritePolicy, build_bundle
from reporting.gate import check_bundle
from reporting.pdf import read_pdf
from reporting.safety import BANNER, ESTIMATE_SENTENCE
from reporting.text import Sentence

POLICY = FhirPolicy(patient_id_system="urn:oid:1.2.3.4", accession_system="urn:oid:1.2.3.5")


def build(case, policy=POLICY, **changes):
    return build_bundle(
        [case.analysis],
        draft_report([case.analysis]),
        sources=case.sources,
        objects=pristine_results(),
        context=case.context,
        policy=policy,
        **changes,
    )


def resources(bundle, kind):
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def report_of(bundle):
    (report,) = resources(bundle, "DiagnosticReport")
    return report


@pytest.mark.parametrize("write", WritePolicy)
@pytest.mark.parametrize("subject", SubjectPolicy)
def test_every_policy_gives_a_valid_bundle_and_the_same_every_time(case, write, subject):
    policy = replace(POLICY, write=write, subject=subject)
    bundle = build(case, policy)
    assert check_bundle(bundle) == ()
    assert json.dumps(bundle) == json.dumps(build(make_case(), policy))
    kinds = Counter(e["resource"]["resourceType"] for e in bundle["entry"])
    assert kinds["Observation"] == 2 * (1 + 3)
    assert kinds["Device"] == 2
    assert kinds["Patient"] == (subject is SubjectPolicy.CREATE)


def test_the_report_is_preliminary_and_marked_as_made_by_an_algorithm(case):
    report = report_of(build(case))
    assert report["status"] == "preliminary"
    assert report["meta"]["security"][0]["code"] == "AIAST"
    assert "resultsInterpreter" not in report
    assert report["conclusion"].startswith(BANNER)
    assert report["conclusionCode"][0]["coding"][0]["code"] == "301766008"
    page = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    assert BANNER in page
    assert report["presentedForm"][0]["size"] == len(page.encode())


def test_the_pdf_is_attached_as_it_goes_to_the_pacs(case):
    form = report_of(build(case))["presentedForm"][1]
    file = base64.b64decode(form["data"])
    assert file == read_pdf(by_kind(pristine_results())[ResultKind.PDF])
    assert (form["contentType"], form["size"]) == ("application/pdf", len(file))
    assert form["hash"] == base64.b64encode(hashlib.sha1(file).digest()).decode()


def test_a_pdf_that_is_too_large_or_denies_a_signature_is_left_out(case):
    small = report_of(build(case, replace(POLICY, largest_pdf_bytes=1000)))
    signed = report_of(build(case, status=ReportStatus.FINAL, interpreter="Dr. A"))
    for report in (small, signed):
        assert [form["contentType"] for form in report["presentedForm"]] == ["text/html; charset=utf-8"]


def test_what_changed_stands_in_the_conclusion(case):
    sentence = Sentence(text="Compared with the study of 9 days earlier: the lesion grew.")
    text = draft_report([case.analysis], comparison=(sentence,))
    bundle = build_bundle(
        [case.analysis],
        text,
        sources=case.sources,
        objects=pristine_results(),
        context=case.context,
        policy=POLICY,
    )
    assert sentence.text in report_of(bundle)["conclusion"]
    assert "<h2>Comparison</h2>" in report_of(bundle)["text"]["div"]


def test_the_report_belongs_to_order_patient_and_study(case):
    report = report_of(build(case))
    assert report["basedOn"][0]["identifier"]["value"] == "ACC0001"
    assert report["subject"]["identifier"] == {"system": "urn:oid:1.2.3.4", "value": "SYN0001"}
    assert report["code"]["coding"][0] == {
        "system": "http://loinc.org",
        "code": "24590-2",
        "display": "MR Brain",
    }
    assert report["effectiveDateTime"] == "2026-01-02T10:15:00Z"
    assert re.fullmatch(r"2026-03-04T05:06:07\.890(000)?Z", report["issued"])
    narrative = by_kind(pristine_results())[ResultKind.NARRATIVE]
    uids = [i["value"] for i in report["identifier"] if i["system"] == "urn:dicom:uid"]
    assert uids == [f"urn:oid:{narrative.SOPInstanceUID}"]


def test_findings_gather_their_measurements(case):
    observations = resources(build(case), "Observation")
    group = observations[0]
    members = {reference["reference"] for reference in group["hasMember"]}
    assert len(members) == 3
    assert group["valueCodeableConcept"]["coding"][0]["code"] == "108369006"
    assert group["bodySite"]["text"] == "Brain, right side"
    assert group["component"][0]["valueCodeableConcept"]["coding"][0]["display"] == "Right"
    volume = next(o for o in observations if o["code"]["coding"][0]["code"] == "118565006")
    assert (
        float(volume["valueQuantity"]["value"]) == 1.234 or float(volume["valueQuantity"]["value"]) == 1.235
    )
    assert volume["valueQuantity"]["code"] == "mL"
    assert all(o["status"] == "preliminary" for o in observations)


def test_an_absent_finding_is_observed_as_absent(case):
    finding = Finding(finding_id="F1", concept="neoplasm", site="brain", presence=Presence.ABSENT)
    analysis = replace(case.analysis, findings=(finding,))
    case = replace(
        case.without_findings(), reading=replace(case.without_findings().reading, analysis=analysis)
    )
    bundle = build(case)
    (observation,) = resources(bundle, "Observation")
    assert observation["valueCodeableConcept"]["coding"][0]["display"] == "Absent"
    assert "conclusionCode" not in report_of(bundle)
    assert check_bundle(bundle) == ()


def test_who_made_it_is_told(case):
    bundle = build(case)
    (provenance,) = resources(bundle, "Provenance")
    assert provenance["reason"][0]["coding"][0]["code"] == "AIAST"
    assert provenance["agent"][0]["role"][0]["coding"][0]["code"] == "Artificial-Intelligence"
    assert len(provenance["target"]) == 1 + 8
    model = resources(bundle, "Device")[1]
    assert model["version"][0]["value"] == MODEL.version
    assert model["property"][0]["valueCode"][0]["text"] == MODEL.weights_sha256


def test_late_images_update_the_same_report(case):
    late = replace(case, context=replace(CONTEXT, inputs_digest="9" * 64, run_id="later"))
    one, other = build(case), build(late)
    assert [e["fullUrl"] for e in one["entry"]] == [e["fullUrl"] for e in other["entry"]]


def test_a_new_model_version_is_another_device_and_the_same_report(case):
    model = replace(MODEL, version="2.0.0")
    newer = replace(case, reading=replace(case.reading, analysis=replace(case.analysis, model=model)))
    one, other = build(case), build(newer)
    assert report_of(one)["id"] == report_of(other)["id"]
    assert resources(one, "Device")[1]["id"] != resources(other, "Device")[1]["id"]


def test_findings_that_are_gone_are_retracted(case):
    (first, _) = case.analysis.findings
    now = replace(case, reading=replace(case.reading, analysis=replace(case.analysis, findings=(first,))))
    bundle = build_bundle(
        [now.analysis],
        draft_report([now.analysis]),
        sources=now.sources,
        objects=(),
        context=CONTEXT,
        policy=POLICY,
        previous=[case.analysis],
    )
    statuses = Counter(o["status"] for o in resources(bundle, "Observation"))
    assert statuses == {"preliminary": 4, "entered-in-error": 4}
    assert len(report_of(bundle)["result"]) == 1
    assert check_bundle(bundle) == ()


def test_a_signed_report_names_who_signed(case):
    bundle = build(case, status=ReportStatus.FINAL, interpreter="Dr Example")
    assert report_of(bundle)["resultsInterpreter"] == [{"type": "Practitioner", "display": "Dr Example"}]
    assert check_bundle(bundle) == ()
    with pytest.raises(UnencodableResultError, match="signed"):
        build(case, status=ReportStatus.FINAL)
    with pytest.raises(UnencodableResultError, match="preliminary"):
        build(case, interpreter="Dr Example")


def test_a_study_without_a_date_says_so(case):
    for header in case.series:
        header.StudyDate = ""
    report = report_of(build(case))
    assert "effectiveDateTime" not in report
    assert report["_effectiveDateTime"]["extension"][0]["valueCode"] == "unknown"


def test_a_study_without_a_patient_id_is_refused(case):
    for header in case.series:
        header.PatientID = ""
    with pytest.raises(UnencodableResultError, match="Patient ID"):
        build(case)


def test_what_is_empty_is_left_out(case):
    for header in case.series:
        header.AccessionNumber = ""
        del header.StudyDescription
    report = report_of(build(case.without_findings()))
    assert "basedOn" not in report
    assert "result" not in report
    assert report["code"]["coding"][0]["code"] == "18748-4"


def test_identifiers_with_odd_characters_are_escaped_in_searches(case):
    for header in case.series:
        header.PatientID = "A&B|C 1/2"
    policy = replace(POLICY, write=WritePolicy.CONDITIONAL, subject=SubjectPolicy.CREATE)
    entry = build(case, policy)["entry"][0]
    assert entry["request"]["ifNoneExist"] == "identifier=urn:oid:1.2.3.4|A%26B%7CC%201/2"
    assert entry["resource"]["identifier"][0]["value"] == "A&B|C 1/2"


def test_a_patient_that_was_looked_up_is_used(case):
    bundle = build(case, replace(POLICY, subject=SubjectPolicy.CREATE), patient_reference="Patient/77")
    assert report_of(bundle)["subject"]["reference"] == "Patient/77"
    assert not resources(bundle, "Patient")
    assert check_bundle(bundle) == ()


def test_a_created_patient_has_what_the_header_says(case):
    (patient,) = resources(build(case, replace(POLICY, subject=SubjectPolicy.CREATE)), "Patient")
    assert patient["name"] == [{"family": "Müller", "given": ["Änne"]}]
    assert (patient["gender"], patient["birthDate"]) == ("female", "1960-01-01")


# -- boxes, labels, estimates, triage, refusals -----------------------------------------------


def bundle_of(case):
    bundle = build_bundle(
        [case.analysis],
        draft_of(case),
        sources=case.sources,
        objects=results_of(case),
        context=CONTEXT,
        policy=POLICY,
    )
    assert check_bundle(bundle) == ()
    return bundle


def codes_of(element):
    return element["coding"][0]["code"]


def observed(bundle, code):
    return next(o for o in resources(bundle, "Observation") if codes_of(o["code"]) == code)


def test_labels_say_whether_they_are_present_with_their_probability():
    bundle = bundle_of(make_label_case())
    effusion, pneumothorax = observed(bundle, "60046008"), observed(bundle, "36118008")
    assert effusion["valueCodeableConcept"]["coding"][0]["display"] == "Present"
    assert pneumothorax["valueCodeableConcept"]["coding"][0]["display"] == "Absent"
    numbers = {codes_of(c["code"]): float(c["valueQuantity"]["value"]) for c in effusion["component"]}
    assert numbers == {"PRESENCE_PROB": 91.0, "386136009": 3.0}
    assert report_of(bundle)["code"]["coding"][0]["code"] == "30745-4"


def test_triage_is_an_observation_and_in_the_conclusion():
    bundle = bundle_of(make_label_case())
    triage = observed(bundle, "TRIAGE")
    assert codes_of(triage["valueCodeableConcept"]) == "75976002"
    numbers = {codes_of(c["code"]): float(c["valueQuantity"]["value"]) for c in triage["component"]}
    assert numbers == {"TRIAGE_SCORE": 4.0, "PREDICTIVE_VALUE": 97.0}
    assert "400 calibration patients" in triage["note"][0]["text"]
    assert "Triage: low risk" in report_of(bundle)["conclusion"]


def test_conclusions_are_signs_and_no_structures():
    labels = report_of(bundle_of(make_label_case()))["conclusionCode"]
    assert {codes_of(code) for code in labels} == {"60046008", "112001"}
    assert "conclusionCode" not in report_of(bundle_of(make_structure_case()))


def test_marks_keep_their_certainty_and_area():
    bundle = bundle_of(make_outlined_detection_case())
    mass = observed(bundle, "49755003")
    assert codes_of(mass["valueCodeableConcept"]) == "4147007"
    assert "111012" in {codes_of(c["code"]) for c in mass["component"]}
    assert observed(bundle, "42798000")["valueQuantity"]["code"] == "mm2"


def test_estimates_have_their_probabilities_and_their_disclaimer():
    bundle = bundle_of(make_fusion_case())
    estimated = observed(bundle, "TUMOUR_CLASS")
    assert codes_of(estimated["valueCodeableConcept"]) == "21594007"
    assert {codes_of(c["code"]): float(c["valueQuantity"]["value"]) for c in estimated["component"]} == {
        "P_HEALTHY": 9.0,
        "P_BENIGN": 20.0,
        "P_MALIGNANT": 71.0,
    }
    assert ESTIMATE_SENTENCE in estimated["note"][0]["text"]
    hazard = observed(bundle, "RISK_GROUP")["component"][0]["valueQuantity"]
    assert (float(hazard["value"]), hazard["code"]) == (1.438, "{ratio}")


def test_every_study_that_was_read_is_named():
    bundle = bundle_of(make_fusion_case())
    studies = resources(bundle, "ImagingStudy")
    assert [{m["code"] for m in study["modality"]} for study in studies] == [{"CT"}, {"MR"}]
    report = report_of(bundle)
    assert len(report["imagingStudy"]) == 2
    assert report["basedOn"][0]["identifier"]["value"] == "ACC0001"
    assert studies[1]["identifier"][-1]["value"] == "ACC0002"


def test_no_answer_is_said_and_nothing_else():
    bundle = bundle_of(make_refused_case())
    (observation,) = resources(bundle, "Observation")
    assert observation["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert "The images show no head." in observation["note"][0]["text"]
    report = report_of(bundle)
    assert report["status"] == "preliminary"
    assert "No answer was given" in report["conclusion"]
    assert "conclusionCode" not in report


def test_a_doubt_is_a_note_of_every_observation_and_in_the_conclusion():
    bundle = bundle_of(make_head_ct_case())
    for observation in resources(bundle, "Observation"):
        assert "must be doubted" in observation["note"][0]["text"]
    assert "must be doubted" in report_of(bundle)["conclusion"]
