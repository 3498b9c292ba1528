"""Pure. Axial slices of a head as a slice classifier sees them: chosen, cropped to the head, normalised.

Training and node share every function here: a change is a change of what the networks were trained on. Each
slice is prepared by itself, because the public training sets hold single slices; and it is cropped to the
head, because the field of view differs between sources and must not tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

_MR_RANGE_PERCENTILES: Final = (1.0, 99.5)
"""Percentiles of an MR slice between which its intensities are taken to lie."""

_MR_HEAD_FRACTION: Final = 0.1
"""An MR pixel belongs to the head when it lies above this fraction of the slice's range."""

_CT_HEAD_FRACTION: Final = 0.1
"""A CT pixel belongs to the head when it lies above this fraction of the window."""

_CLIP_DEVIATIONS: Final = 4.0
"""Normalised intensities are clipped to plus and minus this many standard deviations."""

_OPENING: Final = 2
"""Iterations of the opening that parts the head from its holder, pixels."""

_MARGIN: Final = 0.04
"""Margin around the head, as a share of its larger side."""

_ENOUGH_HEAD: Final = 0.6
"""A slice is chosen when its head covers at least this share of the largest one of the volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A square part of a slice; it may reach beyond the slice's edges.

    Attributes
    ----------
    top, left : int
        First row and column, pixels.
    side : int
        Rows and columns, pixels.
    """

    top: int
    left: int
    side: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadSlices:
    """Prepared slices and where they come from.

    Attributes
    ----------
    images : ndarray
        (n, 1, matrix, matrix) float32, in standard deviations of the head's intensities.
    indices : tuple of int
        Index of each in the volume.
    crops : tuple of Crop
        Part of the slice that each shows.
    """

    images: npt.NDArray[np.float32]
    indices: tuple[int, ...]
    crops: tuple[Crop, ...]


def window_unit(hu: npt.NDArray[np.float32], centre_hu: float, width_hu: float) -> npt.NDArray[np.float32]:
    """Map Hounsfield units to 0 (below the window) to 1 (above it)."""
    return np.asarray(np.clip((hu - (centre_hu - width_hu / 2)) / width_hu, 0.0, 1.0), dtype=np.float32)


def mr_unit(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Map one (H, W) MR slice to 0 to 1 by its own range; one without contrast becomes zeros."""
    low, high = np.percentile(image, _MR_RANGE_PERCENTILES)
    if high <= low:
        return np.zeros(image.shape, dtype=np.float32)
    return np.asarray(np.clip((image - low) / (high - low), 0.0, 1.0), dtype=np.float32)


def prepare_slices(
    unit: npt.NDArray[np.float32], indices: tuple[int, ...], matrix: int, *, is_ct: bool
) -> HeadSlices:
    """Crop slices to the head, normalise and resize them.

    Parameters
    ----------
    unit : ndarray
        (D, H, W) slices from 0 to 1: `mr_unit` of each, or `window_unit` of a CT; nose up.
    indices : tuple of int
        Slices wanted.
    matrix : int
        Side of the result, pixels.
    is_ct : bool
        Whether they are CT slices.

    Returns
    -------
    HeadSlices
        One a wanted slice, in their order.
    """
    fraction = _CT_HEAD_FRACTION if is_ct else _MR_HEAD_FRACTION
    images, crops = [], []
    for index in indices:
        head = head_mask(unit[index], fraction)
        crop = crop_around(head)
        images.append(_resize(cut(_standardise(unit[index], head), crop), matrix))
        crops.append(crop)
    stack = np.stack(images)[:, None] if images else np.zeros((0, 1, matrix, matrix), dtype=np.float32)
    return HeadSlices(images=stack, indices=indices, crops=tuple(crops))


def choose_slices(unit: npt.NDArray[np.float32], count: int, *, is_ct: bool) -> tuple[int, ...]:
    """Choose the slices of a volume that are read: evenly spaced among those with enough head.

    Parameters
    ----------
    unit : ndarray
        (D, H, W) slices from 0 to 1.
    count : int
        Most slices.
    is_ct : bool
        Whether they are CT slices.

    Returns
    -------
    tuple of int
        Indices, ascending; empty when no slice shows anything.
    """
    fraction = _CT_HEAD_FRACTION if is_ct else _MR_HEAD_FRACTION
    areas = np.array([head_mask(image, fraction).sum() for image in unit], dtype=np.int64)
    if areas.max(initial=0) == 0:
        return ()
    enough = np.flatnonzero(areas >= _ENOUGH_HEAD * areas.max())
    places = np.linspace(0, len(enough) - 1, min(count, len(enough)))
    return tuple(int(enough[round(place)]) for place in places)


def head_mask(unit: npt.NDArray[np.float32], fraction: float) -> npt.NDArray[np.bool_]:
    """Return the (H, W) head of a slice: its largest bright region, holes filled; empty if there is none."""
    bright = ndimage.binary_opening(unit > fraction, iterations=_OPENING)
    labels, count = ndimage.label(bright)
    if count == 0:
        return np.zeros(unit.shape, dtype=np.bool_)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()), dtype=np.bool_)


def crop_around(head: npt.NDArray[np.bool_]) -> Crop:
    """Return the square around a head with its margin; around the whole slice when there is no head."""
    rows, columns = np.flatnonzero(head.any(axis=1)), np.flatnonzero(head.any(axis=0))
    if not len(rows):
        rows, columns = np.array([0, head.shape[0] - 1]), np.array([0, head.shape[1] - 1])
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    side = max(height, width)
    side += 2 * round(_MARGIN * side)
    return Crop(
        top=int(rows[0]) - (side - height) // 2, left=int(columns[0]) - (side - width) // 2, side=side
    )


def cut(image: npt.NDArray[np.float32], crop: Crop) -> npt.NDArray[np.float32]:
    """Cut a crop out of an (H, W) slice; what lies beyond its edges gets the slice's lowest value."""
    height, width = image.shape
    square = np.full((crop.side, crop.side), image.min(), dtype=np.float32)
    top, left = max(crop.top, 0), max(crop.left, 0)
    bottom, right = max(min(crop.top + crop.side, height), top), max(min(crop.left + crop.side, width), left)
    square[top - crop.top : bottom - crop.top, left - crop.left : right - crop.left] = image[
        top:bottom, left:right
    ]
    return square


def paste(square: npt.NDArray[np.float32], crop: Crop, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Put an (n, n) map of a crop back where it came from in an (H, W) slice of zeros: `cut`'s inverse."""
    whole = np.zeros(shape, dtype=np.float32)
    sized = _resize(square, crop.side)
    top, left = max(crop.top, 0), max(crop.left, 0)
    bottom = max(min(crop.top + crop.side, shape[0]), top)
    right = max(min(crop.left + crop.side, shape[1]), left)
    whole[top:bottom, left:right] = sized[
        top - crop.top : bottom - crop.top, left - crop.left : right - crop.left
    ]
    return whole


def _standardise(image: npt.NDArray[np.float32], head: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Express an (H, W) slice in standard deviations of its head, around the head's mean."""
    inside = image[head] if head.any() else image.ravel()
    deviation = float(inside.std(dtype=np.float64))
    if deviation == 0.0:
        return np.zeros(image.shape, dtype=np.float32)
    scaled = (image - float(inside.mean(dtype=np.float64))) / deviation
    return np.asarray(np.clip(scaled, -_CLIP_DEVIATIONS, _CLIP_DEVIATIONS), dtype=np.float32)


def _resize(image: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Resize (n, n) to (side, side), bilinear, antialiased."""
    resized = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(image))[None, None],
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return resized[0, 0].numpy()
