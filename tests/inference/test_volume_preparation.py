from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.cards import WindowCard
from inference.volume_preparation import (
    GridChange,
    NormalizeIntensity,
    ScaleIntensityRange,
    UnitRange,
    VolumeGridError,
    VolumeRecipe,
    Windows,
    plan_grid,
    prepare_volume,
)

ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]


def recipe(orientation="RAS", spacing=None, *steps):
    return VolumeRecipe(orientation=orientation, spacing_mm=spacing, steps=steps, window=(8, 8, 8))


def oblique_affine(seed, spacing=(0.9, 1.1, 3.0)):
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.sign(np.diag(rotation)) @ np.diag(spacing)
    return affine[:, [*rng.permutation(3).tolist(), 3]]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.integers(0, 1000))
def test_turning_there_and_back_changes_no_voxel(orientation, seed):
    volume = np.random.default_rng(seed).normal(size=(3, 4, 5)).astype(np.float32)
    grid = plan_grid((3, 4, 5), oblique_affine(seed), recipe(orientation))
    np.testing.assert_array_equal(grid.restore(grid.apply(volume)[None])[0], volume)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_each_axis_of_the_network_points_where_its_letter_says(orientation):
    shape = (4, 5, 6)
    slices, rows, columns = np.meshgrid(*map(np.arange, shape), indexing="ij")
    position = {"L": columns, "P": rows, "S": slices}  # an axial series: LPS
    opposite = {"R": "L", "A": "P", "I": "S"}
    grid = plan_grid(shape, np.eye(4), recipe(orientation))
    for axis, letter in enumerate(orientation):
        sign, named = (-1, opposite[letter]) if letter in opposite else (1, letter)
        along = np.moveaxis(grid.apply(position[named].astype(np.float32)), axis, 0)
        assert (np.sign(np.diff(along, axis=0)) == sign).all()


def test_the_spacing_asked_for_is_met_within_a_voxel_and_the_extent_kept():
    grid = plan_grid((20, 40, 40), np.diag([0.5, 0.5, 5.0, 1.0]), recipe("LPS", (1.0, 1.0, 2.5)))
    assert grid == GridChange(
        order=(2, 1, 0), flips=(False, False, False), source=(20, 40, 40), target=(20, 20, 40)
    )


def test_a_smooth_map_comes_back_where_it_was():
    shape = (24, 30, 36)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    blob = np.exp(-4 * ((axes[0] - 0.2) ** 2 + axes[1] ** 2 + (axes[2] + 0.3) ** 2)).astype(np.float32)
    grid = plan_grid(shape, np.diag([1.0, 1.0, 1.5, 1.0]), recipe("ASR", (1.3, 1.2, 0.8)))
    restored = grid.restore(grid.apply(blob)[None])[0]
    assert restored.shape == shape
    assert np.abs(restored - blob).max() < 0.03


def test_a_spacing_that_would_fill_the_memory_is_refused():
    with pytest.raises(VolumeGridError, match="too many"):
        plan_grid((300, 512, 512), np.diag([1.0, 1.0, 1.0, 1.0]), recipe("RAS", (0.1, 0.1, 0.1)))


def test_intensities_are_prepared_as_the_steps_say():
    values = np.array([0.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0], dtype=np.float32).reshape(1, 2, 2, 2)
    grid = plan_grid((2, 2, 2), np.eye(4), recipe("LPS"))

    def prepared(*steps):
        return np.sort(prepare_volume(values, grid, recipe("LPS", None, *steps)).ravel())

    np.testing.assert_allclose(prepared(UnitRange()), np.sort(values.ravel()) / 12)
    scaled = prepared(ScaleIntensityRange(a_min=2, a_max=10, b_min=0, b_max=1, clip=True))
    np.testing.assert_allclose(scaled, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1])
    normalised = prepared(NormalizeIntensity(nonzero=True, channel_wise=True))
    assert (normalised == 0).sum() == 2, "voxels of value 0 stay"
    nonzero = np.sort(values[values > 0])
    assert np.isin(0.0, normalised)
    np.testing.assert_allclose(
        np.sort(normalised[normalised != 0]), (nonzero - nonzero.mean()) / nonzero.std(), rtol=1e-5
    )
    windows = prepare_volume(
        values, grid, recipe("LPS", None, Windows(windows=(WindowCard(centre_hu=6, width_hu=4),) * 2))
    )
    assert windows.shape == (2, 2, 2, 2)
    assert (windows.min(), windows.max()) == (0.0, 1.0)


def test_a_constant_volume_stays_finite():
    grid = plan_grid((2, 2, 2), np.eye(4), recipe("LPS"))
    flat = np.full((1, 2, 2, 2), 7.0, dtype=np.float32)
    assert np.isfinite(prepare_volume(flat, grid, recipe("LPS", None, UnitRange()))).all()
