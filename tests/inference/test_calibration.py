from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from inference.familiarity import Familiarity
from inference.training.calibration import (
    calibration_rows,
    doubt_card,
    fit_calibration,
    fit_familiarity,
    fit_patient_triage,
    largest_familiar_deviation,
)
from inference.training.localisation import measure, summarise


def answers(count=2400):
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, size=(count, 2))
    targets = (rng.random((count, 2)) < special.expit(truth)).astype(np.float32)
    return (3 * truth).astype(np.float32), targets, [f"P{index // 2}" for index in range(count)]


@pytest.mark.parametrize("is_one_for_all", [False, True])
def test_temperatures_mend_an_overconfident_network_on_patients_they_were_not_fitted_on(is_one_for_all):
    fitted = fit_calibration(*answers(), is_one_for_all=is_one_for_all)
    assert len(fitted.temperatures) == (1 if is_one_for_all else 2)
    assert fitted.error_before > 0.1
    assert fitted.error_after < 0.05
    assert fitted.error_cross_fitted < 0.06
    assert sum(int(row[1]) for row in calibration_rows(fitted)) == fitted.cases == 4800
    card = doubt_card(fitted, dropout_passes=8, largest_uncertainty=0.2)
    assert card.temperatures == fitted.temperatures


def test_labels_that_exclude_each_other_share_a_temperature():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(800, 3))
    classes = np.array([rng.choice(3, p=special.softmax(row)) for row in truth])
    targets = np.eye(3, dtype=np.float32)[classes]
    fitted = fit_calibration(
        (3 * truth).astype(np.float32), targets, list(map(str, classes)), is_softmax=True
    )
    assert fitted.temperatures == pytest.approx((3.0,), rel=0.25)
    assert fitted.error_after < fitted.error_before


def test_a_patient_counts_once_in_triage():
    scores = np.linspace(0, 1, 200).astype(np.float32)
    is_abnormal = scores > 0.5
    once = fit_patient_triage(scores, is_abnormal, [f"P{index}" for index in range(200)])
    twice = fit_patient_triage(
        np.concatenate([scores, scores]),
        np.concatenate([is_abnormal, is_abnormal]),
        [f"P{index % 200}" for index in range(400)],
    )
    assert once == twice
    assert once.calibration_patients == 200


def test_familiarity_is_written_with_its_limits(tmp_path):
    rng = np.random.default_rng(0)
    card = fit_familiarity(
        rng.normal(size=(200, 8)).astype(np.float32),
        [rng.normal(size=(5, 8)).astype(np.float32) for _ in range(20)],
        tmp_path,
        "features",
    )
    assert Familiarity.load(tmp_path, card).mean.shape == (8,)
    assert 0 < card.threshold < card.refusal
    assert card.layer == "features"


def test_a_tenth_of_the_findings_is_uncertain():
    assert largest_familiar_deviation(list(np.linspace(0, 1, 11))) == pytest.approx(0.9)
    assert largest_familiar_deviation([0.0]) == 0.001


def test_localisation_is_a_mean_over_patients():
    reference = np.zeros((32, 32), dtype=bool)
    reference[4:8, 4:8] = True
    right = reference.astype(np.float32)
    wrong = np.zeros((32, 32), dtype=np.float32)
    wrong[28, 28] = 1.0
    hits = [measure(right, reference, "A", "mass")] * 3 + [measure(wrong, reference, "B", "mass")]
    figures = summarise(hits)
    assert figures.maps == 4
    assert (figures.pointing.mean, figures.pointing.count) == (0.5, 2)
    assert figures.overlap.mean == 0.5
    assert figures.chance.mean == pytest.approx(16 / 1024)
