"""Pure. The plane of a volume, and its slices turned the way a network has learnt to see them.

Axial slices as radiology shows them have columns from the patient's right to the left and rows from front to
back, nose up (LPS: +x, +y). A network that was trained on such slices reads others wrongly without a sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.errors import PermanentError
from dicom_node.planes import Plane, plane_of
from inference.volume import Volume


class UnsuitablePlaneError(PermanentError):
    """A series has another plane than the model reads; send the series that its card asks for."""


@dataclass(frozen=True, slots=True)
class AxialTurn:
    """How stored slices are flipped to nose up, patient's right on the left; its own inverse."""

    flips_rows: bool
    flips_columns: bool

    def apply(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn, or turn back, an array whose last two axes are rows and columns."""
        axes = tuple(axis for axis, flips in ((-2, self.flips_rows), (-1, self.flips_columns)) if flips)
        return np.ascontiguousarray(np.flip(array, axes)) if axes else array


def axial_turn(volume: Volume) -> AxialTurn:
    """Return how the slices of an axial volume are turned to nose up.

    Parameters
    ----------
    volume : Volume
        Axial up to 45 degrees of obliquity, columns along the patient's left-right axis.

    Raises
    ------
    UnsuitablePlaneError
        If it is sagittal or coronal, or its rows and columns are swapped.
    """
    columns, rows = volume.affine[:3, 0], volume.affine[:3, 1]
    plane = plane_of([*columns, *rows])
    if plane is not Plane.AXIAL:
        raise UnsuitablePlaneError(
            f"The series is {plane}, and the model reads axial slices only: send an axial series or reformat."
        )
    if (_nearest_axis(columns), _nearest_axis(rows)) != (0, 1):
        raise UnsuitablePlaneError(
            "The slices are stored with rows and columns swapped: send them as the scanner shows them."
        )
    return AxialTurn(flips_rows=bool(rows[1] < 0), flips_columns=bool(columns[0] < 0))


def _nearest_axis(direction: npt.NDArray[np.float64]) -> int:
    return int(np.abs(direction).argmax())
