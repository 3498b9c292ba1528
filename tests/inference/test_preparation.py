"""The one preparation: what it promises about scale, geometry and determinism."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from inference.preparation import MATRIX, prepare_slices, restore_slices


def head(depth: int, height: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """A smooth bright ellipsoid with texture in dark, noisy air, on an integer scale of 0 to 1000."""
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = ((rows / 0.8) ** 2 + (columns / 0.7) ** 2 < 1.0).astype(np.float32)
    texture = ndimage.gaussian_filter(draws.normal(size=(depth, height, width)), (0, 4, 4))
    tissue = inside * (600.0 + 900.0 * texture)
    air = draws.uniform(0.0, 15.0, size=(depth, height, width))
    return np.round(np.clip(tissue + air, 0.0, 1000.0)).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 256, 256), (2, 240, 300), (2, 512, 448), (1, 64, 64)])
def test_output_is_depth_channel_matrix_matrix(shape: tuple[int, int, int]) -> None:
    channels = np.stack([head(*shape, seed=seed) for seed in range(3)])
    prepared = prepare_slices(channels)
    assert prepared.shape == (shape[0], 3, MATRIX, MATRIX)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous
    assert np.isfinite(prepared).all()


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.01, 50.0), offset=st.floats(-500.0, 500.0), seed=st.integers(0, 5))
def test_intensity_scale_and_offset_do_not_matter(gain: float, offset: float, seed: int) -> None:
    volume = head(2, 96, 96, seed)[None]
    prepared = prepare_slices(volume)
    rescaled = prepare_slices((gain * volume + offset).astype(np.float32))
    # A voxel that lies on the tissue threshold may fall to either side after rounding to float32.
    np.testing.assert_allclose(rescaled, prepared, atol=0.01)


def test_integer_types_of_one_volume_agree_exactly() -> None:
    volume = np.round(head(2, 128, 128) / 1000.0 * 255.0)
    as_uint8 = prepare_slices(volume.astype(np.uint8).astype(np.float32)[None])
    as_int16 = prepare_slices(volume.astype(np.int16).astype(np.float32)[None])
    np.testing.assert_array_equal(as_uint8, as_int16)


def test_tissue_is_centred_and_unit_wide() -> None:
    volume = head(4, MATRIX, MATRIX)
    tissue = prepare_slices(volume[None])[:, 0][volume > 200.0]
    assert abs(float(tissue.mean())) < 0.1
    assert abs(float(tissue.std()) - 1.0) < 0.1


def test_nothing_is_interpolated_at_the_networks_matrix() -> None:
    volume = head(3, MATRIX, MATRIX)
    prepared = prepare_slices(volume[None])[:, 0]
    order = np.argsort(volume, axis=None, kind="stable")
    assert (np.diff(prepared.ravel()[order]) >= 0.0).all()
    assert len(np.unique(prepared)) <= len(np.unique(volume))
    probabilities = np.random.default_rng(0).random((3, MATRIX, MATRIX), dtype=np.float32)
    np.testing.assert_array_equal(restore_slices(probabilities, MATRIX, MATRIX), probabilities)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 512), (320, 260), (181, 217), (512, 400)])
def test_geometry_survives_the_round_trip(height: int, width: int) -> None:
    volume = np.zeros((2, height, width), dtype=np.float32)
    top, left = height // 5, width // 3
    volume[:, top : top + height // 3, left : left + width // 4] = 1000.0
    prepared = prepare_slices(volume[None])[:, 0]
    bright = ((prepared > prepared.min()) & (prepared >= 0.5 * (prepared.max() + prepared.min()))).astype(
        np.float32
    )
    restored = restore_slices(bright, height, width) >= 0.5
    reference = volume > 0.0
    overlap = 2.0 * (restored & reference).sum() / (restored.sum() + reference.sum())
    assert restored.shape == volume.shape
    assert overlap > 0.97


def test_padding_continues_the_background() -> None:
    volume = head(2, 200, 100)
    prepared = prepare_slices(volume[None])[:, 0]
    padding, air = prepared[:, :, :60], prepared[:, :5, 100:150]
    assert abs(float(padding.mean()) - float(air.mean())) < 0.2


def test_a_volume_without_contrast_becomes_zeros() -> None:
    prepared = prepare_slices(np.full((1, 2, 80, 80), 7.0, dtype=np.float32))
    np.testing.assert_array_equal(prepared, 0.0)


def test_preparation_repeats_bit_for_bit_and_leaves_its_input_alone() -> None:
    channels = head(2, 300, 280)[None]
    before = channels.copy()
    np.testing.assert_array_equal(prepare_slices(channels), prepare_slices(channels))
    np.testing.assert_array_equal(channels, before)


@pytest.mark.parametrize(
    "channels",
    [
        np.zeros((2, 8, 8), dtype=np.float32),
        np.zeros((0, 2, 8, 8), dtype=np.float32),
        np.full((1, 1, 8, 8), np.nan, dtype=np.float32),
        np.full((1, 1, 8, 8), np.inf, dtype=np.float32),
    ],
)
def test_unusable_input_is_refused(channels: npt.NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="channels"):
        prepare_slices(channels)


@pytest.mark.parametrize(("shape", "height"), [((2, 128, 128), 256), ((256, 256), 256), ((2, 256, 256), 0)])
def test_unusable_maps_are_refused(shape: tuple[int, ...], height: int) -> None:
    with pytest.raises(ValueError, match=r"maps|height"):
        restore_slices(np.zeros(shape, dtype=np.float32), height, 256)
