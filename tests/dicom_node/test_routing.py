from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.planes import Plane
from dicom_node.routing import (
    Conditions,
    InputContract,
    InputRole,
    ModelReference,
    Outcome,
    Priority,
    RoutingDecision,
    Rule,
    RuleSet,
    default_rules,
    parse_rules,
    route_study,
    select_series,
)
from dicom_node.study import (
    Digest,
    Instance,
    Series,
    SeriesUID,
    SOPClassUID,
    SOPInstanceUID,
    Study,
    StudyKey,
    StudyUID,
    TransferSyntaxUID,
)

TUMOUR = InputContract(
    roles=(
        InputRole(
            name="pre",
            modalities=("MR",),
            any_description=("*t1*",),
            none_of=("*flair*", "*post*", "*gd*"),
            min_images=5,
            substitute="flair",
        ),
        InputRole(
            name="flair", required=True, modalities=("MR",), any_description=("*flair*",), min_images=5
        ),
        InputRole(
            name="post",
            modalities=("MR",),
            any_description=("*t1*post*", "*t1*gd*"),
            min_images=5,
            substitute="flair",
        ),
    )
)
TUMOUR_1 = ModelReference(name="tumour", version="1.0.0")
CONTRACTS = {TUMOUR_1: TUMOUR}
RULES = parse_rules(
    """
    rules:
      - {name: brain, when: {modality: MR, body_part: '*head*'}, models: [tumour], destinations: [pacs]}
    """
)


def _series(
    number: int,
    description: str,
    images: int = 20,
    *,
    modality: str = "MR",
    sop_class: str = MRImageStorage,
    **header: str,
) -> Series:
    return Series(
        series_uid=SeriesUID(f"1.2.{number}"),
        modality=modality,
        description=description,
        body_part="HEAD",
        series_number=number,
        header=header,
        instances=tuple(
            Instance(
                sop_instance_uid=SOPInstanceUID(f"1.2.{number}.{index}"),
                sop_class_uid=SOPClassUID(sop_class),
                transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
                digest=Digest("d"),
                path="p",
                size_bytes=1,
            )
            for index in range(images)
        ),
    )


def _study(*series: Series) -> Study:
    return Study(
        study_key=StudyKey("k"),
        study_uid=StudyUID("1.2"),
        source_ae="SCANNER",
        description="MR head",
        series=series,
    )


COMPLETE = _study(_series(1, "Ax T1"), _series(2, "Ax FLAIR"), _series(3, "Ax T1 post Gd"))


def test_each_role_gets_its_series() -> None:
    decision = route_study(COMPLETE, RULES, CONTRACTS)
    (assignment,) = decision.assignments
    assert assignment.roles == {"pre": "1.2.1", "flair": "1.2.2", "post": "1.2.3"}
    assert list(assignment.roles) == ["pre", "flair", "post"]
    assert (assignment.version, assignment.substitutions) == ("1.0.0", ())
    assert (decision.rule, decision.destinations) == ("brain", ("pacs",))


def test_a_missing_optional_role_is_substituted_and_said() -> None:
    decision = route_study(_study(_series(2, "Ax T1 FLAIR")), RULES, CONTRACTS)
    (assignment,) = decision.assignments
    assert assignment.roles == dict.fromkeys(("pre", "flair", "post"), "1.2.2")
    assert assignment.substitutions == (("pre", "flair"), ("post", "flair"))
    assert "flair stands in" in decision.models[0].reasons[0]


def test_a_missing_required_role_says_why_the_model_did_not_run() -> None:
    decision = route_study(_study(_series(1, "Ax T1"), _series(2, "FLAIR", 3)), RULES, CONTRACTS)
    assert decision.assignments == ()
    (told,) = decision.models
    assert not told.runs
    assert "required role flair" in told.reasons[0]
    assert "it has 3 images of at least 5" in told.reasons[0]


def test_what_is_no_source_image_is_never_read() -> None:
    bad = (
        _series(5, "FLAIR", ImageType="ORIGINAL\\PRIMARY\\LOCALIZER"),
        _series(6, "FLAIR", Manufacturer="Preread"),
        _series(7, "FLAIR", sop_class=SegmentationStorage),
        _series(8, "FLAIR", sop_class=SecondaryCaptureImageStorage),
    )
    assert route_study(_study(*bad), RULES, CONTRACTS).assignments == ()


