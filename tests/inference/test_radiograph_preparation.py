from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.findings import FrameReference
from inference.radiograph import Radiograph
from inference.radiograph_preparation import BLACK, Placement, placement, prepare_grey, prepare_radiograph


def film(seed: int = 0, shape: tuple[int, int] = (60, 48)) -> np.ndarray:
    """Smooth grey values 0 to 1 with some texture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = np.sin(rows / 9.0) + np.cos(columns / 7.0) + rng.normal(0, 0.1, shape)
    return ((waves - waves.min()) / (waves.max() - waves.min())).astype(np.float32)


def test_scale_and_offset_do_not_matter() -> None:
    np.testing.assert_allclose(prepare_grey(film(), 32), prepare_grey(film() * 4000 - 1000, 32), atol=1e-3)


def test_a_wide_window_and_a_film_curve_hardly_matter() -> None:
    usual = prepare_grey(film(), 32)
    windowed = prepare_grey(film() * 0.5 + 0.2, 32)
    eight_bits = prepare_grey(np.rint(film() ** 1.4 * 255).astype(np.float32), 32)
    assert np.abs(usual - windowed).max() < 1e-3
    assert np.abs(usual - eight_bits).mean() < 0.06


def test_an_oblong_image_keeps_its_aspect_between_black_margins() -> None:
    prepared = prepare_grey(film(shape=(64, 32)), 32)
    assert prepared.shape == (1, 32, 32)
    assert (prepared[0, :, :7] == BLACK).all()
    assert (prepared[0, :, 25:] == BLACK).all()
    assert prepared[0, :, 9:23].std() > 0.3


def test_a_flat_image_is_black_and_a_bad_one_is_refused() -> None:
    assert (prepare_grey(np.full((8, 8), 7.0, dtype=np.float32), 8) == BLACK).all()
    with pytest.raises(ValueError, match="finite"):
        prepare_grey(np.full((8, 8), np.nan, dtype=np.float32), 8)


@given(st.integers(20, 3000), st.integers(20, 3000), st.sampled_from((224, 512)), st.integers(0, 9))
def test_boxes_return_to_where_they_came_from(height: int, width: int, matrix: int, seed: int) -> None:
    where = Placement(height=height, width=width, matrix=matrix)
    corners = np.random.default_rng(seed).uniform(0, 1, (5, 2, 2))
    corners.sort(axis=1)
    boxes = (corners * np.array((width, height))).reshape(5, 4).astype(np.float32)
    there = where.to_matrix(boxes)
    assert there.min() >= 0
    assert there.max() <= matrix + 1e-3
    np.testing.assert_allclose(where.to_image(there), boxes, atol=0.01)


def test_a_marked_pixel_lies_inside_its_mapped_box() -> None:
    grey = np.zeros((300, 200), dtype=np.float32)
    grey[100:130, 40:80] = 1.0
    image = Radiograph(
        array=grey, frame=FrameReference(sop_instance_uid="1"), series_uid="2", modality="DX", view="PA"
    )
    prepared = prepare_radiograph(image, 100)[0]
    left, top, right, bottom = placement(image, 100).to_matrix(np.array([[40, 100, 80, 130]], np.float32))[0]
    rows, columns = np.nonzero(prepared > 0)
    assert (rows.min(), rows.max() + 1) == pytest.approx((top, bottom), abs=1)
    assert (columns.min(), columns.max() + 1) == pytest.approx((left, right), abs=1)
