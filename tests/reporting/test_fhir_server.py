"""Our Bundle on a real FHIR server: posted twice, stored once; all or nothing."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from reporting_cases import CONTEXT, make_case
from stack.servers import fhir_server

from reporting.draft import draft_report
from reporting.fhir import FhirPolicy, SubjectPolicy, WritePolicy, build_bundle

pytestmark = pytest.mark.fhir_server

POLICY = FhirPolicy(patient_id_system="urn:oid:1.2.3.4")
COUNTED = ("Patient", "ImagingStudy", "Device", "Observation", "DiagnosticReport", "Provenance")


@pytest.fixture(scope="module")
def base_url(tmp_path_factory):
    with fhir_server(tmp_path_factory.mktemp("fhir")) as server:
        yield server.url


def call(base_url, path, body=None):
    request = urllib.request.Request(
        f"{base_url}/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/fhir+json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def counts(base_url):
    return {kind: call(base_url, f"{kind}?_total=accurate")["total"] for kind in COUNTED}


def bundle_of(case, policy):
    return build_bundle(
        [case.analysis],
        draft_report([case.analysis]),
        sources=case.sources,
        objects=(),
        context=case.context,
        policy=policy,
    )


def in_study(case, study_uid):
    for header in case.series:
        header.StudyInstanceUID = study_uid
        header.PatientID = study_uid
    analysis = replace(case.analysis, study_uid=study_uid)
    return replace(case, reading=replace(case.reading, analysis=analysis))


@pytest.mark.parametrize("subject", [SubjectPolicy.LOGICAL, SubjectPolicy.CREATE])
def test_posting_twice_stores_once(base_url, subject):
    case = in_study(make_case(), f"1.2.840.99.{len(subject)}")
    bundle = bundle_of(case, replace(POLICY, subject=subject))
    call(base_url, "", bundle)
    once = counts(base_url)
    assert once["Observation"] >= 8
    call(base_url, "", bundle)
    assert counts(base_url) == once


def test_conditional_writes_store_once(base_url):
    """The server takes at most eight entries with conditions: a run that found nothing has five."""
    case = in_study(make_case().without_findings(), "1.2.840.99.100")
    bundle = bundle_of(case, replace(POLICY, write=WritePolicy.CONDITIONAL))
    assert len(bundle["entry"]) <= 8
    call(base_url, "", bundle)
    once = counts(base_url)
    call(base_url, "", bundle)
    assert counts(base_url) == once


def test_a_later_run_updates_the_report_that_is_there(base_url):
    case = in_study(make_case(), "1.2.840.99.200")
    call(base_url, "", bundle_of(case, POLICY))
    before = counts(base_url)
    later = replace(case, context=replace(CONTEXT, inputs_digest="7" * 64, run_id="later"))
    (first, _) = case.analysis.findings
    analysis = replace(case.analysis, findings=(replace(first, confidence=0.5),))
    later = replace(later, reading=replace(later.reading, analysis=analysis))
    bundle = build_bundle(
        [later.analysis],
        draft_report([later.analysis]),
        sources=later.sources,
        objects=(),
        context=later.context,
        policy=POLICY,
        previous=[case.analysis],
    )
    call(base_url, "", bundle)
    assert counts(base_url) == before
    report = next(
        e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport"
    )
    stored = call(base_url, f"DiagnosticReport/{report['id']}")
    assert len(stored["result"]) == 1
    assert stored["status"] == "preliminary"


def test_what_refers_to_an_entry_refers_to_it_on_the_server(base_url):
    case = in_study(make_case(), "1.2.840.99.300")
    bundle = bundle_of(case, POLICY)
    call(base_url, "", bundle)
    report = next(
        e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport"
    )
    stored = call(base_url, f"DiagnosticReport/{report['id']}")
    for reference in [*stored["result"], *stored["imagingStudy"]]:
        assert call(base_url, reference["reference"])["resourceType"] == reference["type"]
