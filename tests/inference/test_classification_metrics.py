from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from inference.training.classification_metrics import (
    MIN_POSITIVES,
    area_under_curve,
    binary_scores,
    choose_threshold,
    frequent_labels,
    hamming_loss,
    mean_area,
    patient_interval,
    score_label,
)


@pytest.fixture
def draws():
    return np.random.default_rng(0)


def test_the_area_is_that_of_torchmetrics_also_with_ties(draws):
    targets = draws.random(300) < 0.3
    scores = np.round(draws.random(300) + 0.3 * targets, 1)
    expected = binary_auroc(torch.from_numpy(scores / 2), torch.from_numpy(targets).int())
    assert area_under_curve(scores, targets) == pytest.approx(float(expected), abs=1e-6)


def test_an_area_needs_both_classes_and_means_leave_out_labels_without_them(draws):
    assert np.isnan(area_under_curve(np.array([0.1, 0.9]), np.array([True, True])))
    scores = np.array([[0.1, 0.5], [0.9, 0.5]], dtype=np.float32)
    targets = np.array([[False, True], [True, True]])
    assert mean_area(scores, targets, [0, 1]) == 1.0
    assert np.isnan(mean_area(scores, targets, [1]))


def test_labels_count_from_twenty_positives():
    targets = np.zeros((60, 3), dtype=bool)
    targets[:MIN_POSITIVES, 0] = targets[: MIN_POSITIVES - 1, 1] = True
    assert frequent_labels(targets) == (0,)


def test_the_interval_resamples_patients_and_not_images():
    values = np.repeat([0.0, 1.0], 50)
    patients = ["a"] * 50 + ["b"] * 50
    interval = patient_interval(lambda chosen: float(values[chosen].mean()), patients, resamples=200)
    assert (interval.mean, interval.count) == (0.5, 2)
    assert (interval.low, interval.high) == (0.0, 1.0), "two patients say nothing, however many images"


def test_the_threshold_of_a_frequent_label_has_the_best_f1(draws):
    targets = draws.random(400) < 0.3
    probabilities = np.clip(draws.normal(0.35 + 0.3 * targets, 0.15), 0, 1).astype(np.float32)

    def f1(threshold):
        calls = probabilities >= threshold
        return 2 * (calls & targets).sum() / (calls.sum() + targets.sum())

    chosen = choose_threshold(probabilities, targets)
    assert f1(chosen) >= max(f1(other) for other in np.linspace(0.05, 0.95, 100))


def test_the_threshold_of_a_rare_label_calls_as_many_as_there_are(draws):
    probabilities = draws.random(200).astype(np.float32)
    targets = np.zeros(200, dtype=bool)
    targets[:5] = True
    assert (probabilities >= choose_threshold(probabilities, targets)).sum() == 5


def test_a_label_is_scored_at_its_threshold():
    probabilities = np.array([0.9, 0.8, 0.3, 0.1], dtype=np.float32)
    targets = np.array([True, False, True, False])
    score = score_label("x", probabilities, targets, list("aabb"), 0.5, resamples=20)
    assert (score.positives, score.images, score.auc.mean) == (2, 4, 0.75)
    assert (score.f1, score.precision, score.recall, score.specificity) == (0.5, 0.5, 0.5, 0.5)


def test_the_hamming_loss_is_the_share_of_wrong_calls():
    probabilities = np.array([[0.9, 0.2], [0.4, 0.8]], dtype=np.float32)
    targets = np.array([[True, False], [True, True]])
    assert hamming_loss(probabilities, targets, (0.5, 0.5)) == pytest.approx(0.25)


def test_two_class_scores_of_a_perfect_and_a_random_model(draws):
    targets = np.arange(200) % 2 == 0
    groups = [str(index) for index in range(200)]
    perfect = binary_scores(targets.astype(np.float32), targets, groups, 0.5, resamples=50)
    assert {name: score.mean for name, score in perfect.items()} == dict.fromkeys(perfect, 1.0)
    chance = binary_scores(draws.random(200).astype(np.float32), targets, groups, 0.5, resamples=50)
    assert chance["kappa"].low < 0 < chance["kappa"].high
    assert chance["mcc"].low < 0 < chance["mcc"].high
