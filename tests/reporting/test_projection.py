from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting_cases import DX_SERIES_UID, chest_box, ct_series, radiograph_header

from inference.findings import Laterality
from reporting.projection import Place, Zone, locate, read_views


def views_of(**header):
    dataset = radiograph_header()
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    return read_views({DX_SERIES_UID: [dataset]})


@pytest.mark.parametrize(
    ("box", "side", "zone"),
    [
        ((8, 10, 20, 24), Laterality.RIGHT, Zone.UPPER),
        ((60, 34, 72, 48), Laterality.LEFT, Zone.MID),
        ((60, 66, 76, 84), Laterality.LEFT, Zone.LOWER),
        ((38, 40, 42, 44), None, Zone.MID),
        ((10, 60, 70, 84), Laterality.BILATERAL, Zone.LOWER),
        ((39, 10, 47, 20), None, Zone.UPPER),
    ],
)
def test_a_frontal_radiograph_has_the_patients_right_on_its_left(box, side, zone):
    assert locate(chest_box(*box), views_of()) == Place(side=side, zone=zone)


def test_the_view_position_is_enough():
    box = chest_box(60, 34, 72, 48)
    assert locate(box, views_of(PatientOrientation=None, ViewPosition="AP")).side is Laterality.LEFT


def test_a_mirrored_image_is_turned_first():
    views = views_of(PatientOrientation=["R", "F"])
    assert locate(chest_box(60, 34, 72, 48), views).side is Laterality.RIGHT


def test_an_image_upside_down_is_turned_first():
    views = views_of(PatientOrientation=["L", "H"])
    assert locate(chest_box(60, 80, 72, 90), views).zone is Zone.UPPER


@pytest.mark.parametrize(
    "header",
    [
        {"PatientOrientation": ["A", "F"], "ViewPosition": "LL"},
        {"PatientOrientation": None, "ViewPosition": ""},
    ],
)
def test_a_lateral_or_unknown_view_has_no_side_and_no_zone(header):
    assert locate(chest_box(60, 34, 72, 48), views_of(**header)) == Place()


def test_only_radiographs_have_views():
    assert read_views({"1.2": ct_series()}) == {}
    assert locate(chest_box(1, 1, 2, 2, number=9), views_of()) == Place()


@given(st.integers(0, 38), st.integers(0, 90))
def test_mirroring_a_box_changes_its_side(left, top):
    views = views_of()
    here = locate(chest_box(left, top, left + 2, top + 6), views)
    there = locate(chest_box(78 - left, top, 80 - left, top + 6), views)
    opposite = {Laterality.LEFT: Laterality.RIGHT, Laterality.RIGHT: Laterality.LEFT, None: None}
    assert there == Place(side=opposite[here.side], zone=here.zone)
