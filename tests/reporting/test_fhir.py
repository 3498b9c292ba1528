from __future__ import annotations

import base64
import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from reporting_cases import CONTEXT, MODEL, by_kind, make_case, pristine_results

from inference.findings import Finding, Presence
from reporting.context import ResultKind
from reporting.draft import draft_report
from reporting.errors import UnencodableResultError
from reporting.fhir import FhirPolicy, ReportStatus, SubjectPolicy, WritePolicy, build_bundle
from reporting.gate import check_bundle
from reporting.safety import BANNER

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
