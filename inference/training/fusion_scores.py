"""Pure. Scores of the fusion network by the inputs that it was given: classes, grades, survival, calibration.

Every interval resamples what is independent: blocks of consecutive slices, clusters of near-duplicates,
patients. What the sets cannot show is said beside the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue, TypeAdapter
from rich.console import Console
from rich.table import Table
from scipy import special

from inference.networks.dual_encoder import HEALTHY, DualEncoder, grade_probabilities
from inference.training.classification_metrics import area_under_curve, patient_interval
from inference.training.fusion_data import CLASSES, GliomaPatient, PairSet, SliceSet
from inference.training.fusion_heads import (
    Outcomes,
    cross_validated,
    outcomes_of,
    read_features,
)
from inference.training.metrics import Interval
from inference.training.survival import concordance
from inference.uncertainty import calibration_error, fit_softmax_temperature

Figures = dict[str, JsonValue]

_BATCH: Final = 32
_PARTNER_SEED: Final = 20261122


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFigure:
    """A measured figure as the card holds it."""

    mean: float
    ci95: tuple[float, float]
    n: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """What is scored. Training patients are scored by cross-validation of their heads only."""

    mr: SliceSet
    ct: SliceSet
    pairs: PairSet
    training_patients: tuple[GliomaPatient, ...]
    validation_patients: tuple[GliomaPatient, ...]


@torch.inference_mode()
def class_logits(
    network: DualEncoder,
    *,
    ct: npt.NDArray[np.float16] | None = None,
    mr: npt.NDArray[np.float16] | None = None,
) -> npt.NDArray[np.float32]:
    """Return (N, classes) logits of slices, or of slices in pairs."""
    given = next(images for images in (ct, mr) if images is not None)
    parts = [np.zeros((0, network.class_head.out_features), dtype=np.float32)]
    for start in range(0, len(given), _BATCH):
        rows = slice(start, start + _BATCH)
        images = (
            None if each is None else torch.from_numpy(each[rows].astype(np.float32)) for each in (ct, mr)
        )
        parts.append(network(*images).tumour_class.numpy())
    return np.concatenate(parts)


def class_probabilities(
    network: DualEncoder,
    *,
    ct: npt.NDArray[np.float16] | None = None,
    mr: npt.NDArray[np.float16] | None = None,
    temperature: float = 1.0,
) -> npt.NDArray[np.float32]:
    """Return (N, classes) probabilities of slices, or of slices in pairs."""
    logits = class_logits(network, ct=ct, mr=mr)
    return np.asarray(special.softmax(logits / temperature, axis=1), dtype=np.float32)


def fit_class_temperature(network: DualEncoder, calibration: SliceSet) -> float:
    """Fit the divisor of the class logits on MR slices that were not trained on."""
    return fit_softmax_temperature(class_logits(network, mr=calibration.images), calibration.classes)


def stack_gliomas(
    patients: Sequence[GliomaPatient], sequence: str
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_], tuple[str, ...]]:
    """Return all slices of patients, which of them hold tumour, and whose they are."""
    having = [patient for patient in patients if sequence in patient.sequences]
    return (
        np.concatenate([patient.sequences[sequence] for patient in having]),
        np.concatenate([patient.has_tumour for patient in having]),
        tuple(patient.patient_id for patient in having for _ in patient.has_tumour),
    )


def score_network(
    network: DualEncoder, held: Held, *, temperature: float = 1.0, console: Console | None = None
) -> dict[str, JsonValue]:
    """Score a network and print its tables.

    Parameters
    ----------
    network : DualEncoder
        In evaluation mode.
    held : Held
        What no weight was trained on.
    temperature : float
        Divisor of the class logits.
    console : Console or None
        Where the table goes.

    Returns
    -------
    dict
        Figures by name, as the card holds them.
    """
    answers = _answers(network, held)
    figures: dict[str, JsonValue] = {
        "mr_alone": _score_mr(network, held.mr, temperature),
        "mr_alone_within_lgg": {
            sequence: _score_glioma_slices(network, held.validation_patients, sequence)
            for sequence in ("flair", "post")
        },
        "ct_alone": _score_ct(network, held.ct),
        "both_of_unrelated_people": _score_unrelated(network, held, temperature),
        "pairs_without_diagnosis": _score_pairs(network, held.pairs),
        "grade": {
            told.name: _grade_figures(told.stage, told.known.grades, told.names(told.known.graded))
            for told in answers
        },
        "survival": {
            told.name: _survival_figures(told.risk, told.known, told.names(told.known.followed))
            for told in answers
        },
    }
    if console is not None:
        console.print(_table(figures))
    return figures


def _score_mr(network: DualEncoder, mr: SliceSet, temperature: float) -> Figures:
    logits = class_logits(network, mr=mr.images)
    figures = _class_figures(special.softmax(logits / temperature, axis=1), mr.classes, mr.groups)
    return figures | {
        "calibration_error": _calibration(logits, mr.classes, 1.0),
        "calibration_error_after_temperature": _calibration(logits, mr.classes, temperature),
    }


def _class_figures(
    probabilities: npt.NDArray[np.floating], classes: npt.NDArray[np.int64], groups: Sequence[str]
) -> Figures:
    said = probabilities.argmax(axis=1)

    def macro(rows: npt.NDArray[np.int64]) -> float:
        areas = [area_under_curve(probabilities[rows, k], classes[rows] == k) for k in range(len(CLASSES))]
        return float(np.mean(areas))

    def tumours(rows: npt.NDArray[np.int64]) -> float:
        rows = rows[classes[rows] != HEALTHY]
        return area_under_curve(
            probabilities[rows, 2] / (probabilities[rows, 1:].sum(axis=1) + 1e-9),
            classes[rows] == 2,  # noqa: PLR2004
        )

    return {
        "accuracy": _figure(
            patient_interval(lambda rows: float((said[rows] == classes[rows]).mean()), groups)
        ),
        "auc_macro": _figure(patient_interval(macro, groups)),
        "auc_healthy": _figure(
            patient_interval(
                lambda rows: area_under_curve(probabilities[rows, HEALTHY], classes[rows] == HEALTHY), groups
            )
        ),
        "auc_malignant_among_tumours": _figure(patient_interval(tumours, groups)),
        "slices": len(classes),
    }


def _calibration(
    logits: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], temperature: float
) -> float:
    """Return the calibration error of the most probable class."""
    probabilities = special.softmax(logits / temperature, axis=1)
    is_right = (probabilities.argmax(axis=1) == classes).astype(np.float32)
    return round(calibration_error(probabilities.max(axis=1).astype(np.float32), is_right), 3)


def _score_glioma_slices(network: DualEncoder, patients: Sequence[GliomaPatient], sequence: str) -> Figures:
    """Tell slices with tumour from slices without, of the same people and scanners."""
    images, has_tumour, owners = stack_gliomas(patients, sequence)
    suspicion = 1.0 - class_probabilities(network, mr=images)[:, HEALTHY]
    return {
        "auc_tumour_slice": _figure(
            patient_interval(lambda rows: area_under_curve(suspicion[rows], has_tumour[rows]), owners)
        ),
        "accuracy": _figure(
            patient_interval(lambda rows: float(((suspicion > 0.5) == has_tumour)[rows].mean()), owners)  # noqa: PLR2004
        ),
        "slices": len(images),
    }


def _score_ct(network: DualEncoder, ct: SliceSet) -> Figures:
    suspicion = 1.0 - class_probabilities(network, ct=ct.images)[:, HEALTHY]
    is_lesion = ct.classes > 0
    is_said = suspicion > 0.5  # noqa: PLR2004 - a lesion of either kind is more probable than none
    return {
        "auc_lesion": _figure(
            patient_interval(lambda rows: area_under_curve(suspicion[rows], is_lesion[rows]), ct.groups)
        ),
        "accuracy": _figure(
            patient_interval(lambda rows: float((is_said == is_lesion)[rows].mean()), ct.groups)
        ),
        "slices": len(is_lesion),
    }


def _score_unrelated(network: DualEncoder, held: Held, temperature: float) -> Figures:
    """Score MR slices each with the CT slice of somebody else whose label is compatible."""
    draws = np.random.default_rng(_PARTNER_SEED)
    partners = np.array(
        [draws.choice(np.flatnonzero(held.ct.classes == int(label > 0))) for label in held.mr.classes]
    )
    probabilities = class_probabilities(
        network, ct=held.ct.images[partners], mr=held.mr.images, temperature=temperature
    )
    return _class_figures(probabilities, held.mr.classes, held.mr.groups)


def _score_pairs(network: DualEncoder, pairs: PairSet) -> Figures:
    """Say how often the modalities agree on healthy or not; no diagnosis is known, so nothing is claimed."""
    from_ct = class_probabilities(network, ct=pairs.ct)[:, HEALTHY] > 0.5  # noqa: PLR2004
    from_mr = class_probabilities(network, mr=pairs.mr)[:, HEALTHY] > 0.5  # noqa: PLR2004
    return {
        "modalities_agree": _figure(
            patient_interval(lambda rows: float((from_ct == from_mr)[rows].mean()), pairs.cases)
        ),
        "pairs": len(pairs.cases),
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _PatientAnswers:
    """What the heads say of the patients whose answer is known, under the name of the figure."""

    name: str
    patients: Sequence[GliomaPatient]
    known: Outcomes
    stage: torch.Tensor
    risk: torch.Tensor

    def names(self, rows: npt.NDArray[np.int64]) -> list[str]:
        return [self.patients[index].patient_id for index in rows]


def _answers(network: DualEncoder, held: Held) -> list[_PatientAnswers]:
    """Ask the heads: of training patients those that were left out, of validation patients the packaged."""
    told = []
    if held.training_patients:
        known = outcomes_of(held.training_patients)
        stage, risk = cross_validated(read_features(network, held.training_patients), known)
        told.append(
            _PatientAnswers(
                name="cross_validation", patients=held.training_patients, known=known, stage=stage, risk=risk
            )
        )
    looked_at, known = read_features(network, held.validation_patients), outcomes_of(held.validation_patients)
    for sequence in ("flair", "post"):
        features = looked_at.of(sequence)
        told.append(
            _PatientAnswers(
                name=f"validation_{sequence}",
                patients=held.validation_patients,
                known=known,
                stage=_read_head(network.stage_head, features[known.graded]),
                risk=_read_head(network.risk_head, features[known.followed])[:, 0],
            )
        )
    return told


def _grade_figures(logits: torch.Tensor, grades: torch.Tensor, names: Sequence[str]) -> Figures:
    probabilities = grade_probabilities(logits).numpy()
    truth = grades.numpy()
    error = np.abs(probabilities.argmax(axis=1) - truth)
    return {
        "auc_grade_3": _figure(
            patient_interval(lambda rows: area_under_curve(probabilities[rows, -1], truth[rows] > 0), names)
        ),
        "mean_absolute_error_grades": _figure(
            patient_interval(lambda rows: float(error[rows].mean()), names)
        ),
    }


def _survival_figures(risk: torch.Tensor, known: Outcomes, names: Sequence[str]) -> Figures:
    def score(rows: npt.NDArray[np.int64]) -> float:
        if known.is_dead[rows].all() or not known.is_dead[rows].any():
            return float("nan")
        return concordance(risk[rows], known.is_dead[rows], known.time_days[rows].float())

    return {"c_index": _figure(patient_interval(score, names)), "deaths": int(known.is_dead.sum())}


@torch.inference_mode()
def _read_head(head: torch.nn.Linear, features: torch.Tensor) -> torch.Tensor:
    """Apply a patient's head to (N, features) MR features alone."""
    count = features.shape[1]
    return (features @ head.weight[:, count : 2 * count].T + head.bias).clone()


def _figure(interval: Interval) -> JsonValue:
    bounds: list[JsonValue] = [round(interval.low, 3), round(interval.high, 3)]
    return {"mean": round(interval.mean, 3), "ci95": bounds, "n": interval.count}


def _table(figures: Mapping[str, JsonValue]) -> Table:
    table = Table("input", "figure", "value", title="fusion")

    def add(path: tuple[str, ...], value: JsonValue) -> None:
        if isinstance(value, dict) and "ci95" in value:
            figure = TypeAdapter(StoredFigure).validate_python(value)
            text = f"{figure.mean:.3f} [{figure.ci95[0]:.3f}, {figure.ci95[1]:.3f}] n={figure.n}"
            table.add_row(" / ".join(path[:-1]), path[-1], text)
        elif isinstance(value, dict):
            for name, part in value.items():
                add((*path, name), part)
        else:
            table.add_row(" / ".join(path[:-1]), path[-1], str(value))

    for name, value in figures.items():
        add((name,), value)
    return table
