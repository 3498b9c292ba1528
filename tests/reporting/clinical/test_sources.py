"""Order text in headers, and orders, conditions and documents of FHIR R4."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notes_scores import as_source
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from reporting.clinical import Polarity, SourceKind, Time, load_lexicon
from reporting.clinical.dicom_source import read_headers
from reporting.clinical.fhir_source import (
    has_identifier,
    read_binary,
    read_condition,
    read_document,
    read_service_request,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def header(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def code(meaning):
    return header(CodeMeaning=meaning, CodeValue="1", CodingSchemeDesignator="SCT")


def test_order_and_history_of_headers_are_read_once_each():
    study = header(
        ReasonForTheRequestedProcedure="cough",
        StudyDescription="Chest",
        AdmittingDiagnosesDescription=["COPD", "heart failure"],
        AdditionalPatientHistory="smoker",
        MedicalAlerts="contrast allergy",
        ReferringPhysicianName="Zzyzx^Quorble",
        PatientName="Zzyzx^Quorble",
    )
    study.RequestAttributesSequence = Sequence(
        [header(RequestedProcedureDescription="Chest PA", ReasonForTheRequestedProcedure="r/o PTX")]
    )
    study.ReasonForRequestedProcedureCodeSequence = Sequence([code("Dyspnea")])
    texts = read_headers([study, study])
    assert {(t.kind, t.text) for t in texts} == {
        (SourceKind.ORDER, "cough"),
        (SourceKind.ORDER, "Chest"),
        (SourceKind.ORDER, "Chest PA"),
        (SourceKind.ORDER, "r/o PTX"),
        (SourceKind.ORDER, "Dyspnea"),
        (SourceKind.HISTORY, "COPD"),
        (SourceKind.HISTORY, "heart failure"),
        (SourceKind.HISTORY, "smoker"),
        (SourceKind.HISTORY, "contrast allergy"),
    }


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [("SmokingStatus", "YES", "smoker"), ("SmokingStatus", "NO", None), ("PregnancyStatus", 3, "pregnant")],
)
def test_defined_terms_are_read_as_what_they_stand_for(keyword, value, text):
    assert [t.text for t in read_headers([header(**{keyword: value})])] == ([text] if text else [])


def test_empty_headers_say_nothing():
    assert read_headers([Dataset(), header(StudyDescription=""), header(AdditionalPatientHistory=None)]) == ()


def service_request(**changes):
    return {
        "resourceType": "ServiceRequest",
        "status": "active",
        "reasonCode": [{"text": "cough"}, {"coding": [{"display": "Fever"}, {"display": "Fever"}]}],
        "orderDetail": [{"text": "with lateral view"}],
        "note": [{"text": "h/o TB"}],
    } | changes


def test_an_order_gives_its_reasons_details_and_notes():
    texts = [t.text for t in read_service_request(service_request())]
    assert texts == ["cough", "Fever", "with lateral view", "h/o TB"]


@pytest.mark.parametrize("status", ["revoked", "entered-in-error"])
def test_an_order_that_does_not_stand_says_nothing(status):
    assert read_service_request(service_request(status=status)) == ()


def condition(text="Asthma", **changes):
    return {"resourceType": "Condition", "code": {"text": text}} | changes


def status(value):
    return {"coding": [{"code": value}]}


@pytest.mark.parametrize(
    ("changes", "polarity", "time"),
    [
        ({}, Polarity.PRESENT, Time.CURRENT),
        ({"clinicalStatus": status("active")}, Polarity.PRESENT, Time.CURRENT),
        ({"clinicalStatus": status("resolved")}, Polarity.PRESENT, Time.HISTORICAL),
        ({"clinicalStatus": status("remission")}, Polarity.PRESENT, Time.HISTORICAL),
        ({"abatementDateTime": "2001"}, Polarity.PRESENT, Time.HISTORICAL),
        ({"abatementBoolean": False}, Polarity.PRESENT, Time.CURRENT),
        ({"verificationStatus": status("refuted")}, Polarity.NEGATED, Time.CURRENT),
        ({"verificationStatus": status("provisional")}, Polarity.UNCERTAIN, Time.CURRENT),
    ],
)
def test_the_statuses_of_a_condition_are_its_negation_and_time(reader, changes, polarity, time):
    (problem,) = read_condition(condition(**changes), reader.read, load_lexicon())
    assert (problem.concept, problem.polarity, problem.time) == ("asthma", polarity, time)
    assert problem.source is SourceKind.CONDITION


def test_a_condition_is_known_by_its_code_before_its_words(reader):
    coded = condition(
        "Zzyzx", code={"text": "Zzyzx", "coding": [{"system": "http://snomed.info/sct", "code": "13645005"}]}
    )
    (problem,) = read_condition(coded, reader.read, load_lexicon())
    assert (problem.concept, problem.text) == ("copd", "COPD")


def test_a_condition_entered_in_error_or_not_of_the_vocabulary_is_passed_over(reader):
    in_error = condition(verificationStatus=status("entered-in-error"))
    assert read_condition(in_error, reader.read, load_lexicon()) == ()
    assert read_condition(condition("Zzyzx"), reader.read, load_lexicon()) == ()


def document(*attachments, **changes):
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "content": [{"attachment": attachment} for attachment in attachments],
    } | changes


def inline(text, media_type="text/plain; charset=utf-8"):
    return {"contentType": media_type, "data": base64.b64encode(text.encode()).decode()}


def test_plain_attachments_are_read_inline_or_named_by_their_address():
    texts, urls = read_document(
        document(
            inline("cough"), {"contentType": "text/plain", "url": "Binary/1"}, inline("x", "application/pdf")
        )
    )
    assert [(t.kind, t.text) for t in texts] == [(SourceKind.DOCUMENT, "cough")]
    assert urls == ("Binary/1",)
    assert read_document(document(inline("cough"), status="superseded")) == ((), ())


def test_a_binary_is_read_if_it_is_plain_text():
    binary = {"resourceType": "Binary", **inline("fever")}
    assert read_binary(binary).text == "fever"
    assert read_binary(binary | {"contentType": "image/png"}) is None


def test_an_identifier_counts_with_its_system():
    resource = {"identifier": [{"system": "urn:a", "value": "1"}]}
    assert has_identifier(resource, "1", "urn:a")
    assert not has_identifier(resource, "1", "urn:b")
    assert not has_identifier(resource, "2", "urn:a")


@settings(max_examples=50, deadline=None)
@given(resource=JSON, kind=st.sampled_from(["ServiceRequest", "Condition", "DocumentReference", "Binary"]))
def test_any_json_is_passed_over_or_read_never_an_error(reader, resource, kind):
    keys = ["status", "reasonCode", "note", "code", "clinicalStatus", "content", "data", "contentType"]
    hostile = {"resourceType": kind} | dict.fromkeys(keys, resource)
    read_service_request(hostile)
    read_condition(hostile, reader.read, load_lexicon())
    read_document(hostile)
    read_binary(hostile)
    assert as_source("").text == ""
