"""Pure. One volume on another's grid, through their affines.

Volumes are brought together by the patient coordinates that the scanner wrote, never by image content.
Volumes of different frames of reference have no such coordinates in common and are refused.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicom_node.errors import PermanentError
from inference.volume import Volume

SAME_GRID_TOLERANCE_MM: Final = 0.01
"""Grids whose corners lie nearer than this are one grid: the resolution of rounded Image Positions."""

MIN_COVERAGE: Final = 0.7
"""Smallest share of the reference grid that the other volume must cover to stand beside it."""


class RegistrationError(PermanentError):
    """A volume cannot be brought onto another's grid: treat its role as missing and say so."""


def has_same_grid(volume: Volume, reference: Volume) -> bool:
    """Return whether two volumes have the same matrix and, within tolerance, the same pixel centres."""
    if volume.array.shape != reference.array.shape:
        return False
    corners = _corners(reference)
    distances = np.linalg.norm(volume.to_patient(corners) - reference.to_patient(corners), axis=1)
    return bool(distances.max() <= SAME_GRID_TOLERANCE_MM)


def resample_to(volume: Volume, reference: Volume) -> npt.NDArray[np.float32]:
    """Return a volume's values on the grid of a reference volume.

    Equal grids give the very same array. Otherwise values are interpolated linearly; half a voxel around the
    volume its outermost values hold, and what lies farther out becomes the volume's smallest value, which is
    air.

    Parameters
    ----------
    volume : Volume
        (D, H, W) float32 with its affine.
    reference : Volume
        The grid asked for.

    Returns
    -------
    ndarray
        float32 of the reference's shape.

    Raises
    ------
    RegistrationError
        If the frames of reference differ or are unknown, or if the volume covers less than `MIN_COVERAGE` of
        the reference grid.

    References
    ----------
    PS3.3 C.7.4.1 (Frame of Reference).
    """
    _require_one_frame_of_reference(volume, reference)
    if has_same_grid(volume, reference):
        return volume.array
    to_volume = np.linalg.inv(volume.affine) @ reference.affine
    # ndimage counts (slice, row, column), the affines (column, row, slice): reverse both axes of the matrix.
    matrix, offset = to_volume[:3, :3][::-1, ::-1], to_volume[:3, 3][::-1]
    shape = reference.array.shape
    coordinates = np.indices(shape, dtype=np.float32).reshape(3, -1)
    coordinates = matrix.astype(np.float32) @ coordinates + offset.astype(np.float32)[:, None]
    limits = np.array(volume.array.shape, dtype=np.float32)[:, None] - 0.5
    is_covered = ((coordinates >= -0.5) & (coordinates <= limits)).all(axis=0)  # noqa: PLR2004 - half a voxel
    coverage = float(is_covered.mean())
    if coverage < MIN_COVERAGE:
        raise RegistrationError(
            f"A series covers only {coverage:.0%} of the reference series: acquire both over the same region."
        )
    values = ndimage.map_coordinates(volume.array, coordinates, order=1, mode="nearest", output=np.float32)
    values[~is_covered] = volume.array.min()
    return np.asarray(values.reshape(shape), dtype=np.float32)


def _require_one_frame_of_reference(volume: Volume, reference: Volume) -> None:
    if volume.frame_of_reference_uid is None or reference.frame_of_reference_uid is None:
        raise RegistrationError(
            "A series has no Frame of Reference UID, so its position against the others is unknown: send the "
            "original series of one examination."
        )
    if volume.frame_of_reference_uid != reference.frame_of_reference_uid:
        raise RegistrationError(
            "Two series lie in different frames of reference: the patient was repositioned between them. "
            "Register "
            "them and send the registered series."
        )


def _corners(volume: Volume) -> npt.NDArray[np.float64]:
    """Return the (8, 3) column, row, slice indices of the corner voxels."""
    depth, height, width = volume.array.shape
    return np.array(
        [(c, r, s) for c in (0, width - 1) for r in (0, height - 1) for s in (0, depth - 1)], dtype=np.float64
    )
