from __future__ import annotations

import pytest
from reporting_cases import (
    DETECTOR,
    MODEL,
    chest_box,
    chest_case,
    make_case,
    make_enhanced_case,
    make_fusion_case,
    make_label_case,
    mark,
)

from reporting.comparison import locate_findings
from reporting.projection import read_views


def places_of(case):
    return locate_findings(case.analysis, case.sources, read_views(case.sources))


@pytest.mark.parametrize("make", [make_case, make_enhanced_case])
def test_a_lesion_lies_where_the_images_place_it_from_their_middle(make) -> None:
    places = places_of(make())
    assert places[f"{MODEL.name}/F1"] == pytest.approx((-5.4, -3.6, -2.0))
    assert places[f"{MODEL.name}/F2"] == pytest.approx((7.2, 5.4, 6.0))


def test_another_position_of_the_table_changes_no_place() -> None:
    case, moved = make_case(), make_case()
    for header in moved.series:
        header.ImagePositionPatient = [float(value) + 37 for value in header.ImagePositionPatient]
    assert places_of(moved) == {name: pytest.approx(place) for name, place in places_of(case).items()}


def test_marks_lie_left_and_right_as_the_patient_is() -> None:
    left, right = chest_box(56, 62, 74, 80), chest_box(6, 16, 24, 34)
    case = chest_case(
        DETECTOR, (mark(1, "effusion", "pleura", left, 0.9), mark(2, "nodule", "lung", right, 0.9))
    )
    places = places_of(case)
    assert places[f"{DETECTOR.name}/F1"] == pytest.approx((125.0, 0.0, -115.0))
    assert places[f"{DETECTOR.name}/F2"] == pytest.approx((-125.0, 0.0, 115.0))


def test_a_mark_on_a_lateral_film_has_no_place() -> None:
    case = chest_case(DETECTOR, (mark(1, "nodule", "lung", chest_box(6, 16, 24, 34, number=2), 0.9),))
    assert places_of(case) == {}


@pytest.mark.parametrize("make", [make_label_case, make_fusion_case])
def test_what_has_no_place_has_none(make) -> None:
    assert places_of(make()) == {}


def test_images_without_a_position_give_no_place() -> None:
    case = make_case()
    for header in case.series:
        del header.ImagePositionPatient
    assert places_of(case) == {}
