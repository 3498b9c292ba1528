from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from inference.findings import Laterality, Measurement, Presence, Quantity
from reporting import codes
from reporting.codes import Concept
from reporting.errors import UnknownConceptError

CONCEPTS = [value for value in vars(codes).values() if isinstance(value, Concept)]
#: Schemes and codes that PS3.16's dictionary in pydicom does not list.
NOT_IN_DICTIONARY = {("RFC5646", "en"), ("UCUM", "mL")}


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda c: f"{c.scheme}-{c.value}")
def test_every_code_is_in_the_standard(concept):
    if (concept.scheme, concept.value) in NOT_IN_DICTIONARY:
        return
    assert any(concept.value in keyword for keyword in concepts[concept.scheme].values())
    assert len(concept.meaning) <= 64
    assert concept.source


@pytest.mark.parametrize("concept", [c for c in CONCEPTS if c.scheme != "RFC5646"], ids=lambda c: c.value)
def test_every_code_has_a_fhir_system(concept):
    assert concept.fhir_system.startswith("http://")


def test_every_side_presence_and_quantity_has_a_code():
    assert {codes.code_laterality(side).value for side in Laterality} == {"7771000", "24028007", "51440002"}
    assert {codes.code_presence(presence).value for presence in Presence} == {
        "52101004",
        "272519000",
        "373068000",
    }
    assert len({codes.code_quantity(quantity) for quantity in Quantity}) == 3


def test_what_is_unknown_is_refused_and_says_where_to_add_it():
    for lookup in (codes.code_finding, codes.code_site, codes.code_procedure):
        with pytest.raises(UnknownConceptError, match=r"reporting/codes\.py"):
            lookup("phrenology")


def test_study_code_is_the_sites_own_or_the_general_one():
    assert codes.code_study("MR", frozenset({"brain"})).value == "24590-2"
    assert codes.code_study("CT", frozenset({"brain"})).value == "18748-4"
    assert codes.code_study("MR", frozenset()).value == "18748-4"


@pytest.mark.parametrize(("unit", "expected"), [("mL", 12.0), ("cm3", 12.0), ("mm3", 0.012)])
def test_volumes_are_converted(unit, expected):
    assert codes.value_in_ml(Measurement(quantity=Quantity.VOLUME, value=12.0, unit=unit)) == expected


def test_a_length_is_no_volume():
    with pytest.raises(UnknownConceptError, match="mm"):
        codes.value_in_ml(Measurement(quantity=Quantity.VOLUME, value=12.0, unit="mm"))
