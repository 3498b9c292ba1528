from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.findings import FrameReference
from inference.orientation import UnsuitablePlaneError, axial_turn
from inference.volume import Volume

X, Y, Z = np.eye(3)


def volume_with(columns, rows) -> Volume:
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = columns, rows
    affine[:3, 2] = 5 * np.cross(columns, rows)
    return Volume(
        array=np.zeros((2, 4, 4), np.float32),
        affine=affine,
        frames=tuple(FrameReference(sop_instance_uid=f"1.2.{i}") for i in range(2)),
        series_uid="1.2",
        frame_of_reference_uid=None,
        modality="MR",
    )


def test_slices_as_radiology_shows_them_stay_as_they_are():
    array = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert axial_turn(volume_with(X, Y)).apply(array) is array


@pytest.mark.parametrize(("left", "back"), list(itertools.product((1, -1), (1, -1))))
def test_every_mirrored_slice_ends_nose_up_and_comes_back(left, back):
    shown = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    stored = shown[:, ::back, ::left]
    turn = axial_turn(volume_with(left * X, back * Y))
    np.testing.assert_array_equal(turn.apply(stored), shown)
    np.testing.assert_array_equal(turn.apply(turn.apply(stored)), stored)


@given(degrees=st.floats(-44, 44))
def test_oblique_slices_are_axial_up_to_45_degrees(degrees):
    angle = np.radians(degrees)
    turn = axial_turn(volume_with(X, np.cos(angle) * Y + np.sin(angle) * Z))
    assert not turn.flips_rows
    assert not turn.flips_columns


@pytest.mark.parametrize(("columns", "rows", "plane"), [(Y, -Z, "sagittal"), (X, -Z, "coronal")])
def test_other_planes_are_refused_by_name(columns, rows, plane):
    with pytest.raises(UnsuitablePlaneError, match=plane):
        axial_turn(volume_with(columns, rows))


def test_swapped_rows_and_columns_are_refused():
    with pytest.raises(UnsuitablePlaneError, match="swapped"):
        axial_turn(volume_with(Y, X))
