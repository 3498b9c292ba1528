"""Pure. Where the findings of a reading lie, so that another reading's can be recognised beside them.

Measured from the middle of the images, because two studies have two frames of reference and
nobody has laid one over the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from inference.findings import Analysis, Box, Diameter, FrameReference, ImagePoint
from reporting.comparison.matching import Position
from reporting.context import SourceSeries
from reporting.draft.kinds import name_finding, present
from reporting.errors import UnencodableResultError
from reporting.geometry import PlaneGeometry, read_plane
from reporting.projection import Views

#: Width that a radiograph is taken to show; its true magnification is not known. Typical of a chest film.
_NOMINAL_WIDTH_MM: Final = 400.0


def locate_findings(analysis: Analysis, sources: SourceSeries, views: Views) -> dict[str, Position]:
    """Return where each present finding lies that has a diameter or a box, by ``model/F1``.

    Parameters
    ----------
    analysis : Analysis
        Points lie on its first input.
    sources : mapping of str to sequence of Dataset
        Headers of the series that were read.
    views : mapping of FrameReference to RadiographView
        How radiographs show the patient; a box on one of unknown view has no place.
    """
    if not analysis.inputs:
        return {}
    reference = analysis.inputs[0]
    headers = sources.get(reference.series_uid, ())
    middle = _middle_of(headers, reference.frames)
    places: dict[str, Position] = {}
    for finding in present(analysis.findings):
        place = None
        if finding.box is not None:
            place = _locate_box(finding.box, views)
        elif finding.long_axis is not None and middle is not None:
            place = _locate_diameter(finding.long_axis, headers, middle)
        if place is not None:
            places[name_finding(analysis, finding)] = place
    return places


def _locate_box(box: Box, views: Views) -> Position | None:
    view = views.get(FrameReference(sop_instance_uid=box.frame.sop_instance_uid))
    if view is None or not view.is_frontal:
        return None
    rows, columns = (view.columns, view.rows) if view.turn.is_transposed else (view.rows, view.columns)
    left, top, right, bottom = view.turn.apply_corners(
        box.left, box.top, box.right, box.bottom, (rows, columns)
    )
    scale = _NOMINAL_WIDTH_MM / columns
    return scale * ((left + right) / 2 - columns / 2), 0.0, scale * (rows / 2 - (top + bottom) / 2)


def _locate_diameter(
    axis: Diameter, headers: Sequence[Dataset], middle: npt.NDArray[np.float64]
) -> Position | None:
    try:
        plane = read_plane(headers, axis.frame)
    except UnencodableResultError:
        return None
    centre = ImagePoint(
        column=(axis.start.column + axis.end.column) / 2, row=(axis.start.row + axis.end.row) / 2
    )
    x, y, z = (float(value) for value in _to_patient(plane, centre) - middle)
    return x, y, z


def _middle_of(
    headers: Sequence[Dataset], frames: Sequence[FrameReference]
) -> npt.NDArray[np.float64] | None:
    """Return the middle of a stack, LPS mm; None if its images have no place in the patient."""
    if not headers or not frames:
        return None
    centre = ImagePoint(column=float(headers[0].Columns) / 2, row=float(headers[0].Rows) / 2)
    try:
        ends = [_to_patient(read_plane(headers, frame), centre) for frame in (frames[0], frames[-1])]
    except UnencodableResultError:
        return None
    middle: npt.NDArray[np.float64] = (ends[0] + ends[1]) / 2
    return middle


def _to_patient(plane: PlaneGeometry, point: ImagePoint) -> npt.NDArray[np.float64]:
    """Return a point of an image in the patient, LPS mm (PS3.3 C.7.6.2.1.1; 0.5, 0.5 is the first centre)."""
    along_row, along_column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    place: npt.NDArray[np.float64] = (
        np.array(plane.position_mm)
        + along_row * (point.column - 0.5) * plane.column_spacing_mm
        + along_column * (point.row - 0.5) * plane.row_spacing_mm
    )
    return place
