"""Scores against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from inference.components import remove_small_components
from inference.training.metrics import (
    bootstrap_interval,
    dice,
    false_positive_slices,
    hausdorff_95_px,
    intersection_over_union,
)

EMPTY = np.zeros((2, 8, 8), dtype=np.bool_)
masks = hnp.arrays(np.bool_, (2, 4, 4))


def box(top: int, left: int, side: int) -> np.ndarray:
    mask = EMPTY.copy()
    mask[0, top : top + side, left : left + side] = True
    return mask


def test_half_overlapping_boxes() -> None:
    ours, theirs = box(0, 0, 4), box(0, 2, 4)
    assert dice(ours, theirs) == pytest.approx(0.5)
    assert intersection_over_union(ours, theirs) == pytest.approx(1 / 3)


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    assert dice(EMPTY, EMPTY) == 1.0
    assert intersection_over_union(EMPTY, EMPTY) == 1.0
    assert dice(EMPTY, box(0, 0, 2)) == 0.0


@settings(deadline=None)
@given(ours=masks, theirs=masks)
def test_dice_is_symmetric_and_follows_from_intersection_over_union(
    ours: np.ndarray, theirs: np.ndarray
) -> None:
    overlap = intersection_over_union(ours, theirs)
    assert dice(ours, theirs) == dice(theirs, ours)
    assert dice(ours, theirs) == pytest.approx(2 * overlap / (1 + overlap))


def test_hausdorff_of_a_shifted_box_is_its_shift() -> None:
    assert hausdorff_95_px(box(0, 0, 4), box(0, 0, 4)) == 0.0
    assert hausdorff_95_px(box(2, 1, 4), box(2, 3, 4)) == pytest.approx(2.0)


def test_hausdorff_of_a_missed_lesion_is_infinite() -> None:
    assert math.isinf(hausdorff_95_px(EMPTY, box(0, 0, 2)))


def test_only_marked_tumour_free_slices_are_false_positives() -> None:
    predicted = EMPTY.copy()
    predicted[:, 0, 0] = True
    assert false_positive_slices(predicted, box(0, 0, 2)) == (1, 1)
    assert false_positive_slices(EMPTY, box(0, 0, 2)) == (0, 1)


def test_small_components_go_and_large_ones_stay() -> None:
    mask = box(0, 0, 3)
    mask[1, 7, 7] = True
    np.testing.assert_array_equal(remove_small_components(mask, 2), box(0, 0, 3))
    np.testing.assert_array_equal(remove_small_components(mask, 1), mask)
    assert not remove_small_components(mask, 10).any()


def test_interval_contains_the_mean_and_repeats() -> None:
    values = list(np.random.default_rng(1).uniform(0.6, 0.95, 16))
    interval = bootstrap_interval(values)
    assert interval.low < interval.mean < interval.high
    assert interval.count == 16
    assert interval == bootstrap_interval(values)


def test_interval_of_one_value_is_that_value() -> None:
    interval = bootstrap_interval([0.8])
    assert (interval.mean, interval.low, interval.high) == (0.8, 0.8, 0.8)


def test_no_patient_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([])
