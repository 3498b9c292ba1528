"""Pure. Connected components of masks: one idea of neighbourhood for training, evaluation and the node."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_NEIGHBOURS_26: Final = np.ones((3, 3, 3), dtype=np.bool_)
"""Voxels that share a face, an edge or a corner belong together."""


def label_components(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the connected components of a mask, numbered.

    Parameters
    ----------
    mask : ndarray
        (D, H, W) bool.

    Returns
    -------
    tuple of ndarray
        (D, H, W) int32 labels, 0 the background, and the size of component n at index n - 1, voxels.
    """
    labels, count = ndimage.label(mask, structure=_NEIGHBOURS_26)
    return labels, np.bincount(labels.ravel(), minlength=count + 1)[1:]


def remove_small_components(mask: npt.NDArray[np.bool_], min_voxels: int) -> npt.NDArray[np.bool_]:
    """Drop the components of a mask that are smaller than a number of voxels.

    Parameters
    ----------
    mask : ndarray
        (D, H, W) bool.
    min_voxels : int
        Smallest component that is kept.

    Returns
    -------
    ndarray
        (D, H, W) bool.
    """
    labels, sizes = label_components(mask)
    keeps = np.concatenate([[False], sizes >= min_voxels])
    return np.asarray(keeps[labels], dtype=np.bool_)
