"""Pure. The plane of an image, by Image Orientation (Patient)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

_COSINES = 6


class Plane(StrEnum):
    """The patient plane nearest to an image; up to 45 degrees of obliquity keep the name."""

    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    AXIAL = "axial"


def plane_of(orientation: Sequence[float]) -> Plane:
    """Return the plane of an image.

    Parameters
    ----------
    orientation : sequence of float
        Six direction cosines (or vectors of any length): of increasing column index, then of
        increasing row index, in LPS.

    References
    ----------
    PS3.3 C.7.6.2.1.1.
    """
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    nearest = max(range(3), key=lambda axis: abs(normal[axis]))
    return tuple(Plane)[nearest]


def read_plane(image_orientation: str) -> Plane | None:
    """Return the plane that Image Orientation (Patient) (0020,0037) tells of; None if it tells none.

    Parameters
    ----------
    image_orientation : str
        Six decimal strings joined by backslashes, as in ``Series.header``.
    """
    try:
        values = [float(value) for value in image_orientation.split("\\")]
    except ValueError:
        return None
    return plane_of(values) if len(values) == _COSINES else None
