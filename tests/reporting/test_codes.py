from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from inference.findings import Laterality, Measurement, Presence, Quantity, RiskClass, Scale
from reporting import codes
from reporting.codes import Concept
from reporting.errors import UnknownConceptError

CONCEPTS = [value for value in vars(codes).values() if isinstance(value, Concept)]
#: Schemes and codes that PS3.16's dictionary in pydicom does not list.
NOT_IN_DICTIONARY = {
    ("RFC5646", "en"),
    ("UCUM", "mL"),
    ("UMLS", "C0034375"),
    ("LN", "30745-4"),
    ("SCT", "46621007"),
    ("SCT", "8186001"),
    ("SCT", "95436008"),
    ("SCT", "87433001"),
    ("SCT", "51615001"),
    ("SCT", "233604007"),
}
NIH = [
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural_thickening",
    "hernia",
]
VINDR = [
    "aortic_enlargement",
    "atelectasis",
    "calcification",
    "cardiomegaly",
    "consolidation",
    "ild",
    "infiltration",
    "lung_opacity",
    "nodule_mass",
    "other_lesion",
    "effusion",
    "pleural_thickening",
    "pneumothorax",
    "pulmonary_fibrosis",
]


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda c: f"{c.scheme}-{c.value}")
def test_every_code_is_in_the_standard_or_says_that_it_is_not(concept):
    assert len(concept.meaning) <= 64
    assert len(concept.value) <= 16
    assert concept.source
    if concept.scheme == codes.PRIVATE_SCHEME:
        assert concept.source.startswith("private")
        return
    if (concept.scheme, concept.value) in NOT_IN_DICTIONARY:
        return
    assert any(concept.value in keyword for keyword in concepts[concept.scheme].values())


@pytest.mark.parametrize("concept", [c for c in CONCEPTS if c.scheme != "RFC5646"], ids=lambda c: c.value)
def test_every_code_has_a_fhir_system(concept):
    assert concept.fhir_system.startswith(("http://", "urn:oid:2.25."))


def test_private_codes_are_unique():
    private = [c.value for c in CONCEPTS if c.scheme == codes.PRIVATE_SCHEME]
    assert len(set(private)) == len(private)


def test_every_side_presence_quantity_and_risk_has_a_code():
    assert {codes.code_laterality(side).value for side in Laterality} == {"7771000", "24028007", "51440002"}
    assert {codes.code_presence(presence).value for presence in Presence} == {
        "52101004",
        "272519000",
        "373068000",
    }
    assert len({codes.code_quantity(quantity) for quantity in Quantity}) == len(Quantity)
    assert len({codes.code_risk(risk) for risk in RiskClass}) == len(RiskClass)


@pytest.mark.parametrize("key", sorted({*NIH, *VINDR, "pneumonia", "lung_opacity"}))
def test_every_chest_label_has_a_code_and_a_conclusion_that_is_no_diagnosis(key):
    concept = codes.code_finding(key)
    assert concept.category == codes.ABNORMAL_STRUCTURE
    assert concept.conclusion != codes.PNEUMONIA
    assert not concept.is_anatomy


def test_structures_are_measured_and_not_found():
    for key in ("brain", "brain_volume", "gray_matter", "white_matter"):
        assert codes.code_finding(key).is_anatomy


@pytest.mark.parametrize("scale", Scale)
def test_every_estimate_has_codes_and_words(scale):
    known = {
        Scale.TUMOUR_CLASS: {"healthy", "benign", "malignant"},
        Scale.TUMOUR_STAGE: {"grade_2", "grade_3"},
        Scale.SURVIVAL_RISK: {"lower", "middle", "higher"},
    }
    assert set(codes.code_scale(scale).categories) == known[scale]
    with pytest.raises(UnknownConceptError, match=r"reporting/codes\.py"):
        codes.code_category(scale, "grade_5")


def test_grades_are_named_as_who_grades():
    for value in ("grade_2", "grade_3"):
        concept, words = codes.code_category(Scale.TUMOUR_STAGE, value)
        assert concept.meaning.startswith("WHO grade")
        assert words.startswith("WHO grade")


def test_what_is_unknown_is_refused_and_says_where_to_add_it():
    for lookup in (codes.code_finding, codes.code_site, codes.code_procedure):
        with pytest.raises(UnknownConceptError, match=r"reporting/codes\.py"):
            lookup("phrenology")


@pytest.mark.parametrize(
    ("modality", "sites", "code"),
    [
        ("MR", {"brain"}, "24590-2"),
        ("CT", {"brain", "head"}, "24725-4"),
        ("DX", {"lung", "heart", "pleura"}, "30745-4"),
        ("CR", {"thorax"}, "30745-4"),
        ("CT", {"lung"}, "24627-2"),
        ("CT", {"lung", "brain"}, "18748-4"),
        ("DX", {"brain"}, "18748-4"),
        ("MR", set(), "18748-4"),
    ],
)
def test_study_code_is_that_of_its_sites_or_the_general_one(modality, sites, code):
    assert codes.code_study(modality, frozenset(sites)).value == code


@pytest.mark.parametrize(("unit", "expected"), [("mL", 12.0), ("cm3", 12.0), ("mm3", 0.012)])
def test_volumes_are_converted(unit, expected):
    assert codes.value_in_ml(Measurement(quantity=Quantity.VOLUME, value=12.0, unit=unit)) == expected


@pytest.mark.parametrize(("unit", "expected"), [("mm2", 12.0), ("cm2", 1200.0)])
def test_areas_are_converted(unit, expected):
    assert codes.value_in_mm2(Measurement(quantity=Quantity.AREA, value=12.0, unit=unit)) == expected


def test_a_length_is_no_volume():
    with pytest.raises(UnknownConceptError, match="mm"):
        codes.value_in_ml(Measurement(quantity=Quantity.VOLUME, value=12.0, unit="mm"))
