from __future__ import annotations

import math

import pytest
import torch

from inference.training.survival import (
    RIDGES,
    choose_ridge,
    concordance,
    cross_validate,
    draw_folds,
    fit_head,
    ordinal_loss,
    survival_loss,
)

SAME_TIME = torch.ones(6, dtype=torch.float64)


def test_with_one_time_for_all_the_loss_ranks_the_dead_above_the_living() -> None:
    is_dead = torch.tensor([True, False, False, True, False, False])
    hazard = torch.tensor([2.0, -1.0, 0.0, 1.0, -2.0, 0.5], dtype=torch.float64)
    each = torch.logsumexp(hazard, 0) - hazard[is_dead]
    assert float(survival_loss(hazard, is_dead, SAME_TIME)) == pytest.approx(float(each.mean()))
    assert concordance(hazard, is_dead, SAME_TIME.float()) == 1.0
    assert concordance(-hazard, is_dead, SAME_TIME.float()) == 0.0


def test_with_times_only_those_still_at_risk_count() -> None:
    time = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    is_dead = torch.tensor([False, True, True])
    hazard = torch.tensor([5.0, 1.0, 0.0], dtype=torch.float64)
    wanted = math.log(math.exp(1) + 1) - 1.0  # the first left before anybody died; the last is alone
    assert float(survival_loss(hazard, is_dead, time)) == pytest.approx(wanted / 2)


def test_without_a_death_there_is_nothing_to_learn() -> None:
    hazard = torch.randn(6, dtype=torch.float64, requires_grad=True)
    loss = survival_loss(hazard, torch.zeros(6, dtype=torch.bool), SAME_TIME)
    loss.backward()
    assert loss.item() == 0.0
    assert hazard.grad is not None
    assert not hazard.grad.any()


def test_ordinal_logits_are_judged_only_where_the_grade_before_was_passed() -> None:
    logits = torch.tensor([[4.0, -50.0], [4.0, 3.0], [-4.0, 50.0]])
    grades = torch.tensor([1, 2, 0])
    loss = float(ordinal_loss(logits, grades))
    first = math.log1p(math.exp(-4))  # of all three
    second = (math.log1p(math.exp(-50)) + math.log1p(math.exp(-3))) / 2  # of the two that passed the first
    assert loss == pytest.approx(first + second, rel=1e-4)


def test_a_head_finds_what_decides_and_left_out_patients_confirm_it() -> None:
    torch.manual_seed(0)
    features = torch.randn(40, 8)
    grades = (features[:, 0] > 0).long()

    def loss(outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return ordinal_loss(outputs, grades[rows])

    folds = draw_folds(40, 4, 1, grades.tolist())
    assert sorted(torch.cat(folds).tolist()) == list(range(40))
    assert choose_ridge(features, loss, 1, folds, RIDGES) in RIDGES
    head = fit_head(features, loss, 1, 0.03)
    assert int(head.weight[0].abs().argmax()) == 0
    said = cross_validate(features, features, loss, 1, folds, seed=2)[:, 0] > 0
    assert float((said == grades.bool()).float().mean()) > 0.8


def test_a_fold_has_its_share_of_each_label() -> None:
    labels = [0] * 15 + [1] * 5
    for fold in draw_folds(20, 5, 3, labels):
        assert sum(labels[index] for index in fold.tolist()) == 1
