"""Pure. Scores of a segmentation against its reference: per patient, over tumour-free slices, with intervals.

Every score is of a whole patient's volume unless its name says slice, because slices of one patient are not
independent.

References
----------
Maier-Hein et al., Metrics reloaded, doi:10.1038/s41592-023-02151-z; Efron and Tibshirani, An Introduction to
the Bootstrap (percentile interval).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its confidence interval.

    Attributes
    ----------
    mean, low, high : float
        The mean and the bounds of the interval.
    count : int
        Number of values (patients).
    """

    mean: float
    low: float
    high: float
    count: int


def dice(predicted: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks of one shape; 1.0 when both are empty."""
    total = int(predicted.sum()) + int(reference.sum())
    return 1.0 if total == 0 else 2.0 * int((predicted & reference).sum()) / total


def intersection_over_union(predicted: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape; 1.0 when both are empty."""
    union = int((predicted | reference).sum())
    return 1.0 if union == 0 else int((predicted & reference).sum()) / union


def hausdorff_95_px(predicted: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> float:
    """95th percentile of the in-plane distances between two outlines.

    Distances are measured within slices where both masks are present, because the data set carries no slice
    spacing; they are pooled over the patient and over both directions.

    Parameters
    ----------
    predicted, reference : npt.NDArray[np.bool_]
        (D, H, W) masks.

    Returns
    -------
    float
        Distance in pixels; infinite when no slice holds both masks.
    """
    distances: list[npt.NDArray[np.float64]] = []
    for ours, theirs in zip(predicted, reference, strict=True):
        if not (ours.any() and theirs.any()):
            continue
        our_edge = ours & ~ndimage.binary_erosion(ours)
        their_edge = theirs & ~ndimage.binary_erosion(theirs)
        distances.append(ndimage.distance_transform_edt(~their_edge)[our_edge])
        distances.append(ndimage.distance_transform_edt(~our_edge)[their_edge])
    return float(np.percentile(np.concatenate(distances), 95)) if distances else float("inf")


def false_positive_slices(
    predicted: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    """Count tumour-free slices that were marked nevertheless.

    Parameters
    ----------
    predicted, reference : npt.NDArray[np.bool_]
        (D, H, W) masks.

    Returns
    -------
    tuple[int, int]
        Number of tumour-free slices with any predicted voxel, and number of tumour-free slices.
    """
    is_free = ~reference.any(axis=(1, 2))
    return int((predicted.any(axis=(1, 2)) & is_free).sum()), int(is_free.sum())


def bootstrap_interval(values: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """Mean with its 95 % percentile bootstrap interval, resampling patients.

    Parameters
    ----------
    values : Sequence[float]
        One value a patient.
    seed : int
        Seed of the resampling.
    resamples : int
        Number of bootstrap samples.

    Returns
    -------
    Interval
        Mean, bounds and number of patients.

    Raises
    ------
    ValueError
        If there is no value.
    """
    if len(values) == 0:
        message = "values: a mean needs at least one patient"
        raise ValueError(message)
    sample = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(sample), size=(resamples, len(sample)))
    low, high = np.percentile(sample[draws].mean(axis=1), (2.5, 97.5))
    return Interval(mean=float(sample.mean()), low=float(low), high=float(high), count=len(sample))
