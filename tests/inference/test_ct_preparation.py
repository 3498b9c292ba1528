from __future__ import annotations

import numpy as np
import pytest

from inference.cards import WindowCard
from inference.ct_preparation import HeadCtSlices, prepare_head_ct, slices_with_brain, window_slices

BRAIN = WindowCard(centre_hu=40, width_hu=80)
BONE = WindowCard(centre_hu=600, width_hu=2800)


def head_hu(radii=(10, 30, 36, 40, 36), side=128, value=40.0):
    """Return (D, H, W) HU: discs of brain in skull, in air."""
    rows, columns = np.mgrid[:side, :side] - side / 2 + 0.5
    distance = np.hypot(rows, columns)
    slices = [
        np.where(distance < radius - 3, value, np.where(distance < radius, 1000.0, -1000.0))
        for radius in radii
    ]
    return np.stack(slices).astype(np.float32)


def test_windows_are_channels_from_zero_to_one():
    hu = np.array([[[-1000.0, 0.0, 40.0, 80.0, 2000.0]]], dtype=np.float32)
    windowed = window_slices(hu, (BRAIN, BONE))
    assert windowed.shape == (1, 2, 1, 5)
    np.testing.assert_allclose(windowed[0, 0, 0], [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(windowed[0, 1, 0], [0, 800 / 2800, 840 / 2800, 880 / 2800, 1])


def test_a_card_without_windows_is_refused():
    with pytest.raises(ValueError, match="window"):
        window_slices(head_hu(), ())


def test_slices_with_too_little_head_are_left_out():
    hu = head_hu()
    assert slices_with_brain(hu, window_slices(hu, (BRAIN,))) == (1, 2, 3, 4)
    air = np.full((3, 64, 64), -1000.0, dtype=np.float32)
    assert slices_with_brain(air, window_slices(air, (BRAIN,))) == ()


def test_face_and_skull_base_are_left_out_and_a_large_bleeding_is_not():
    hu = head_hu((40, 40, 40))
    hu[0, 50:80, 50:80] = -1000.0  # sinuses
    hu[1, 50:80, 50:80] = 900.0  # petrous bone
    hu[2, 45:85, 45:85] = 95.0  # clotted blood
    assert slices_with_brain(hu, window_slices(hu, (BRAIN,))) == (2,)


def test_slices_are_cropped_to_the_head_wherever_it_lies_and_however_large_the_field_is():
    windowed = window_slices(head_hu((40,)), (BRAIN,))
    shifted = np.pad(windowed, ((0, 0), (0, 0), (90, 6), (4, 92)))
    first, second = (prepare_head_ct(each, (0,), 64) for each in (windowed, shifted))
    np.testing.assert_array_equal(first.images, second.images)
    assert first.images.shape == (1, 1, 64, 64)
    assert first.images.min() == pytest.approx(-2.0)
    assert first.images[0, 0, 32, 32] == pytest.approx(0.0, abs=1e-5), "40 HU is middle grey"


def test_maps_go_back_to_where_the_head_is():
    windowed = window_slices(head_hu((40, 36)), (BRAIN,))
    prepared = prepare_head_ct(windowed, (0, 1), 64)
    assert isinstance(prepared, HeadCtSlices)
    maps = np.zeros((2, 64, 64), dtype=np.float32)
    maps[:, 28:36, 28:36] = 1.0
    restored = prepared.restore(maps, (128, 128))
    assert restored.shape == (2, 128, 128)
    rows, columns = np.nonzero(restored[0] > 0.5)
    assert (rows.mean(), columns.mean()) == pytest.approx((63.5, 63.5), abs=1.0)
    assert restored[:, :20].max() == 0.0
