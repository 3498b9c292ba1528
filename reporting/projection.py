"""Pure. Which side of the patient a place on a radiograph belongs to, and which zone of the lung.

A radiograph has no position in the patient: once it is upright, side and zone follow for
AP and PA from the convention that the patient's right is on the left of the picture. They
are estimates for words, and enter no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from pydicom.dataset import Dataset

from inference.findings import Box, FrameReference, Laterality
from inference.radiograph import AS_STORED, MODALITIES, Turn, turn_of, view_of
from reporting.context import SourceSeries

_FRONTAL_VIEWS: Final = frozenset({"AP", "PA"})
_SIDE_LETTERS: Final = frozenset({"L", "R"})
#: Share of the image's width about its middle within which a place has no side.
_MIDDLE: Final = 0.04
#: Share of a box that must lie in each half, and share of the image's width that it must have, for it
#: to be on both sides.
_BOTH: Final = 0.3
#: Where the lungs lie in a frontal chest radiograph, as shares of its height; the zones are its thirds.
_LUNG_TOP: Final = 0.08
_LUNG_BOTTOM: Final = 0.80


class Zone(StrEnum):
    """Third of the lung, from above, as radiologists divide it on a frontal radiograph."""

    UPPER = "upper"
    MID = "mid"
    LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiographView:
    """How a radiograph shows the patient.

    Attributes
    ----------
    rows, columns : int
        Size of the stored image, pixels.
    is_frontal : bool
        Whether the header says that the view is from front or back.
    turn : Turn
        How the stored image is turned to be upright, the patient's right on the left.
    """

    rows: int
    columns: int
    is_frontal: bool
    turn: Turn = AS_STORED


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something is, in words; None is unknown."""

    side: Laterality | None = None
    zone: Zone | None = None


Views: TypeAlias = Mapping[FrameReference, RadiographView]


def read_views(sources: SourceSeries) -> dict[FrameReference, RadiographView]:
    """Return how each radiograph among ``sources`` shows the patient; CT and MR images have no entry.

    References
    ----------
    PS3.3 C.7.6.1.1.1 (Patient Orientation), C.8.7.1.1.3 (View Position).
    """
    return {
        FrameReference(sop_instance_uid=str(header.SOPInstanceUID)): _read_view(header)
        for headers in sources.values()
        for header in headers
        if header.get("Modality") in MODALITIES and header.get("Rows") and header.get("Columns")
    }


def locate(box: Box, views: Views) -> Place:
    """Return side and zone of a box; nothing for an image whose view is not known to be frontal."""
    view = views.get(FrameReference(sop_instance_uid=box.frame.sop_instance_uid))
    if view is None or not view.is_frontal:
        return Place()
    shape = (view.columns, view.rows) if view.turn.is_transposed else (view.rows, view.columns)
    left, top, right, bottom = view.turn.apply_corners(box.left, box.top, box.right, box.bottom, shape)
    return Place(side=_find_side(left / shape[1], right / shape[1]), zone=_find_zone(top, bottom, shape[0]))


def _read_view(header: Dataset) -> RadiographView:
    orientation = header.get("PatientOrientation") or ()
    letters = {str(value)[:1].upper() for value in orientation}
    return RadiographView(
        rows=int(header.Rows),
        columns=int(header.Columns),
        is_frontal=view_of(header) in _FRONTAL_VIEWS or bool(letters & _SIDE_LETTERS),
        turn=turn_of(header),
    )


def _find_side(left: float, right: float) -> Laterality | None:
    """Return the patient's side of a span of columns, given as shares of the image's width."""
    share = (right - max(left, 0.5)) / max(right - left, 1e-6)
    if _BOTH <= share <= 1 - _BOTH:
        return Laterality.BILATERAL if right - left >= _BOTH else None
    offset = (left + right) / 2 - 0.5
    if abs(offset) < _MIDDLE:
        return None
    return Laterality.LEFT if offset > 0 else Laterality.RIGHT


def _find_zone(top: float, bottom: float, rows: int) -> Zone:
    height = ((top + bottom) / 2 / rows - _LUNG_TOP) / (_LUNG_BOTTOM - _LUNG_TOP)
    return (Zone.UPPER, Zone.MID, Zone.LOWER)[min(2, max(0, int(height * 3)))]