def test_the_best_series_is_original_then_largest_then_first() -> None:
    derived = _series(1, "FLAIR mpr", 100, ImageType="DERIVED\\SECONDARY")
    for series, expected in (
        ((derived, _series(2, "FLAIR", 10)), "1.2.2"),
        ((_series(2, "FLAIR", 10), _series(3, "FLAIR", 30)), "1.2.3"),
        ((_series(3, "FLAIR"), _series(2, "FLAIR")), "1.2.2"),
        ((derived,), "1.2.1"),
    ):
        (assignment,) = route_study(_study(*series), RULES, CONTRACTS).assignments
        assert assignment.roles["flair"] == expected


def test_every_rule_that_does_not_match_says_why() -> None:
    text = """
    rules:
      - {name: wants-mr, when: {modality: [MR, PT]}}
      - {name: wants-source, when: {source_ae: 'OTHER*'}}
      - {name: wants-body, when: {modality: CT, body_part: CHEST}}
      - {name: wants-description, when: {series_description: '*lung*', study_description: '*thorax*'}}
      - {name: wants-class, when: {sop_class: MR Image Storage}}
      - {name: wants-many, when: {min_images: 50}}
      - {name: wants-tag, when: {tags: {PatientID: 'X*', KVP: '120'}}}
    """
    series = _series(1, "Brain", modality="CT", sop_class=CTImageStorage, PatientID="SECRET")
    decision = route_study(_study(series), parse_rules(text), {})
    told = {item.rule: item.reasons for item in decision.explanations}
    assert told["wants-mr"] == ("modality is CT, rule wants MR or PT",)
    assert told["wants-source"] == ("source AE is SCANNER, rule wants OTHER*",)
    assert told["wants-body"] == ("body part is HEAD, rule wants CHEST",)
    assert told["wants-description"] == (
        "study description is 'MR head', rule wants *thorax*",
        "series description is 'Brain', rule wants *lung*",
    )
    assert told["wants-class"] == ("SOP Class is CT Image Storage, rule wants MR Image Storage",)
    assert told["wants-many"] == ("series has 20 images, rule wants at least 50",)
    assert told["wants-tag"] == (
        "KVP is absent, rule wants 120",
        "PatientID has another value, rule wants X*",
    )
    assert "SECRET" not in json.dumps(decision.to_json())
    assert told["fallback"] == ()
    assert decision.rule is None


def test_all_matching_rules_contribute() -> None:
    text = """
    rules:
      - {name: a, when: {modality: MR}, models: [tumour], destinations: [pacs]}
      - {name: b, when: {source_ae: scanner}, destinations: [ehr, pacs], priority: stat}
    fallback: {destinations: [nowhere]}
    """
    decision = route_study(COMPLETE, parse_rules(text), CONTRACTS)
    assert decision.rules == ("a", "b")
    assert decision.destinations == ("ehr", "pacs")
    assert decision.priority is Priority.STAT
    assert len(decision.assignments) == 1


def test_a_model_that_is_not_installed_is_told() -> None:
    decision = route_study(COMPLETE, RULES, {})
    assert decision.models[0].reasons == ("this model is not installed",)


def test_a_tag_matches_one_of_several_values() -> None:
    rules = parse_rules("rules: [{name: a, when: {tags: {ImageType: axial}}}]")
    assert route_study(_study(_series(1, "x", ImageType="ORIGINAL\\PRIMARY\\AXIAL")), rules, {}).rule == "a"


