"""Adapter: knows from a file beside it what an upright frontal chest radiograph looks like from afar.

A radiograph, shrunk to 16 x 16 pixels, is compared with those of the training patients as it is, turned by
quarter turns, and inverted. The file holds their mean and directions of variation, no image; `python -m
inference.training.admission` makes it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from inference.familiarity import Familiarity

REFERENCE: Final = Path(__file__).with_name("frontal_chest.safetensors")
"""What frontal chest radiographs have in common."""

SIDE_PX: Final = 16
"""Side of the shrunk image: lungs, heart and diaphragm remain, and no detail."""

_PERCENTILES: Final = (2.0, 98.0)
_BORDER_RANGE: Final = 0.04
"""Rows and columns at the edge that vary less than this share of the image's range are collimation."""

_SMALLEST_REST: Final = 0.4
"""Share of a side that trimming leaves at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestPose:
    """How like a frontal chest radiograph an image is, and which way up.

    Attributes
    ----------
    distance : float
        From frontal chest radiographs, about 1 for those, as the image is.
    best_distance : float
        Smallest distance over the other seven ways of showing it.
    quarter_turns : int
        Quarter turns, counter-clockwise, that bring it there.
    is_inverted : bool
        Whether black and white must change places too.
    """

    distance: float
    best_distance: float
    quarter_turns: int
    is_inverted: bool

    @property
    def ratio(self) -> float:
        """How many times nearer the image is when shown the other way; below 1 for an upright one."""
        return self.distance / max(self.best_distance, 1e-6)


def chest_pose(array: npt.NDArray[np.float32]) -> ChestPose:
    """Compare a radiograph with frontal chest radiographs.

    Parameters
    ----------
    array : ndarray
        (H, W) float32, 0 black to 1 white.
    """
    small = shrink(array)
    ways = [(turns, inverted) for inverted in (False, True) for turns in range(4)]
    features = np.stack(
        [np.rot90(-small if inverted else small, turns).reshape(-1) for turns, inverted in ways]
    )
    distances = _reference().distance(features)
    best = int(distances[1:].argmin()) + 1
    return ChestPose(
        distance=float(distances[0]),
        best_distance=float(distances[best]),
        quarter_turns=ways[best][0],
        is_inverted=ways[best][1],
    )


def shrink(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (SIDE_PX, SIDE_PX) float32 of mean 0 and deviation 1, without collimated borders."""
    trimmed = _trim(array)
    tensor = torch.from_numpy(np.ascontiguousarray(trimmed, dtype=np.float32))[None, None]
    small = functional.adaptive_avg_pool2d(tensor, SIDE_PX)[0, 0].numpy()
    low, high = np.percentile(small, _PERCENTILES)
    clipped = np.clip((small - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    return np.asarray((clipped - clipped.mean()) / max(float(clipped.std()), 1e-3), dtype=np.float32)


def _trim(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Cut rows and columns without detail off the edges, as collimators leave them."""
    smooth = functional.avg_pool2d(
        torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None, None],
        max(min(array.shape) // 64, 1),
    )[0, 0].numpy()
    limit = _BORDER_RANGE * max(float(np.ptp(smooth)), 1e-6)
    kept = []
    for axis, size in ((1, array.shape[0]), (0, array.shape[1])):
        inside = np.percentile(smooth, 95, axis=axis) - np.percentile(smooth, 5, axis=axis) > limit
        hits = np.flatnonzero(inside)
        step = size / len(inside)
        start, stop = (int(hits[0] * step), int((hits[-1] + 1) * step)) if hits.size else (0, size)
        kept.append(slice(start, stop) if stop - start >= _SMALLEST_REST * size else slice(0, size))
    return array[kept[0], kept[1]]


@cache
def _reference() -> Familiarity:
    return Familiarity.from_bytes(REFERENCE.read_bytes())
