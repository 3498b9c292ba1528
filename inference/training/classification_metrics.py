"""Pure. Scores of whole-image classifiers: areas under the curve and decisions, with intervals over patients.

A score is of images; its interval resamples patients, because images of one patient are not independent.

References
----------
Hanley and McNeil, doi:10.1148/radiology.143.1.7063747 (area as a rank statistic); Efron and Tibshirani, An
Introduction to the Bootstrap (cluster bootstrap, percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torchmetrics.functional.classification import (
    binary_cohen_kappa,
    binary_f1_score,
    binary_matthews_corrcoef,
    binary_precision,
    binary_recall,
    binary_specificity,
    multilabel_hamming_distance,
)

from inference.training.metrics import Interval

Scores = npt.NDArray[np.float32]
Targets = npt.NDArray[np.bool_]
Statistic = Callable[[npt.NDArray[np.int64]], float]
"""A score of the images with the given indices; undefined (NaN) where it cannot be computed."""

MIN_POSITIVES: Final = 20
"""Positive images from which a label's score counts towards the mean."""

_RESAMPLES: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    """One label's scores.

    Attributes
    ----------
    positives, images : int
        How often the label is there, and in how many images it was looked for.
    auc : Interval
        Area under the receiver operating characteristic; undefined without both classes.
    threshold : float
        Probability from which the label is called present.
    f1, precision, recall, specificity : float
        Of the calls at that threshold.
    """

    name: str
    positives: int
    images: int
    auc: Interval
    threshold: float
    f1: float
    precision: float
    recall: float
    specificity: float


def area_under_curve(scores: npt.NDArray[np.floating], targets: Targets) -> float:
    """Area under the receiver operating characteristic of (N,) scores; NaN unless both classes are there."""
    positives = int(targets.sum())
    negatives = len(targets) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[targets].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def mean_area(scores: Scores, targets: Targets, labels: Sequence[int]) -> float:
    """Mean area under the curve of the given columns of (N, L) scores; NaN if no column has both classes.

    Columns without both classes are left out.
    """
    areas = [area_under_curve(scores[:, label], targets[:, label]) for label in labels]
    defined = [area for area in areas if np.isfinite(area)]
    return float(np.mean(defined)) if defined else float("nan")


def frequent_labels(targets: Targets, at_least: int = MIN_POSITIVES) -> tuple[int, ...]:
    """Return the columns of (N, L) targets with at least so many positive images."""
    return tuple(int(label) for label in np.flatnonzero(targets.sum(axis=0) >= at_least))


def patient_interval(
    statistic: Statistic, patients: Sequence[str], *, seed: int = 0, resamples: int = _RESAMPLES
) -> Interval:
    """Score all images, with a 95 % percentile bootstrap interval over patients.

    Parameters
    ----------
    statistic : callable
        From indices of images, which may repeat, to a score.
    patients : sequence of str
        (N,) patient of each image.

    Returns
    -------
    Interval
        ``mean`` is the score of all images; resamples where it is undefined are left out; ``count`` is the
        number of patients.
    """
    _, members = np.unique(np.asarray(patients), return_inverse=True)
    images = [np.flatnonzero(members == patient) for patient in range(int(members.max()) + 1)]
    draws = np.random.default_rng(seed)
    values = [
        statistic(np.concatenate([images[each] for each in draws.integers(0, len(images), len(images))]))
        for _ in range(resamples)
    ]
    defined = [value for value in values if np.isfinite(value)]
    low, high = np.percentile(defined, (2.5, 97.5)) if defined else (float("nan"), float("nan"))
    score = statistic(np.arange(len(members)))
    return Interval(mean=score, low=float(low), high=float(high), count=len(images))


def choose_threshold(probabilities: npt.NDArray[np.floating], targets: Targets) -> float:
    """Choose the probability from which a label is called present.

    Parameters
    ----------
    probabilities, targets : ndarray
        (N,) of validation images.

    Returns
    -------
    float
        The one with the best F1 score if the label has `MIN_POSITIVES` positives; else, because such a best
        would be chance, the one that calls as many images positive as there are. Between 0.01 and 0.99.
    """
    order = np.sort(probabilities)[::-1]
    positives = int(targets.sum())
    if positives < MIN_POSITIVES:
        chosen = float(order[max(positives - 1, 0)])
    else:
        cuts = np.unique(probabilities)
        called = len(order) - np.searchsorted(order[::-1], cuts, side="left")
        right = positives - np.searchsorted(np.sort(probabilities[targets]), cuts, side="left")
        best = int(np.argmax(2 * right / (called + positives)))
        chosen = float(cuts[best] if best == 0 else (cuts[best] + cuts[best - 1]) / 2)
    return float(np.clip(chosen, 0.01, 0.99))


def score_label(
    name: str,
    probabilities: npt.NDArray[np.float32],
    targets: Targets,
    patients: Sequence[str],
    threshold: float,
    *,
    resamples: int = _RESAMPLES,
) -> LabelScore:
    """Score (N,) probabilities of one label against (N,) targets; the interval resamples patients."""
    calls, truth = torch.from_numpy(probabilities >= threshold).int(), torch.from_numpy(targets).int()
    return LabelScore(
        name=name,
        positives=int(targets.sum()),
        images=len(targets),
        auc=patient_interval(
            lambda chosen: area_under_curve(probabilities[chosen], targets[chosen]),
            patients,
            resamples=resamples,
        ),
        threshold=threshold,
        f1=float(binary_f1_score(calls, truth)),
        precision=float(binary_precision(calls, truth)),
        recall=float(binary_recall(calls, truth)),
        specificity=float(binary_specificity(calls, truth)),
    )


def hamming_loss(probabilities: Scores, targets: Targets, thresholds: Sequence[float]) -> float:
    """Share of the (N, L) calls that are wrong."""
    calls = torch.from_numpy(probabilities >= np.asarray(thresholds)).int()
    return float(
        multilabel_hamming_distance(calls, torch.from_numpy(targets).int(), num_labels=calls.shape[1])
    )


def binary_scores(
    probabilities: npt.NDArray[np.float32],
    targets: Targets,
    patients: Sequence[str],
    threshold: float,
    *,
    resamples: int = _RESAMPLES,
) -> dict[str, Interval]:
    """Score a two-class model: AUC, sensitivity, specificity, Matthews' coefficient and Cohen's kappa.

    Parameters
    ----------
    probabilities, targets : ndarray
        (N,) probability and truth of the lesion class.
    patients : sequence of str
        (N,) what is resampled for the intervals.
    threshold : float
        Probability from which an image is called positive.
    """
    calls, truth = torch.from_numpy(probabilities >= threshold).int(), torch.from_numpy(targets).int()

    def of(metric: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Interval:
        return patient_interval(
            lambda chosen: float(metric(calls[chosen], truth[chosen])), patients, resamples=resamples
        )

    return {
        "auc": patient_interval(
            lambda chosen: area_under_curve(probabilities[chosen], targets[chosen]),
            patients,
            resamples=resamples,
        ),
        "sensitivity": of(binary_recall),
        "specificity": of(binary_specificity),
        "mcc": of(binary_matthews_corrcoef),
        "kappa": of(binary_cohen_kappa),
    }
