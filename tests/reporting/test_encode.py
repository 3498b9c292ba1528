from __future__ import annotations

import io
import logging
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName
from reporting_cases import CONTEXT, MAKERS, MODEL, make_case, make_enhanced_case, results_of

from dicom_node.headers import OWN_MANUFACTURER
from reporting.context import Reading, ReportContext, ResultKind, ResultProfile, SegmentationForm
from reporting.draft import draft_report
from reporting.encode import encode_results, write_part10
from reporting.errors import UnencodableResultError

PROFILES = [ResultProfile(), ResultProfile(segmentation=SegmentationForm.LABELMAP, is_compressed=True)]


def as_bytes(case, context):
    text = draft_report([case.analysis])
    return [write_part10(o.dataset) for o in encode_results([case.reading], case.sources, text, context)]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.key)
@pytest.mark.parametrize("make", [make_case, make_enhanced_case])
def test_encoding_again_gives_the_same_bytes(make, profile):
    context = replace(CONTEXT, profile=profile)
    assert as_bytes(make(), context) == as_bytes(make(), context)


@pytest.mark.parametrize("make", MAKERS)
def test_every_kind_of_result_is_the_same_every_time(make):
    one, other = ([write_part10(o.dataset) for o in results_of(make())] for _ in range(2))
    assert one == other


def test_order_of_delivery(case):
    kinds = [o.kind for o in results_of(case)]
    assert kinds == [kind for kind in ResultKind if kind in set(kinds)]
    assert {ResultKind.SEGMENTATION, ResultKind.VOLUMES, ResultKind.NARRATIVE} <= set(kinds)


def test_names_do_not_depend_on_run_or_time(case):
    later = replace(CONTEXT, run_id="other", created_at=CONTEXT.created_at + timedelta(days=1))
    text = draft_report([case.analysis])
    uids = [
        [o.object_uid for o in encode_results([case.reading], case.sources, text, context)]
        for context in (CONTEXT, later)
    ]
    assert uids[0] == uids[1]


@pytest.mark.parametrize(
    "change",
    [{"inputs_digest": "0" * 64}, {"software_version": "0.2.0"}, {"profile": PROFILES[1]}],
    ids=str,
)
def test_other_inputs_software_or_profile_give_other_names(case, change):
    text = draft_report([case.analysis])
    one, other = (
        {o.object_uid for o in encode_results([case.reading], case.sources, text, context)}
        for context in (CONTEXT, replace(CONTEXT, **change))
    )
    assert not one & other


def test_other_weights_give_other_names(case):
    model = replace(MODEL, weights_sha256="1" * 64)
    other = replace(case, reading=replace(case.reading, analysis=replace(case.analysis, model=model)))
    assert not {o.object_uid for o in results_of(case)} & {o.object_uid for o in results_of(other)}


def test_each_object_is_alone_in_its_series_and_says_who_made_it(case):
    objects = results_of(case)
    assert len({o.dataset.SeriesInstanceUID for o in objects}) == len(objects)
    for result in objects:
        assert result.dataset.Manufacturer == OWN_MANUFACTURER
        assert result.dataset.SeriesDescription.startswith("AI ")
        assert MODEL.version in result.dataset.SeriesDescription
        equipment = result.dataset.ContributingEquipmentSequence[0]
        assert equipment.SoftwareVersions == MODEL.version
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert equipment.DeviceUID


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("GB18030", "王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 192", "Ångström^Ünal=山田"),
        ("ISO_IR 100", "Müller^Änne"),
        (None, "Plain^Name"),
    ],
)
def test_odd_names_survive_byte_for_byte(case, character_set, name):
    header = Dataset()
    if character_set is not None:
        header.SpecificCharacterSet = character_set
    header.PatientName = PersonName(name)
    header.PatientID = "ID-1"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header, implicit_vr=False, little_endian=True)
    raw = buffer.getvalue()
    source = pydicom.dcmread(io.BytesIO(raw), force=True)
    for image in case.series:
        for keyword in ("SpecificCharacterSet", "PatientName", "PatientID"):
            if keyword in source:
                image[keyword] = deepcopy(source[keyword])
            elif keyword in image:
                del image[keyword]
    stored_name = raw[raw.index(b"\x10\x00\x10\x00PN") :].split(b"\x10\x00\x20\x00LO")[0]
    for result in results_of(case):
        assert str(result.dataset.PatientName) == name
        assert stored_name in write_part10(result.dataset)


def test_text_of_ours_that_does_not_fit_is_written_in_utf_8(case):
    model = replace(MODEL, title="Läsion")
    analysis = replace(case.analysis, model=model)
    case = replace(case, reading=replace(case.reading, analysis=analysis))
    segmentation = results_of(case)[0].dataset
    assert segmentation.SpecificCharacterSet == "ISO_IR 192"
    assert segmentation.ContentDescription == "Läsion"
    assert str(segmentation.PatientName) == "Müller^Änne"


def test_type_2_attributes_that_the_source_lacks_are_empty(case):
    lacking = ("StudyID", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "StudyTime")
    for header in case.series:
        for keyword in lacking:
            del header[keyword]
    for result in results_of(case):
        for keyword in lacking:
            assert keyword in result.dataset
            assert not result.dataset[keyword].value


def test_odd_values_of_the_source_are_copied_as_they_are(case):
    for header in case.series:
        header.PatientSex = "U"
        header.PatientName = "A^B^C^D^E"
    for result in results_of(case):
        assert result.dataset.PatientSex == "U"
        assert str(result.dataset.PatientName) == "A^B^C^D^E"


def test_the_patient_is_in_no_log_record(case, caplog):
    with caplog.at_level(logging.DEBUG):
        results_of(case)
    assert "Müller" not in caplog.text
    assert "SYN0001" not in caplog.text


def test_content_times_are_in_the_zone_of_the_study(case):
    for header in case.series:
        header.TimezoneOffsetFromUTC = "+0200"
    for result in results_of(case):
        assert result.dataset.ContentTime == "070607.890000"
        assert result.dataset.TimezoneOffsetFromUTC == "+0200"


def test_site_zone_applies_without_an_offset(case):
    context = replace(CONTEXT, site_timezone=timezone(timedelta(hours=-6)))
    narrative = results_of(replace(case, context=context))[3].dataset
    assert (narrative.ContentDate, narrative.ContentTime) == ("20260303", "230607.890000")


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="aware"):
        ReportContext(
            run_id="r",
            created_at=datetime(2026, 1, 1),  # noqa: DTZ001 - the mistake that is refused
            software_version="1",
            inputs_digest="d",
        )
    assert CONTEXT.created_at.tzinfo is UTC


def test_missing_headers_are_refused(case):
    text = draft_report([case.analysis])
    with pytest.raises(UnencodableResultError, match="headers"):
        encode_results([case.reading], {}, text, CONTEXT)
    with pytest.raises(UnencodableResultError, match="without a reading"):
        encode_results([], case.sources, text, CONTEXT)


def test_two_models_share_a_narrative(case):
    other = replace(case.analysis, model=replace(MODEL, name="second-model"))
    readings = [case.reading, Reading(analysis=other, mask=case.mask)]
    objects = encode_results(readings, case.sources, draft_report([case.analysis, other]), CONTEXT)
    assert [o.kind for o in objects].count(ResultKind.NARRATIVE) == 1
    assert len({o.object_uid for o in objects}) == len(objects)
    assert len({o.dataset.SeriesNumber for o in objects}) == len(objects)
