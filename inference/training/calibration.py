"""Pure. From validation answers to what a card says of its doubt: temperatures, triage, familiarity.

Every recipe calls this with the logits of its validation patients. What is fitted on them looks a little
better on them than it is; `cross_fitted_error` says by how much, by fitting on one half of the patients and
measuring on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from inference.cards import DoubtCard, FamiliarityCard, TriageCard
from inference.familiarity import Familiarity, thresholds_of
from inference.uncertainty import (
    ReliabilityBin,
    calibrate,
    calibration_error,
    fit_softmax_temperature,
    fit_temperatures,
    fit_triage,
    reliability,
)

NEGATIVE_TARGET = 0.9
"""Predictive value wanted of studies called low risk."""

POSITIVE_TARGET = 0.9
"""Predictive value wanted of studies called high risk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Temperatures and what they do.

    Attributes
    ----------
    temperatures : tuple of float
        As ``doubt.temperatures`` of a card.
    error_before, error_after : float
        Expected calibration error of all labels together, on the cases that the temperatures were fitted on.
    error_cross_fitted : float
        The same, every case with temperatures of patients of the other half.
    table : tuple of ReliabilityBin
        Predicted and observed frequencies after calibration.
    cases : int
        Cases, labels counted one by one.
    """

    temperatures: tuple[float, ...]
    error_before: float
    error_after: float
    error_cross_fitted: float
    table: tuple[ReliabilityBin, ...]
    cases: int

    def as_metrics(self) -> dict[str, JsonValue]:
        """Return the figures as a card's ``metrics`` hold them."""
        return {
            "expected_calibration_error": {
                "before": round(self.error_before, 4),
                "after": round(self.error_after, 4),
                "cross_fitted": round(self.error_cross_fitted, 4),
                "cases": self.cases,
            }
        }


def fit_calibration(
    logits: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
    patients: Sequence[str],
    *,
    is_one_for_all: bool = False,
    is_softmax: bool = False,
) -> Calibration:
    """Fit temperatures to validation cases and measure what they do.

    Parameters
    ----------
    logits : ndarray
        (N, L) float32.
    targets : ndarray
        (N, L) 0 or 1, NaN where unknown; one-hot for labels that exclude each other.
    patients : sequence of str
        N patients; no patient is fitted on and measured in the cross-fitted error.
    is_one_for_all : bool
        Whether all labels share one temperature, for small sets.
    is_softmax : bool
        Whether the labels exclude each other; they share one temperature then.

    Returns
    -------
    Calibration
        Temperatures with their errors.
    """

    def fit(rows: npt.NDArray[np.bool_]) -> tuple[float, ...]:
        if is_softmax:
            return (fit_softmax_temperature(logits[rows], targets[rows].argmax(axis=1)),)
        if is_one_for_all:
            return fit_temperatures(logits[rows].reshape(-1, 1), targets[rows].reshape(-1, 1))
        return fit_temperatures(logits[rows], targets[rows])

    def predict(rows: npt.NDArray[np.bool_], temperatures: tuple[float, ...]) -> npt.NDArray[np.float32]:
        return calibrate(logits[rows], temperatures, is_softmax=is_softmax)

    every = np.ones(len(logits), dtype=np.bool_)
    temperatures = fit(every)
    after = predict(every, temperatures)
    crossed = np.full(targets.shape, np.nan, dtype=np.float32)
    half = _halves(patients)
    for rows in (half, ~half):
        if rows.any() and (~rows).any():
            crossed[rows] = predict(rows, fit(~rows))
    is_crossed = np.isfinite(crossed)
    return Calibration(
        temperatures=temperatures,
        error_before=calibration_error(predict(every, ()), targets),
        error_after=calibration_error(after, targets),
        error_cross_fitted=calibration_error(crossed[is_crossed], targets[is_crossed]),
        table=reliability(after, targets),
        cases=int(np.isfinite(targets).sum()),
    )


def _halves(patients: Sequence[str], seed: int = 0) -> npt.NDArray[np.bool_]:
    """Return which cases belong to the first half of the patients, drawn at random."""
    names = sorted(set(patients))
    chosen = np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]
    first = {names[index] for index in chosen}
    return np.array([patient in first for patient in patients], dtype=np.bool_)


def fit_patient_triage(
    scores: npt.NDArray[np.float32],
    is_abnormal: npt.NDArray[np.bool_],
    patients: Sequence[str],
    *,
    negative_target: float = NEGATIVE_TARGET,
    positive_target: float = POSITIVE_TARGET,
) -> TriageCard:
    """Fit triage to one study a patient: images of one patient are not independent.

    Parameters
    ----------
    scores : ndarray
        (N,) calibrated probabilities of an abnormal study.
    is_abnormal : ndarray
        (N,) bool.
    patients : sequence of str
        N patients; the first study of each counts, in the order given.
    negative_target, positive_target : float
        Predictive values wanted of low and of high risk.
    """
    _, first = np.unique(np.asarray(patients), return_index=True)
    return fit_triage(
        scores[first], is_abnormal[first], negative_target=negative_target, positive_target=positive_target
    )


def fit_familiarity(
    training: npt.NDArray[np.float32],
    validation: Sequence[npt.NDArray[np.float32]],
    folder: Path,
    layer: str | None = None,
) -> FamiliarityCard:
    """Fit familiarity to training images, set its limits on validation studies, and write its file.

    Parameters
    ----------
    training : ndarray
        (N, F) float32 pooled features of training images (`inference.familiarity.pooled_features`).
    validation : sequence of ndarray
        One (n, F) a study, none of them trained on; the median of its images is its distance.
    folder : Path
        The package's folder.
    layer : str or None
        Where the features come from; None is the card's ``explanation_layer``.
    """
    known = Familiarity.fit(training)
    distances = np.array([np.median(known.distance(each)) for each in validation], dtype=np.float32)
    threshold, refusal = thresholds_of(distances)
    file = known.save(folder)
    return FamiliarityCard(
        file=file.file, sha256=file.sha256, layer=layer, threshold=threshold, refusal=refusal
    )


def largest_familiar_deviation(deviations: Sequence[float], quantile: float = 0.9) -> float:
    """Return the uncertainty that a tenth of the validation findings passes, for ``largest_uncertainty``."""
    return round(max(float(np.quantile(np.asarray(deviations), quantile)), 1e-3), 4)


def doubt_card(
    calibration: Calibration,
    *,
    dropout_passes: int = 0,
    largest_uncertainty: float | None = None,
    triage: TriageCard | None = None,
    familiarity: FamiliarityCard | None = None,
) -> DoubtCard:
    """Put together the ``doubt`` part of a card."""
    return DoubtCard(
        temperatures=calibration.temperatures,
        dropout_passes=dropout_passes,
        largest_uncertainty=largest_uncertainty,
        triage=triage,
        familiarity=familiarity,
    )


def calibration_rows(calibration: Calibration) -> list[tuple[str, ...]]:
    """Return the reliability table as text: range, cases, predicted, observed; empty bins are left out."""
    return [
        (f"{row.low:.2f}-{row.high:.2f}", str(row.count), f"{row.predicted:.3f}", f"{row.observed:.3f}")
        for row in calibration.table
        if row.count
    ]
