"""Pure. Where an image plane lies in the patient: spacing, position and the letters at its edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from inference.findings import FrameReference
from reporting.errors import UnencodableResultError

#: Letters of the positive and negative ends of the LPS axes (PS3.3 C.7.6.1.1.1).
_LETTERS: Final = (("L", "R"), ("P", "A"), ("H", "F"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneGeometry:
    """One image plane.

    Attributes
    ----------
    position_mm : tuple of float
        LPS position of the centre of the first pixel.
    orientation : tuple of float
        Direction cosines of a row, then of a column.
    row_spacing_mm, column_spacing_mm : float
        Distance between the centres of adjacent rows, and of adjacent columns.
    """

    position_mm: tuple[float, float, float]
    orientation: tuple[float, ...]
    row_spacing_mm: float
    column_spacing_mm: float

    @property
    def right_letter(self) -> str:
        """Side of the patient at the right edge of the picture."""
        return _letter(self.orientation[:3])

    @property
    def left_letter(self) -> str:
        """Side of the patient at the left edge of the picture."""
        return _letter(tuple(-value for value in self.orientation[:3]))

    @property
    def bottom_letter(self) -> str:
        """Side of the patient at the lower edge of the picture."""
        return _letter(self.orientation[3:])


def read_plane(sources: Sequence[Dataset], frame: FrameReference) -> PlaneGeometry:
    """Return the plane of one frame, from a single-frame or a multi-frame header.

    Raises
    ------
    UnencodableResultError
        If the image is not among ``sources`` or has no place in the patient.
    """
    for source in sources:
        if str(source.SOPInstanceUID) == frame.sop_instance_uid:
            return _read(source, frame.frame_number)
    raise UnencodableResultError("An image of the mask is not in the study's headers.")


def _read(source: Dataset, frame_number: int | None) -> PlaneGeometry:
    try:
        position, orientation, spacing = (
            _plane_values(source, frame_number, *names)
            for names in (
                ("PlanePositionSequence", "ImagePositionPatient"),
                ("PlaneOrientationSequence", "ImageOrientationPatient"),
                ("PixelMeasuresSequence", "PixelSpacing"),
            )
        )
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise UnencodableResultError("An image of the mask has no position in the patient.") from exc
    return PlaneGeometry(
        position_mm=(position[0], position[1], position[2]),
        orientation=tuple(orientation),
        row_spacing_mm=spacing[0],
        column_spacing_mm=spacing[1],
    )


def _plane_values(source: Dataset, frame_number: int | None, sequence: str, keyword: str) -> list[float]:
    holder = source
    if "PerFrameFunctionalGroupsSequence" in source:
        group = source.PerFrameFunctionalGroupsSequence[(frame_number or 1) - 1]
        shared = source.SharedFunctionalGroupsSequence[0]
        holder = (group if sequence in group else shared)[sequence].value[0]
    return [float(value) for value in getattr(holder, keyword)]


def _letter(direction: Sequence[float]) -> str:
    axis = int(np.argmax(np.abs(direction)))
    return _LETTERS[axis][0 if direction[axis] > 0 else 1]
