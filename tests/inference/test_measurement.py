from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inference.findings import FrameReference, Laterality
from inference.measurement import diameters, laterality, midline_x_mm, volume_ml

SPACING = (0.5, 0.8, 5.0)
AFFINE = np.diag((*SPACING, 1.0))
AFFINE[:3, 3] = (-30.0, -40.0, 10.0)
FRAMES = tuple(FrameReference(sop_instance_uid=f"1.{i}") for i in range(5))


def ellipse(shape, center, half, angle=0.0):
    """An ellipse given in mm around a centre in mm, on the pixel centres of one slice."""
    rows, columns = np.indices(shape)
    x, y = (columns + 0.5) * SPACING[0] - center[0], (rows + 0.5) * SPACING[1] - center[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    return (along / half[0]) ** 2 + (across / half[1]) ** 2 <= 1


def on_slice(plane, index=2, depth=5):
    mask = np.zeros((depth, *plane.shape), dtype=bool)
    mask[index] = plane
    return mask


def test_volume_is_the_number_of_voxels_times_their_volume():
    mask = np.zeros((5, 10, 10), dtype=bool)
    mask[1:3, 2:7, 2:7] = True
    assert volume_ml(mask, AFFINE) == pytest.approx(50 * 0.5 * 0.8 * 5.0 / 1000)


@settings(max_examples=40, deadline=None)
@given(angle=st.floats(0, np.pi), long=st.floats(8, 20), share=st.floats(0.3, 0.95))
def test_an_ellipse_measures_its_axes(angle, long, share):
    mask = on_slice(ellipse((100, 160), (40.0, 40.0), (long, long * share), angle))
    lines = diameters(mask, AFFINE, FRAMES)
    assert lines.slice_index == 2
    assert lines.long_axis.length_mm == pytest.approx(2 * long, abs=1.2)
    assert lines.perpendicular_axis.length_mm == pytest.approx(2 * long * share, abs=1.6)


def all_but(*missing):
    """A region that fills its image but for some pixels (slice, row, column)."""
    mask = np.ones((3, 9, 11), dtype=bool)
    for pixel in missing:
        mask[pixel] = False
    return mask


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.bool_, (3, 9, 11)).filter(np.any))
@example(all_but((0, 0, 10), (1, 0, 0), (2, 0, 0)))  # the perpendicular ends on the left edge of the image
def test_laws_of_the_two_diameters(mask):
    lines = diameters(mask, AFFINE, FRAMES[:3])
    long, short = lines.long_axis, lines.perpendicular_axis
    assert 0 < short.length_mm <= long.length_mm + 1e-9
    assert long.frame == short.frame == FRAMES[lines.slice_index]
    assert mask[lines.slice_index].sum() == mask.sum(axis=(1, 2)).max()
    vectors = []
    for line in (long, short):
        for point in (line.start, line.end):
            assert 0 <= point.column <= 11
            assert 0 <= point.row <= 9
        vector = np.array((line.end.column - line.start.column, line.end.row - line.start.row)) * SPACING[:2]
        assert np.linalg.norm(vector) == pytest.approx(line.length_mm)
        vectors.append(vector)
    cosine = vectors[0] @ vectors[1] / (np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1]))
    assert abs(cosine) < 1e-6


def test_one_pixel_measures_one_pixel_around_its_centre():
    mask = np.zeros((5, 9, 9), dtype=bool)
    mask[1, 4, 6] = True
    long = diameters(mask, AFFINE, FRAMES).long_axis
    assert long.length_mm == pytest.approx(0.8)
    assert (long.start.column, long.end.column) == pytest.approx((6.5, 6.5))
    assert sorted((long.start.row, long.end.row)) == pytest.approx([4.0, 5.0])


def test_the_perpendicular_stays_inside_a_region_with_a_hole():
    outer, inner = ellipse((100, 160), (40, 40), (20, 16)), ellipse((100, 160), (40, 40), (15, 11))
    lines = diameters(on_slice(outer & ~inner), AFFINE, FRAMES)
    assert lines.long_axis.length_mm == pytest.approx(40, abs=1.2)
    assert lines.perpendicular_axis.length_mm < 25


def test_two_parts_on_a_slice_are_not_measured_as_one():
    plane = ellipse((100, 160), (15, 15), (10, 8)) | ellipse((100, 160), (60, 60), (5, 5))
    assert diameters(on_slice(plane), AFFINE, FRAMES).long_axis.length_mm == pytest.approx(20, abs=1.2)


def test_an_empty_region_has_no_diameter():
    with pytest.raises(ValueError, match="without voxels"):
        diameters(np.zeros((5, 4, 4), dtype=bool), AFFINE, FRAMES)


def head(flip=False):
    """A bright head off the middle of the picture, and its affine; flipped columns for a mirrored picture."""
    plane = ellipse((100, 160), (50.0, 40.0), (25.0, 35.0))
    array = np.where(np.stack([plane] * 5), 100.0, 1.0).astype(np.float32)
    affine = AFFINE.copy()
    if flip:
        array = array[..., ::-1]
        affine[0] = (-0.5, 0, 0, -30.0 + 159 * 0.5)
    return array, affine


@pytest.mark.parametrize("flip", [False, True])
def test_the_midline_is_the_middle_of_the_head_however_the_picture_is_turned(flip):
    array, affine = head(flip)
    assert midline_x_mm(array, affine, slice(1, 3)) == pytest.approx(-30.0 + 50.0 - 0.25, abs=0.6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("center_mm", "expected"),
    [(65.0, Laterality.LEFT), (35.0, Laterality.RIGHT), (50.0, Laterality.BILATERAL)],
)
def test_the_side_is_the_patients(flip, center_mm, expected):
    array, affine = head(flip)
    mask = on_slice(ellipse((100, 160), (center_mm, 40.0), (6.0, 6.0)))
    mask = mask[..., ::-1] if flip else mask
    midline_mm = midline_x_mm(array, affine, slice(1, 4))
    assert midline_mm is not None
    assert laterality(mask, affine, midline_mm) is expected


def test_no_head_no_midline():
    assert midline_x_mm(np.zeros((5, 10, 10), dtype=np.float32), AFFINE, slice(0, 5)) is None
