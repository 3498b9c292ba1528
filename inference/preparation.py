"""Pure. From raw MR intensities to network input and back: the one preparation that training and node share.

Every function works on arrays already in memory. Nothing here may depend on a file format, a device or a
model: a change in this file changes what every model was trained on, so it needs new weights.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

MATRIX: Final = 256
"""Side of the network's input, pixels."""

_RANGE_PERCENTILES: Final = (1.0, 99.5)
"""Percentiles of the volume between which its intensities are taken to lie (background to scalp fat)."""

_FOREGROUND_FRACTION: Final = 0.1
"""A voxel is tissue when it lies above this fraction of the volume's range: air and its noise lie below."""

_TISSUE_PERCENTILES: Final = (1.0, 99.0)
"""Percentiles of the tissue to which it is clipped before its mean and deviation are taken."""

_CLIP_DEVIATIONS: Final = 5.0
"""Normalised intensities are clipped to plus and minus this many standard deviations."""

_HALF: Final = 0.5

_VOLUME_NDIM: Final = 3
_CHANNELS_NDIM: Final = 4


def prepare_slices(channels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Prepare one patient's sequences as network input.

    Each channel is normalised over its whole volume, padded with its own background to a square and resized
    in plane to `MATRIX`. When the slices are `MATRIX` x `MATRIX` already, nothing is interpolated. The result
    does not change when a channel's intensities are multiplied by a positive number or shifted, because the
    scale of MR intensities is arbitrary.

    Parameters
    ----------
    channels : npt.NDArray[np.float32]
        (C, D, H, W) raw intensities of one patient, any scale, all finite; the C sequences lie on one grid.
        A missing sequence is passed as a copy of the FLAIR sequence.

    Returns
    -------
    npt.NDArray[np.float32]
        (D, C, MATRIX, MATRIX) normalised slices, in standard deviations of the tissue.

    Raises
    ------
    ValueError
        If the array is not four-dimensional, is empty, or holds an infinite or undefined intensity.
    """
    if channels.ndim != _CHANNELS_NDIM or channels.size == 0:
        message = f"channels: expected a non-empty (C, D, H, W) array, got shape {channels.shape}"
        raise ValueError(message)
    if not np.isfinite(channels).all():
        message = "channels: replace infinite and undefined intensities before preparation"
        raise ValueError(message)
    prepared = [_resize(_pad_to_square(*_normalise(volume)), MATRIX) for volume in channels]
    return np.ascontiguousarray(np.stack(prepared, axis=1))


def stack_context(slices: npt.NDArray[np.float32], context: int) -> npt.NDArray[np.float32]:
    """Give every slice its neighbours as further channels.

    Parameters
    ----------
    slices : npt.NDArray[np.float32]
        (D, C, H, W) prepared slices, foot to head.
    context : int
        Neighbours on each side; 0 returns the slices as they are. Beyond the ends the last slice repeats.

    Returns
    -------
    npt.NDArray[np.float32]
        (D, (2 * context + 1) * C, H, W): the C channels of the lowest neighbour first.
    """
    if context == 0:
        return slices
    indices = context_indices(len(slices), context)
    return np.concatenate([slices[column] for column in indices.T], axis=1)


def context_indices(count: int, context: int) -> npt.NDArray[np.int64]:
    """Return (D, 2 * context + 1): for each of D slices the slices that it is seen with, lowest first."""
    around = np.arange(count)[:, None] + np.arange(-context, context + 1)
    return np.asarray(np.clip(around, 0, count - 1), dtype=np.int64)


def restore_slices(maps: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Map the network's output back onto the patient's own grid: the inverse geometry of `prepare_slices`.

    Parameters
    ----------
    maps : npt.NDArray[np.float32]
        (D, MATRIX, MATRIX) probabilities or logits.
    height, width : int
        In-plane matrix of the volume that was prepared, pixels.

    Returns
    -------
    npt.NDArray[np.float32]
        (D, height, width) values, bilinearly interpolated; exactly the input when height = width = MATRIX.

    Raises
    ------
    ValueError
        If `maps` is not (D, MATRIX, MATRIX), or a side is not positive.
    """
    if maps.ndim != _VOLUME_NDIM or maps.shape[1:] != (MATRIX, MATRIX):
        message = f"maps: expected (D, {MATRIX}, {MATRIX}), got shape {maps.shape}"
        raise ValueError(message)
    if height < 1 or width < 1:
        message = f"height and width must be positive, got {height} x {width}"
        raise ValueError(message)
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = _resize(np.ascontiguousarray(maps, dtype=np.float32), side)
    return np.ascontiguousarray(square[:, top : top + height, left : left + width])


def normalise_tissue(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (D, H, W) intensities in standard deviations of the tissue: what `prepare_slices` does first."""
    return _normalise(volume)[0]


def place_masks(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Bring masks on the patient's grid to where the network sees them: the geometry of `prepare_slices`.

    Parameters
    ----------
    masks : npt.NDArray[np.bool_]
        (D, H, W).

    Returns
    -------
    npt.NDArray[np.bool_]
        (D, MATRIX, MATRIX): true where at least half of a pixel is.
    """
    return np.asarray(_resize(_pad_to_square(masks.astype(np.float32), 0.0), MATRIX) >= _HALF)


def _normalise(volume: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float]:
    """Normalise a volume by its tissue.

    Parameters
    ----------
    volume : npt.NDArray[np.float32]
        (D, H, W) raw intensities.

    Returns
    -------
    tuple[npt.NDArray[np.float32], float]
        (D, H, W) intensities in standard deviations of the tissue, and the normalised background. A volume
        without contrast comes back as zeros.
    """
    low, high = np.percentile(volume, _RANGE_PERCENTILES)
    tissue = volume[volume > low + _FOREGROUND_FRACTION * (high - low)]
    if high <= low or tissue.size == 0:
        return np.zeros(volume.shape, dtype=np.float32), 0.0
    tissue = np.clip(tissue, *np.percentile(tissue, _TISSUE_PERCENTILES))
    mean = float(tissue.mean(dtype=np.float64))
    deviation = float(tissue.std(dtype=np.float64))
    if deviation == 0.0:
        deviation = float(high - low)
    limits = (-_CLIP_DEVIATIONS, _CLIP_DEVIATIONS)
    normalised = np.clip((volume.astype(np.float64) - mean) / deviation, *limits).astype(np.float32)
    return normalised, float(np.clip((low - mean) / deviation, *limits))


def _pad_to_square(volume: npt.NDArray[np.float32], background: float) -> npt.NDArray[np.float32]:
    """Pad (D, H, W) evenly on both sides to (D, S, S), S = max(H, W), with the background value."""
    _, height, width = volume.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    margins = ((0, 0), (top, side - height - top), (left, side - width - left))
    return np.pad(volume, margins, constant_values=background)


def _resize(volume: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Resize (D, S, S) in plane to (D, side, side), bilinear, antialiased; identity when equal."""
    if volume.shape[-1] == side:
        return volume
    resized = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(volume))[:, None],
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return resized[:, 0].numpy()
