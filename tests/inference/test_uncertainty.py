from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from torch import nn

from inference.cards import TriageCard
from inference.findings import RiskClass
from inference.uncertainty import (
    NoDropoutError,
    calibrate,
    calibration_error,
    dropout_deviation,
    fit_softmax_temperature,
    fit_temperatures,
    fit_triage,
    logits_of,
    reliability,
    triage_of,
)


def network(p=0.5):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(p), nn.Flatten(), nn.LazyLinear(2)
    ).eval()


IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32))


def test_dropout_moves_the_answer_reproducibly_and_leaves_everything_as_it_was():
    net = network()
    net(IMAGES)
    running = net[1].running_mean.clone()
    random_state = torch.get_rng_state()

    def forward():
        return torch.sigmoid(net(IMAGES))

    mean, deviation = dropout_deviation(net, forward, 8, seed=3)
    again = dropout_deviation(net, forward, 8, seed=3)
    other = dropout_deviation(net, forward, 8, seed=4)
    assert mean.shape == deviation.shape == (3, 2)
    assert (deviation > 0).all()
    assert (deviation <= 0.5).all()
    np.testing.assert_array_equal(deviation, again[1])
    assert not np.array_equal(deviation, other[1])
    assert not any(module.training for module in net.modules())
    assert torch.equal(net[1].running_mean, running)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_batch_normalisation_stays_in_evaluation_mode():
    net = network()
    modes = []
    net[1].register_forward_hook(lambda module, *_: modes.append(module.training))
    dropout_deviation(net, lambda: net(IMAGES), 2, seed=0)
    assert modes == [False, False]


def test_modes_are_put_back_when_the_network_fails():
    net = network()

    def forward():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        dropout_deviation(net, forward, 2, seed=0)
    assert not any(module.training for module in net.modules())


def test_a_network_without_dropout_says_so():
    with pytest.raises(NoDropoutError, match="dropout_passes"):
        dropout_deviation(network(p=0.0), lambda: IMAGES, 4, seed=0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=9))
def test_calibration_without_a_temperature_inverts_the_logit(values):
    probabilities = np.array([values], dtype=np.float32).T
    np.testing.assert_allclose(calibrate(logits_of(probabilities), ()), probabilities, atol=1e-5)


def test_temperatures_act_on_their_own_label_and_axis():
    logits = np.ones((2, 3, 4, 4), dtype=np.float32)
    probabilities = calibrate(logits, (0.5, 1.0, 2.0), axis=1)
    np.testing.assert_allclose(probabilities[1, :, 2, 2], special.expit([2.0, 1.0, 0.5]), rtol=1e-6)
    softmax = calibrate(np.array([[1.0, 2.0]], dtype=np.float32), (2.0,), is_softmax=True)
    assert softmax.sum() == pytest.approx(1.0)


def overconfident(count=4000, factor=3.0):
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 1.5, size=(count, 2))
    targets = (rng.random((count, 2)) < special.expit(truth)).astype(np.float32)
    return (factor * truth).astype(np.float32), targets


def test_the_temperature_of_an_overconfident_network_is_found_and_mends_its_calibration():
    logits, targets = overconfident()
    temperatures = fit_temperatures(logits, targets)
    assert temperatures == pytest.approx((3.0, 3.0), rel=0.12)
    before = calibration_error(calibrate(logits, ()), targets)
    after = calibration_error(calibrate(logits, temperatures), targets)
    assert before > 0.08
    assert after < 0.03


def test_labels_with_too_few_cases_or_unknown_ones_keep_their_logits():
    logits, targets = overconfident()
    targets[:, 0] = 0.0
    targets[:5, 0] = 1.0
    targets[5:2000, 1] = np.nan
    first, second = fit_temperatures(logits, targets)
    assert first == 1.0
    assert second == pytest.approx(3.0, rel=0.2)


def test_one_temperature_for_labels_that_exclude_each_other():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3000, 3))
    classes = np.array([rng.choice(3, p=special.softmax(row)) for row in truth])
    assert fit_softmax_temperature((2.5 * truth).astype(np.float32), classes) == pytest.approx(2.5, rel=0.15)


def test_the_reliability_table_counts_every_case_once():
    probabilities = np.array([0.0, 0.05, 0.5, 0.95, 1.0], dtype=np.float32)
    targets = np.array([0, 0, 1, 1, np.nan], dtype=np.float32)
    table = reliability(probabilities, targets, bins=10)
    assert [row.count for row in table] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert table[5].observed == 1.0
    assert calibration_error(probabilities, targets, bins=10) == pytest.approx((0.05 + 0.5 + 0.05) / 4)


def cohort(count, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    return scores.astype(np.float32), rng.random(count) < scores**0.5 * (scores > 0.3)


def test_triage_thresholds_hold_on_new_patients():
    card = fit_triage(*cohort(2000), negative_target=0.95, positive_target=0.85)
    assert 0 < card.low <= card.high < 1
    assert card.negative_predictive_value >= 0.95
    assert card.positive_predictive_value >= 0.85
    scores, is_abnormal = cohort(20000, seed=9)
    assert (~is_abnormal[scores < card.low]).mean() >= card.negative_predictive_value
    assert is_abnormal[scores >= card.high].mean() >= card.positive_predictive_value


def test_the_promise_is_kept_in_nearly_all_repetitions():
    broken = 0
    for seed in range(60):
        card = fit_triage(*cohort(300, seed), negative_target=0.9, positive_target=0.8)
        scores, is_abnormal = cohort(5000, seed + 1000)
        called = scores >= card.high
        if card.positive_predictive_value > 0 and called.any():
            broken += is_abnormal[called].mean() < 0.8
    assert broken <= 3


@pytest.mark.parametrize("count", [1, 20, 400])
def test_a_target_that_cannot_be_met_calls_nobody(count):
    rng = np.random.default_rng(0)
    scores = rng.random(count).astype(np.float32)
    scores[0] = 1.0
    card = fit_triage(scores, rng.random(count) < 0.5, negative_target=0.99, positive_target=0.99)
    assert (card.low, card.negative_predictive_value) == (0.0, 0.0)
    assert (card.high, card.positive_predictive_value) == (1.0, 0.0)
    assert {triage_of(float(score), card).risk for score in scores} == {RiskClass.UNCERTAIN}


def test_triage_states_what_its_class_is_worth():
    card = TriageCard(
        low=0.2,
        high=0.8,
        negative_predictive_value=0.95,
        positive_predictive_value=0.9,
        calibration_patients=120,
    )
    risks = {score: triage_of(score, card) for score in (0.1, 0.2, 0.5, 0.8)}
    assert [triage.risk for triage in risks.values()] == [
        RiskClass.LOW,
        RiskClass.UNCERTAIN,
        RiskClass.UNCERTAIN,
        RiskClass.HIGH,
    ]
    assert risks[0.1].predictive_value == 0.95
    assert risks[0.5].predictive_value is None
    assert risks[0.8].calibration_patients == 120
