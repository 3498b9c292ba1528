"""Pure. From a radiograph to network input, and boxes back: the one preparation that training and node share.

Nothing here may depend on a file format, a device or a model: a change in this file changes what every
radiograph model was trained on, so it needs new weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from inference.radiograph import Radiograph

_RANGE_PERCENTILES: Final = (1.0, 99.0)
"""Percentiles of the grey values that become 0 and 1: markers, edges and collimation lie beyond them."""

_CENTRE_MARGIN: Final = 0.1
"""Share of each side that is left out where the middle grey is taken: borders are no patient."""

_MIDDLE: Final = 0.5
"""Grey to which the median of the centre is brought, so that a window or a film curve does not matter."""

_GAMMA_LIMITS: Final = (0.5, 2.0)
"""Limits of the exponent that brings it there."""

GREY_MEAN: Final = 0.5
GREY_DEVIATION: Final = 0.25
"""What is subtracted from, and divides, the grey values 0 to 1: network input has about unit variance."""

BLACK: Final = -GREY_MEAN / GREY_DEVIATION
"""Network input of a black pixel: what the margins are filled with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an image lies in the square that a network sees.

    Attributes
    ----------
    height, width : int
        The image, pixels.
    matrix : int
        Side of the network's square, pixels.
    """

    height: int
    width: int
    matrix: int

    @property
    def scale(self) -> float:
        """Pixels of the network for one of the image."""
        return self.matrix / max(self.height, self.width)

    @property
    def margins(self) -> tuple[int, int]:
        """Columns left of the image and rows above it in its padded square, pixels of the image."""
        side = max(self.height, self.width)
        return (side - self.width) // 2, (side - self.height) // 2

    def to_matrix(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map (N, 4) left, top, right, bottom on the image to the network's square."""
        return np.asarray((boxes + np.tile(self.margins, 2)) * self.scale, dtype=np.float32).reshape(-1, 4)

    def to_image(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map (N, 4) boxes on the network's square to the image, clipped to it."""
        mapped = np.asarray(boxes / self.scale - np.tile(self.margins, 2)).reshape(-1, 4)
        limits = np.array((self.width, self.height, self.width, self.height))
        return np.asarray(np.clip(mapped, 0, limits), dtype=np.float32)


def placement(radiograph: Radiograph, matrix: int) -> Placement:
    """Return where a radiograph lies in a square of ``matrix`` pixels."""
    height, width = radiograph.array.shape
    return Placement(height=height, width=width, matrix=matrix)


def prepare_radiograph(radiograph: Radiograph, matrix: int) -> npt.NDArray[np.float32]:
    """Prepare a radiograph as network input.

    Parameters
    ----------
    radiograph : Radiograph
        The image as a person sees it.
    matrix : int
        Side of the network's square input, pixels.

    Returns
    -------
    ndarray
        (1, matrix, matrix) float32, about -2 (black) to 2 (white).
    """
    return prepare_grey(radiograph.array, matrix)


def prepare_grey(grey: npt.NDArray[np.float32], matrix: int) -> npt.NDArray[np.float32]:
    """Prepare grey values of any scale as network input.

    The result does not change when the grey values are shifted or multiplied by a positive number, and hardly
    when a window or a film curve bent them: a DICOM image and a JPEG of it are prepared alike.

    Parameters
    ----------
    grey : ndarray
        (H, W) float32, black low and white high, all finite.
    matrix : int
        Side of the result, pixels. The image is padded with black to a square and resized, antialiased.

    Returns
    -------
    ndarray
        (1, matrix, matrix) float32, about -2 (black) to 2 (white).

    Raises
    ------
    ValueError
        If the array is empty or not two-dimensional, or holds an undefined value.
    """
    if grey.ndim != 2 or grey.size == 0 or not np.isfinite(grey).all():  # noqa: PLR2004 - rows, columns
        message = f"grey: expected a non-empty finite (H, W) array, got shape {grey.shape}"
        raise ValueError(message)
    normalised = (normalise_grey(grey) - GREY_MEAN) / GREY_DEVIATION
    height, width = normalised.shape
    side = max(height, width)
    left, top = Placement(height=height, width=width, matrix=matrix).margins
    margins = ((top, side - height - top), (left, side - width - left))
    square = np.pad(normalised, margins, constant_values=BLACK)
    return _resize(square, matrix)[None]


def restore_map(values: npt.NDArray[np.float32], radiograph: Radiograph) -> npt.NDArray[np.float32]:
    """Map an (S, S) map of the network's square, for example a heat map, onto the (H, W) radiograph.

    The margins that the preparation added are left out; values are interpolated bilinearly.
    """
    where = placement(radiograph, values.shape[0])
    side = max(where.height, where.width)
    left, top = where.margins
    square = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None],
        size=(side, side),
        mode="bilinear",
        align_corners=False,
    )[0, 0].numpy()
    return np.ascontiguousarray(square[top : top + where.height, left : left + where.width])


def normalise_grey(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (H, W) grey values 0 to 1 whose range and middle do not depend on how the image was windowed."""
    low, high = (float(value) for value in np.percentile(grey, _RANGE_PERCENTILES))
    if not high > low:
        low, high = float(grey.min()), float(grey.max())
    if not high > low:
        return np.zeros(grey.shape, dtype=np.float32)
    scaled = np.clip((grey.astype(np.float32) - low) / (high - low), 0.0, 1.0)
    height, width = scaled.shape
    rows, columns = int(height * _CENTRE_MARGIN), int(width * _CENTRE_MARGIN)
    middle = float(np.median(scaled[rows : height - rows, columns : width - columns]))
    if not 0.0 < middle < 1.0:
        return np.asarray(scaled, dtype=np.float32)
    gamma = float(np.clip(np.log(_MIDDLE) / np.log(middle), *_GAMMA_LIMITS))
    return np.asarray(scaled**gamma, dtype=np.float32)


def _resize(square: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Resize (S, S) to (side, side), bilinear, antialiased; identity when equal."""
    if square.shape[-1] == side:
        return np.ascontiguousarray(square, dtype=np.float32)
    resized = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(square, dtype=np.float32))[None, None],
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return resized[0, 0].numpy()
