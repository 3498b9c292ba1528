"""Pure. What a region measures: volume, two diameters, side.

Lengths are taken on the region's outline, which runs half way between pixel centres, so that a disc of
diameter d measures d and a single pixel measures one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import find_contours

from inference.findings import Diameter, FrameReference, ImagePoint, Laterality

MM3_PER_ML: Final = 1000.0

BILATERAL_SHARE: Final = 0.2
"""A region that holds at least this share of its volume on each side of the midline is bilateral."""

_HEAD_FRACTION: Final = 0.1
"""A voxel is tissue when it lies above this fraction of the volume's intensity range."""

_RANGE_PERCENTILES: Final = (1.0, 99.5)

_EIGHT_NEIGHBOURS: Final = np.ones((3, 3), dtype=np.bool_)

_Ends: TypeAlias = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Both ends of a line: (2,) column and row in pixels each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diameters:
    """Long axis and the longest line perpendicular to it, both on one slice.

    Attributes
    ----------
    slice_index : int
        0-based slice they lie on.
    long_axis, perpendicular_axis : Diameter
        The lines, as PS3.16 TID 1501 calls them; the perpendicular is never longer.
    """

    slice_index: int
    long_axis: Diameter
    perpendicular_axis: Diameter


def volume_ml(mask: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64]) -> float:
    """Return the volume of a region by voxel summation.

    Parameters
    ----------
    mask : ndarray
        (D, H, W) bool.
    affine : ndarray
        (4, 4), voxel to LPS mm.

    Returns
    -------
    float
        Millilitres.

    References
    ----------
    IBSI YEKZ (volume from voxel counting), doi:10.1148/radiol.2020191145.
    """
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    return int(mask.sum()) * voxel_mm3 / MM3_PER_ML


def key_slice(mask: npt.NDArray[np.bool_]) -> int:
    """Return the index of the slice on which a region is largest, the first of equals."""
    return int(mask.sum(axis=(1, 2)).argmax())


def diameters(
    mask: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64], frames: tuple[FrameReference, ...]
) -> Diameters:
    """Measure a region in two dimensions on the slice where it is largest.

    The long axis is the longest line between two points of the outline. The perpendicular axis is the longest
    line at right angles to it that stays inside the region. When the region has several parts on the slice,
    the largest part is measured: a line between two parts would measure what lies between them.

    Parameters
    ----------
    mask : ndarray
        (D, H, W) bool, not empty.
    affine : ndarray
        (4, 4), (column, row, slice) to LPS mm.
    frames : tuple of FrameReference
        D images.

    Returns
    -------
    Diameters
        Two lines whose end points count from the outer corner of the first pixel, lengths in mm.

    Raises
    ------
    ValueError
        If the region is empty.

    References
    ----------
    PS3.16 TID 1501, CID 7470 (Long axis, Perpendicular axis); RANO bidirectional measurement,
    doi:10.1200/JCO.2009.26.3541.
    """
    if not mask.any():
        message = "mask: a region without voxels has no diameter"
        raise ValueError(message)
    index = key_slice(mask)
    scale_mm = np.linalg.norm(affine[:3, :2], axis=0)  # column step, row step
    outlines = _outlines(_largest_part(mask[index]))
    long_axis = _longest(np.concatenate(outlines), scale_mm)
    perpendicular = _longest_perpendicular(outlines, scale_mm, (long_axis[1] - long_axis[0]) * scale_mm)
    return Diameters(
        slice_index=index,
        long_axis=_line(*long_axis, scale_mm, frames[index]),
        perpendicular_axis=_line(*perpendicular, scale_mm, frames[index]),
    )


def midline_x_mm(
    array: npt.NDArray[np.float32], affine: npt.NDArray[np.float64], slices: slice
) -> float | None:
    """Return where the middle of the imaged head lies along the patient's left-right axis.

    The head is what lies above a tenth of the intensity range, its holes filled slice by slice and its
    largest part taken; the middle is the mean position of its voxels. Only the slices asked for count,
    because a tilted head has its middle elsewhere in every slice.

    Parameters
    ----------
    array : ndarray
        (D, H, W) float32 intensities.
    affine : ndarray
        (4, 4), (column, row, slice) to LPS mm.
    slices : slice
        Slices to look at.

    Returns
    -------
    float or None
        LPS x in mm; None when no head is seen.
    """
    low, high = np.percentile(array, _RANGE_PERCENTILES)
    if high <= low:
        return None
    is_tissue = array[slices] > low + _HEAD_FRACTION * (high - low)
    head = np.stack([_largest_part(ndimage.binary_fill_holes(plane)) for plane in is_tissue])
    if not head.any():
        return None
    return float(_x_mm(head, affine, slices.start or 0).mean())


