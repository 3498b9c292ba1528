"""Pure. The patients' heads of the fusion network: grade and survival of gliomas from frozen MR features.

The CT columns of both heads are zero: no patient of any set has a CT and a grade, so a CT must not move them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from inference.networks.dual_encoder import DualEncoder
from inference.training.fusion_data import GliomaPatient
from inference.training.survival import (
    RIDGES,
    LinearHead,
    Loss,
    choose_ridge,
    cross_validate,
    draw_folds,
    fit_head,
    ordinal_loss,
    survival_loss,
)

FOLDS: Final = 5
FOLD_SEED: Final = 20261122

ROUTINE_SEQUENCE: Final = "flair"
"""Sequence that every patient has, and on which heads are judged."""

SLICES: Final = 16
"""Most slices of a series that are read, as ``options.slices`` of the card."""

_TERTILES: Final = (1 / 3, 2 / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskScale:
    """Where the training patients' log hazards lie, as predicted by heads that had not seen them.

    Attributes
    ----------
    median : float
        Log hazard of the median patient.
    tertiles : tuple of float
        Bounds between the lower, the middle and the higher third.
    """

    median: float
    tertiles: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """What is known of patients, in one order; only those are listed of whom it is known.

    Attributes
    ----------
    graded : ndarray
        Indices of the patients with a grade.
    grades : torch.Tensor
        (graded,) int.
    followed : ndarray
        Indices of the patients whose outcome is known.
    is_dead, time_days : torch.Tensor
        (followed,).
    """

    graded: npt.NDArray[np.int64]
    grades: torch.Tensor
    followed: npt.NDArray[np.int64]
    is_dead: torch.Tensor
    time_days: torch.Tensor

    @property
    def stage_loss(self) -> Loss:
        """Loss of the grades, over the graded patients."""
        return lambda outputs, rows: ordinal_loss(outputs, self.grades[rows])

    @property
    def risk_loss(self) -> Loss:
        """Loss of the outcomes, over the followed patients."""
        return lambda outputs, rows: survival_loss(outputs[:, 0], self.is_dead[rows], self.time_days[rows])


def outcomes_of(patients: Sequence[GliomaPatient]) -> Outcomes:
    """Collect what is known of patients."""
    graded = [index for index, patient in enumerate(patients) if patient.grade is not None]
    followed = [index for index, patient in enumerate(patients) if patient.is_dead is not None]
    return Outcomes(
        graded=np.array(graded, dtype=np.int64),
        grades=torch.tensor([patients[index].grade or 0 for index in graded]),
        followed=np.array(followed, dtype=np.int64),
        is_dead=torch.tensor([bool(patients[index].is_dead) for index in followed]),
        time_days=torch.tensor([patients[index].time_days for index in followed], dtype=torch.float64),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatientFeatures:
    """MR features of patients, sequence by sequence, by the slices that the node would read.

    Attributes
    ----------
    by_sequence : tuple of mapping
        One a patient: sequence to (features,).
    """

    by_sequence: tuple[Mapping[str, torch.Tensor], ...]

    @property
    def averaged(self) -> torch.Tensor:
        """(N, features): the mean of each patient's sequences, from which heads are fitted."""
        return torch.stack([torch.stack(list(each.values())).mean(dim=0) for each in self.by_sequence])

    def of(self, sequence: str) -> torch.Tensor:
        """Return (N, features) of one sequence, of `ROUTINE_SEQUENCE` where a patient lacks it."""
        return torch.stack([each.get(sequence, each[ROUTINE_SEQUENCE]) for each in self.by_sequence])


@torch.inference_mode()
def read_features(network: DualEncoder, patients: Sequence[GliomaPatient]) -> PatientFeatures:
    """Look at every sequence of every patient.

    Parameters
    ----------
    network : DualEncoder
        In evaluation mode.
    patients : sequence of GliomaPatient
        Who.
    """
    return PatientFeatures(
        by_sequence=tuple(
            {name: _mr_features(network, images).clone() for name, images in patient.sequences.items()}
            for patient in patients
        )
    )


def fit_patient_heads(network: DualEncoder, patients: Sequence[GliomaPatient]) -> RiskScale:
    """Fit both heads of a network in place.

    Parameters
    ----------
    network : DualEncoder
        In evaluation mode; its encoders stay as they are.
    patients : sequence of GliomaPatient
        Training patients.

    Returns
    -------
    RiskScale
        Of these patients, by cross-validation.
    """
    looked_at = read_features(network, patients)
    features = looked_at.averaged
    known = outcomes_of(patients)
    stage = _fit(features[known.graded], known.stage_loss, network.stage_head.out_features, known.grades)
    risk = _fit(features[known.followed], known.risk_loss, 1, known.is_dead)
    _install(network.stage_head, stage, features.shape[1])
    _install(network.risk_head, risk, features.shape[1])
    _, left_out = cross_validated(looked_at, known)
    log_hazard = left_out.numpy()
    lower, upper = np.quantile(log_hazard, _TERTILES)
    return RiskScale(median=float(np.median(log_hazard)), tertiles=(float(lower), float(upper)))


def cross_validated(looked_at: PatientFeatures, known: Outcomes) -> tuple[torch.Tensor, torch.Tensor]:
    """Return grade logits (graded, grades - 1) and log hazards (followed,) of left-out patients."""
    features, asked = looked_at.averaged, looked_at.of(ROUTINE_SEQUENCE)
    stage = cross_validate(
        features[known.graded],
        asked[known.graded],
        known.stage_loss,
        max(int(known.grades.max()), 1),
        _folds(known.grades),
        FOLD_SEED,
    )
    risk = cross_validate(
        features[known.followed],
        asked[known.followed],
        known.risk_loss,
        1,
        _folds(known.is_dead),
        FOLD_SEED,
    )
    return stage, risk[:, 0]


def _fit(features: torch.Tensor, loss: Loss, outputs: int, labels: torch.Tensor) -> LinearHead:
    ridge = choose_ridge(features, loss, outputs, _folds(labels), RIDGES)
    return fit_head(features, loss, outputs, ridge)


def _folds(labels: torch.Tensor) -> list[torch.Tensor]:
    return draw_folds(len(labels), FOLDS, FOLD_SEED, labels.long().tolist())


def _install(head: torch.nn.Linear, fitted: LinearHead, features: int) -> None:
    """Write a fitted head into the columns of the MR, and zeros into all others."""
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:, features : 2 * features] = fitted.weight
        head.bias.copy_(fitted.bias)


def _mr_features(network: DualEncoder, images: npt.NDArray[np.float16]) -> torch.Tensor:
    """Return the (features,) MR columns of one patient's representation."""
    places = np.linspace(0, len(images) - 1, min(SLICES, len(images))).round().astype(np.int64)
    slices = torch.from_numpy(images[places].astype(np.float32)).to(memory_format=torch.channels_last)
    representation = network.represent_study(mr=slices)[0]
    features = (len(representation) - 2) // 2
    return representation[features : 2 * features]