WORDS = st.sampled_from(["", "MR", "CT", "head", "FLAIR", "t1 post", "*", "*a*", "[x", "?"])
SERIES = st.builds(
    _series,
    st.integers(1, 9),
    WORDS,
    st.integers(0, 12),
    modality=WORDS,
    sop_class=st.sampled_from([MRImageStorage, SegmentationStorage, ""]),
    ImageType=WORDS,
)
STUDIES = st.lists(SERIES, max_size=5, unique_by=lambda s: s.series_uid).map(lambda series: _study(*series))
TEXTS = st.lists(WORDS, max_size=2).map(tuple)
REFERENCES = st.sampled_from(
    [(), (TUMOUR_1,), (ModelReference(name="tumour"),), (ModelReference(name="absent"),)]
)
RULE_LISTS = st.lists(
    st.builds(
        Rule,
        name=st.sampled_from("abcdef"),
        when=st.builds(
            Conditions,
            modality=TEXTS,
            body_part=TEXTS,
            series_description=TEXTS,
            study_description=TEXTS,
            source_ae=TEXTS,
            min_images=st.integers(0, 10),
            tags=TEXTS.map(lambda patterns: (("ImageType", patterns),) if patterns else ()),
        ),
        then=st.builds(
            Outcome,
            models=REFERENCES,
            shadows=REFERENCES,
            destinations=TEXTS,
            priority=st.sampled_from(Priority),
        ),
    ),
    max_size=4,
    unique_by=lambda rule: rule.name,
)


@given(STUDIES, RULE_LISTS)
def test_every_study_gets_a_decision_with_an_explanation_per_rule(study: Study, rules: list[Rule]) -> None:
    decision = route_study(study, RuleSet(rules=tuple(rules)), CONTRACTS)
    assert [item.rule for item in decision.explanations] == [*(rule.name for rule in rules), "fallback"]
    for item in decision.explanations[:-1]:
        assert item.matched != bool(item.reasons)
    assert RoutingDecision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    for told in decision.models:
        assert told.runs or told.reasons


@given(STUDIES, RULE_LISTS, st.randoms())
def test_order_does_not_matter(study: Study, rules: list[Rule], shuffler: random.Random) -> None:
    first = route_study(study, RuleSet(rules=tuple(rules)), CONTRACTS)
    series = list(study.series)
    shuffler.shuffle(series)
    shuffler.shuffle(rules)
    second = route_study(replace(study, series=tuple(series)), RuleSet(rules=tuple(rules)), CONTRACTS)
    assert set(first.explanations) == set(second.explanations)
    assert replace(first, explanations=()) == replace(second, explanations=())


def test_the_plane_that_a_role_wants_beats_the_larger_series() -> None:
    axial = InputContract(
        roles=(InputRole(name="flair", required=True, any_description=("*flair*",), plane=Plane.AXIAL),)
    )
    sagittal_series = _series(3, "SAG FLAIR 3D", 160, ImageOrientationPatient=r"0\1\0\0\0\-1")
    axial_series = _series(4, "AX FLAIR", 24, ImageOrientationPatient=r"1\0\0\0\1\0")
    both = select_series(_study(sagittal_series, axial_series), axial)
    assert both.roles == (("flair", axial_series.series_uid),)
    alone = select_series(_study(sagittal_series), axial)
    assert "its slices are sagittal" in alone.obstacles[0]
    untold = _series(5, "FLAIR", 30)
    assert select_series(_study(untold), axial).roles == (("flair", untold.series_uid),)


# -- versions side by side, and shadows --------------------------------------------------------

SEVERAL = {ModelReference(name="tumour", version=version): TUMOUR for version in ("1.0.0", "1.9.0", "1.10.0")}


def _decide(*rules: str) -> RoutingDecision:
    lines = [f"- {{name: r{number}, when: {{modality: MR}}, {rule}}}" for number, rule in enumerate(rules)]
    return route_study(COMPLETE, parse_rules("rules:\n" + "\n".join(lines)), SEVERAL)


def test_a_bare_name_means_the_newest_version_and_a_pin_goes_before_it() -> None:
    assert [a.reference for a in _decide("models: [tumour]").active] == ["tumour@1.10.0"]
    pinned = _decide("models: [tumour]", "models: [tumour@1.9.0]")
    assert [a.reference for a in pinned.active] == ["tumour@1.9.0"]


