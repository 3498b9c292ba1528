"""Pure. From a head CT in Hounsfield units to network input: windows, slices with enough head, crop, scale.

Training and node share every function here: a change is a change of what the networks were trained on.
Slices are cropped to the head because the field of view differs between sources (`inference.head_slices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from inference.cards import WindowCard
from inference.head_slices import Crop, crop_around, cut, head_mask, paste, window_unit
from inference.radiograph_preparation import GREY_DEVIATION, GREY_MEAN

_HEAD_FRACTION: Final = 0.1
"""A pixel belongs to the head when it lies above this fraction of the first window."""

ENOUGH_HEAD: Final = 0.4
"""A slice is read when its head covers at least this share of the largest one of the volume: above and below,
slices look like none that the networks were trained on."""

MOST_FOREIGN: Final = 0.2
"""A slice is read when at most this share of what lies inside the rim is air, fat or bone."""

_RIM: Final = 0.15
"""Width of the rim, scalp and skull, as a share of the head's radius."""

_FAT_HU: Final = -30.0
_BONE_HU: Final = 200.0
"""Brain, blood and liquor lie between these; clotted blood reaches about 100 HU."""

_SLICES_NDIM: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadCtSlices:
    """Prepared slices and where they come from.

    Attributes
    ----------
    images : ndarray
        (n, windows, matrix, matrix) float32 standardised grey.
    indices : tuple of int
        Index of each in the volume, ascending.
    crops : tuple of Crop
        Part of the slice that each shows.
    """

    images: npt.NDArray[np.float32]
    indices: tuple[int, ...]
    crops: tuple[Crop, ...]

    def restore(self, maps: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Put (n, matrix, matrix) maps of the prepared slices back onto (n, H, W) slices; zero outside."""
        placed = [paste(values, crop, shape) for values, crop in zip(maps, self.crops, strict=True)]
        return np.stack(placed) if placed else np.zeros((0, *shape), dtype=np.float32)


def window_slices(
    volume_hu: npt.NDArray[np.float32], windows: Sequence[WindowCard]
) -> npt.NDArray[np.float32]:
    """Look at a CT through several windows, one channel each.

    Parameters
    ----------
    volume_hu : ndarray
        (D, H, W) float32 Hounsfield units.
    windows : sequence of WindowCard
        Centres and widths; what lies outside is clipped.

    Returns
    -------
    ndarray
        (D, windows, H, W) float32, 0 (below the window) to 1 (above it).

    Raises
    ------
    ValueError
        If there is no window.
    """
    if not windows:
        raise ValueError("windows: name at least one window on the model's card")
    return np.stack([window_unit(volume_hu, window.centre_hu, window.width_hu) for window in windows], axis=1)


def slices_with_brain(
    volume_hu: npt.NDArray[np.float32], windowed: npt.NDArray[np.float32]
) -> tuple[int, ...]:
    """Choose the slices that show enough of the head, and brain rather than face or base of the skull.

    Parameters
    ----------
    volume_hu : ndarray
        (D, H, W) float32 Hounsfield units.
    windowed : ndarray
        (D, C, H, W) float32, 0 to 1; the head is found in the first channel.

    Returns
    -------
    tuple of int
        Indices, ascending. Blood counts as brain whatever its density, so that a bleeding drops no slice.
    """
    heads = [head_mask(image[0], _HEAD_FRACTION) for image in windowed]
    areas = np.array([head.sum() for head in heads], dtype=np.int64)
    enough = np.flatnonzero(areas >= max(ENOUGH_HEAD * areas.max(initial=0), 1))
    return tuple(
        int(index) for index in enough if _foreign_share(volume_hu[index], heads[index]) <= MOST_FOREIGN
    )


def _foreign_share(slice_hu: npt.NDArray[np.float32], head: npt.NDArray[np.bool_]) -> float:
    """Return the share of air, fat and bone inside the rim of a head."""
    radius = float(np.sqrt(head.sum() / np.pi))
    inside = slice_hu[ndimage.distance_transform_edt(head) > _RIM * radius]
    return float(((inside < _FAT_HU) | (inside > _BONE_HU)).mean()) if inside.size else 1.0


def prepare_head_ct(windowed: npt.NDArray[np.float32], indices: Sequence[int], matrix: int) -> HeadCtSlices:
    """Crop slices to the head, standardise and resize them.

    Parameters
    ----------
    windowed : ndarray
        (D, C, H, W) float32, 0 to 1, nose up; the head is found in the first channel.
    indices : sequence of int
        Slices wanted.
    matrix : int
        Side of the result, pixels.

    Returns
    -------
    HeadCtSlices
        One a wanted slice, in their order.

    Raises
    ------
    ValueError
        If the array is not four-dimensional.
    """
    if windowed.ndim != _SLICES_NDIM:
        raise ValueError(f"windowed: expected (D, C, H, W), got shape {windowed.shape}")
    images, crops = [], []
    for index in indices:
        crop = crop_around(head_mask(windowed[index, 0], _HEAD_FRACTION))
        squares = np.stack([cut(channel, crop) for channel in windowed[index]])
        images.append(_resize((squares - GREY_MEAN) / GREY_DEVIATION, matrix))
        crops.append(crop)
    shape = (0, windowed.shape[1], matrix, matrix)
    return HeadCtSlices(
        images=np.stack(images) if images else np.zeros(shape, dtype=np.float32),
        indices=tuple(indices),
        crops=tuple(crops),
    )


def _resize(channels: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Resize (C, n, n) to (C, side, side), bilinear, antialiased."""
    resized = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32))[None],
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return resized[0].numpy()