def laterality(mask: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64], midline_mm: float) -> Laterality:
    """Return on which side of the patient a region lies.

    Parameters
    ----------
    mask : ndarray
        (D, H, W) bool, not empty.
    affine : ndarray
        (4, 4), (column, row, slice) to LPS mm; +x is the patient's left.
    midline_mm : float
        LPS x of the midline.

    Returns
    -------
    Laterality
        Bilateral when both sides hold at least `BILATERAL_SHARE` of the region.
    """
    left_share = float((_x_mm(mask, affine, 0) > midline_mm).mean())
    if min(left_share, 1 - left_share) >= BILATERAL_SHARE:
        return Laterality.BILATERAL
    return Laterality.LEFT if left_share > 1 - left_share else Laterality.RIGHT


def _x_mm(
    mask: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64], first_slice: int
) -> npt.NDArray[np.float64]:
    """Return the LPS x of every voxel of a region."""
    slices, rows, columns = np.nonzero(mask)
    indices = np.stack((columns, rows, slices + first_slice), axis=1)
    return np.asarray(indices @ affine[0, :3] + affine[0, 3], dtype=np.float64)


def _largest_part(plane: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest 8-connected part of a (H, W) mask."""
    labels, count = ndimage.label(plane, structure=_EIGHT_NEIGHBOURS)
    if count <= 1:
        return plane
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1, dtype=np.bool_)


def _outlines(plane: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.float64]]:
    """Return the closed outlines of a (H, W) mask as (n, 2) column, row; pixel centres lie at index + 0.5."""
    contours: list[npt.NDArray[np.float64]] = find_contours(  # type: ignore[no-untyped-call]
        np.pad(plane, 1).astype(np.float64), 0.5, fully_connected="high"
    )
    return [contour[:, ::-1] - 0.5 for contour in contours]  # padding moved centres by 1, corners by 0.5


def _longest(points: npt.NDArray[np.float64], scale_mm: npt.NDArray[np.float64]) -> _Ends:
    """Return the two points farthest apart in mm, the first pair of equals."""
    points = np.unique(points, axis=0)
    extremes = points[_hull_candidates(points)]
    squared = (((extremes[:, None] - extremes[None]) * scale_mm) ** 2).sum(axis=2).round(9)
    first, second = np.unravel_index(int(squared.argmax()), squared.shape)
    return extremes[first], extremes[second]


def _hull_candidates(points: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the indices of points that can end the longest line: first and last of each row of points."""
    order = np.lexsort((points[:, 0], points[:, 1]))
    rows = points[order, 1]
    is_first = np.r_[True, rows[1:] != rows[:-1]]
    is_last = np.r_[is_first[1:], True]
    return np.asarray(order[is_first | is_last], dtype=np.intp)


def _longest_perpendicular(
    outlines: list[npt.NDArray[np.float64]],
    scale_mm: npt.NDArray[np.float64],
    axis_mm: npt.NDArray[np.float64],
) -> _Ends:
    """Return the longest line inside closed outlines at right angles to an axis.

    Between two neighbouring outline points the length of such a line changes linearly along the axis, so the
    longest one passes through an outline point: both its one-sided limits are looked at. Its ends are
    interpolated between outline points, in pixels: turning coordinates to the axis and back would lose their
    last bits and put an end on the image's edge outside the image.
    """
    along = axis_mm / np.linalg.norm(axis_mm)
    across = np.array((-along[1], along[0]))
    begin = np.concatenate([outline[:-1] for outline in outlines])
    finish = np.concatenate([outline[1:] for outline in outlines])
    t0, t1 = (begin * scale_mm) @ along, (finish * scale_mm) @ along
    best, best_line = -1.0, (begin[0], begin[0])
    for t in np.unique(t0):
        for crosses in (((t0 <= t) != (t1 <= t)), ((t0 < t) != (t1 < t))):
            if not crosses.any():
                continue
            fraction = (t - t0[crosses]) / (t1[crosses] - t0[crosses])
            ends = begin[crosses] + fraction[:, None] * (finish[crosses] - begin[crosses])
            offsets = (ends * scale_mm) @ across
            order = np.argsort(offsets, kind="stable").reshape(-1, 2)
            lengths = offsets[order[:, 1]] - offsets[order[:, 0]]
            longest = int(lengths.argmax())
            if lengths[longest] > best + 1e-9:
                best = float(lengths[longest])
                best_line = (ends[order[longest, 0]], ends[order[longest, 1]])
    return best_line


def _line(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    scale_mm: npt.NDArray[np.float64],
    frame: FrameReference,
) -> Diameter:
    """Return a line between two points given as column and row in pixels."""
    return Diameter(
        length_mm=float(np.linalg.norm((end - start) * scale_mm)),
        frame=frame,
        start=ImagePoint(column=float(start[0]), row=float(start[1])),
        end=ImagePoint(column=float(end[0]), row=float(end[1])),
    )