def test_one_version_speaks_for_a_model_so_that_no_lesion_is_reported_twice() -> None:
    decision = _decide("models: [tumour@1.0.0]", "models: [tumour@1.9.0]", "models: [tumour@7.0.0]")
    assert [a.reference for a in decision.active] == ["tumour@1.9.0"]
    told = {entry.model: entry.reasons for entry in decision.models if not entry.runs}
    assert "name the other one under shadow" in told["tumour@1.0.0"][0]
    assert told["tumour@7.0.0"] == ("this version is not installed",)


def test_shadows_run_beside_the_model_and_are_no_active_models() -> None:
    decision = _decide("models: [tumour@1.0.0], shadow: [tumour, tumour@1.9.0, absent]")
    assert [a.reference for a in decision.active] == ["tumour@1.0.0"]
    assert [a.reference for a in decision.shadows] == ["tumour@1.10.0", "tumour@1.9.0"]
    assert decision.assignment_of("tumour@1.9.0").is_shadow
    absent = next(entry for entry in decision.models if entry.model == "absent")
    assert (absent.is_shadow, absent.is_installed) == (True, False)


def test_a_model_that_speaks_already_is_not_its_own_shadow() -> None:
    decision = _decide("models: [tumour], shadow: [tumour@1.10.0]")
    assert decision.shadows == ()
    assert "already" in next(entry for entry in decision.models if entry.is_shadow).reasons[0]


# -- radiographs and the built-in rules --------------------------------------------------------

CHEST = InputContract(roles=(InputRole(name="image", required=True, modalities=("CR", "DX")),))
DX, RAW_DX = DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing


def _radiograph(number: int, description: str = "", *, sop_class: str = DX, **header: str) -> Series:
    return _series(number, description, 1, modality="DX", sop_class=sop_class, **header)


def test_the_frontal_radiograph_is_read_and_not_the_lateral_one() -> None:
    by_header = _study(_radiograph(1, ViewPosition="LL"), _radiograph(2, ViewPosition="PA"))
    assert select_series(by_header, CHEST).roles == (("image", "1.2.2"),)
    by_description = _study(_radiograph(1, "CHEST LAT"), _radiograph(2, "Chest plate"))
    assert select_series(by_description, CHEST).roles == (("image", "1.2.2"),)
    alone = _study(_radiograph(1, ViewPosition="LL"))
    assert select_series(alone, CHEST).roles == (("image", "1.2.1"),), "the model refuses it and says so"


def test_a_digitised_film_is_a_radiograph_though_it_is_a_secondary_capture() -> None:
    film = _radiograph(1, sop_class=SecondaryCaptureImageStorage)
    assert select_series(_study(film), CHEST).roles == (("image", "1.2.1"),)
    page = replace(film, modality="OT")
    assert select_series(_study(page), CHEST).roles == ()


def test_raw_detector_data_is_not_read() -> None:
    raw = _radiograph(1, sop_class=RAW_DX)
    assert select_series(_study(raw, _radiograph(2)), CHEST).roles == (("image", "1.2.2"),)
    assert "For Processing" in select_series(_study(raw), CHEST).obstacles[0]


@pytest.mark.parametrize(
    ("series", "models"),
    [
        (_series(1, "AX FLAIR"), {"brain-tumour-lgg"}),
        (_radiograph(1), set()),
        (replace(_radiograph(1), body_part="CHEST"), {"chest-xray-boxes", "chest-xray-labels"}),
        (replace(_radiograph(1), body_part="", modality="CR"), {"chest-xray-boxes", "chest-xray-labels"}),
        (replace(_radiograph(1), body_part="HAND"), set()),
        (_series(1, "Head 5.0", modality="CT", sop_class=CTImageStorage), {"head-ct"}),
        (replace(_series(1, "x", modality="CT"), body_part="ABDOMEN"), set()),
    ],
)
def test_the_built_in_rules_send_each_kind_of_study_to_its_models(series: Series, models: set[str]) -> None:
    asked = {entry.model for entry in route_study(_study(series), default_rules(), {}).models}
    assert asked == models
    with_fusion = route_study(_study(series), default_rules(is_fusion_wanted=True), {})
    is_head = models <= {"brain-tumour-lgg", "head-ct"} and bool(models)
    assert {entry.model for entry in with_fusion.models} == models | ({"ct-mr-fusion"} if is_head else set())
