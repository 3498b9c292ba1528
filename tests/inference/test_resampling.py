from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.findings import FrameReference
from inference.resampling import RegistrationError, has_same_grid, resample_to
from inference.volume import Volume

COEFFICIENTS = np.array([0.7, -0.4, 1.3])


def grid(shape, spacing_mm, origin_mm, angle=0.0) -> Volume:
    """A volume whose values are a linear function of the patient coordinates."""
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(spacing_mm)
    affine[:3, 3] = origin_mm
    empty = Volume(
        array=np.zeros(shape, dtype=np.float32),
        affine=affine,
        frames=tuple(FrameReference(sop_instance_uid=str(i)) for i in range(shape[0])),
        series_uid="1.2",
        frame_of_reference_uid="1.9",
        modality="MR",
    )
    slices, rows, columns = np.indices(shape)
    points = empty.to_patient(np.stack((columns, rows, slices), axis=-1).astype(float))
    return replace(empty, array=(points @ COEFFICIENTS).astype(np.float32))


REFERENCE = grid((6, 20, 24), (2.0, 1.5, 5.0), (-20.0, -15.0, 0.0))


def test_equal_grids_give_the_very_same_array():
    other = grid((6, 20, 24), (2.0, 1.5, 5.0), (-20.0, -15.0, 0.004))
    assert has_same_grid(other, REFERENCE)
    assert resample_to(other, REFERENCE) is other.array


@settings(max_examples=15, deadline=None)
@given(
    angle=st.floats(-0.5, 0.5),
    spacing=st.tuples(st.floats(0.7, 3), st.floats(0.7, 3), st.floats(1, 6)),
    shift=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_a_linear_field_survives_any_change_of_grid(angle, spacing, shift):
    margin_mm = 12.0
    shape = tuple(int(np.ceil((60 + 2 * margin_mm) / s)) for s in (spacing[2], spacing[1], spacing[0]))
    origin = np.array((-20.0, -15.0, 0.0)) + shift - margin_mm
    other = grid(shape, spacing, origin, angle)
    inside = other.to_indices(
        REFERENCE.to_patient(np.stack(np.indices((24, 20, 6)), axis=-1).reshape(-1, 3).astype(float))
    )
    limits = np.array(shape[::-1]) - 1
    covered = ((inside >= 0) & (inside <= limits)).all(axis=1).reshape(24, 20, 6).transpose(2, 1, 0)
    if covered.mean() < 0.75:
        return
    resampled = resample_to(other, REFERENCE)
    np.testing.assert_allclose(resampled[covered], REFERENCE.array[covered], atol=2e-2)


def test_what_lies_outside_becomes_air():
    other = grid((6, 20, 20), (2.0, 1.5, 5.0), (-20.0, -15.0, 0.0))
    resampled = resample_to(other, REFERENCE)
    np.testing.assert_allclose(resampled[..., :20], other.array, atol=1e-4)
    assert (resampled[..., 20:] == other.array.min()).all()


def test_a_volume_that_covers_too_little_is_refused():
    other = grid((6, 20, 10), (2.0, 1.5, 5.0), (-20.0, -15.0, 0.0))
    with pytest.raises(RegistrationError, match="covers only 4"):
        resample_to(other, REFERENCE)


@pytest.mark.parametrize("uid", ["1.10", None])
def test_other_or_unknown_frames_of_reference_are_refused(uid):
    with pytest.raises(RegistrationError):
        resample_to(replace(REFERENCE, frame_of_reference_uid=uid), REFERENCE)
