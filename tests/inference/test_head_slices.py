from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_fusion_package import head_volume

from inference.head_slices import (
    Crop,
    choose_slices,
    crop_around,
    cut,
    head_mask,
    mr_unit,
    paste,
    prepare_slices,
    window_unit,
)


def _unit(modality: str) -> np.ndarray:
    array = head_volume(modality).array
    if modality == "CT":
        return window_unit(array, 40, 80)
    return np.stack([mr_unit(image) for image in array])


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_head_fills_the_prepared_slice(modality: str) -> None:
    unit = _unit(modality)
    prepared = prepare_slices(unit, (3, 4), 64, is_ct=modality == "CT")
    assert prepared.images.shape == (2, 1, 64, 64)
    assert np.isfinite(prepared.images).all()
    tissue = prepared.images[0, 0] > prepared.images[0, 0].min() + 0.5
    assert np.flatnonzero(tissue.any(axis=1))[[0, -1]] == pytest.approx([2, 61], abs=3)


def test_scale_and_offset_of_mr_intensities_do_not_matter() -> None:
    array = head_volume("MR").array
    unit = np.stack([mr_unit(image) for image in array])
    other = np.stack([mr_unit(image) for image in 3.5 * array + 70])
    ours = prepare_slices(unit, (4,), 64, is_ct=False).images
    np.testing.assert_allclose(prepare_slices(other, (4,), 64, is_ct=False).images, ours, atol=1e-3)


def test_slices_are_chosen_evenly_among_those_with_enough_head() -> None:
    unit = _unit("MR").repeat(4, axis=0)
    unit[:5] = 0.0
    chosen = choose_slices(unit, 6, is_ct=False)
    assert len(chosen) == 6
    assert min(chosen) >= 5
    assert list(chosen) == sorted(set(chosen))


def test_a_volume_without_anything_has_no_slices() -> None:
    assert choose_slices(np.zeros((4, 64, 64), dtype=np.float32), 5, is_ct=True) == ()
    assert mr_unit(np.full((8, 8), 7.0, dtype=np.float32)).max() == 0.0


def test_what_is_beside_the_head_is_not_the_head() -> None:
    unit = np.zeros((96, 96), dtype=np.float32)
    unit[20:70, 25:65] = 0.8
    unit[88:92, 10:80] = 0.9  # a holder
    assert crop_around(head_mask(unit, 0.1)) == Crop(top=18, left=18, side=54)


@settings(max_examples=30, deadline=None)
@given(
    top=st.integers(-20, 40), left=st.integers(-20, 40), side=st.integers(1, 80),
    height=st.integers(45, 60), width=st.integers(45, 60),
)  # fmt: skip
def test_what_was_cut_goes_back_where_it_was(top: int, left: int, side: int, height: int, width: int) -> None:
    crop = Crop(top=top, left=left, side=side)
    image = np.random.default_rng(0).random((height, width), dtype=np.float32) + 1.0
    back = paste(cut(image, crop), crop, (height, width))
    inside = np.zeros((height, width), dtype=bool)
    inside[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
    np.testing.assert_allclose(back[inside], image[inside], rtol=1e-5)
    assert not back[~inside].any()
